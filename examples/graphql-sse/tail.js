// Tails a context over Server-Sent Events: each message once and in order, over as many connections as it takes.
//   node graphql-sse/tail.js CONTEXT_ID [AFTER_VERSION]
import { createClient } from "graphql-sse";
import { setTimeout as wait } from "node:timers/promises";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";
const [contextId, afterVersion = 0] = process.argv.slice(2);

// The one thing to remember. graphql-sse writes the variables anew for each request, so the next goes on from here.
let version = Number(afterVersion);
const variables = {
  contextId,
  get afterVersion() {
    return version;
  },
};

const client = createClient({
  url,
  retryAttempts: Infinity,
  retry: () => wait(200 + 800 * Math.random()), // not all clients at once
});

const query = `subscription ($contextId: ID!, $afterVersion: Int) {
  messageAppended(contextId: $contextId, afterVersion: $afterVersion) { version message { role content } }
}`;

// It ends when the context is deleted.
for await (const { data, errors } of client.iterate({ query, variables })) {
  if (errors) throw new Error(errors[0].message);
  const { message, version: next } = data.messageAppended;
  if (next <= version) continue; // it still waited here when the connection broke, and came again over the new one
  console.log(next, message.role, message.content);
  version = next;
}
