// Tails a context over a WebSocket: each message once and in order, over as many connections as it takes.
//   node graphql-ws/tail.js CONTEXT_ID [AFTER_VERSION]
import { createClient } from "graphql-ws";
import { setTimeout as wait } from "node:timers/promises";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";
const [contextId, afterVersion = 0] = process.argv.slice(2);

// The one thing to remember. graphql-ws writes the variables anew for each connection, so the next goes on from here.
let version = Number(afterVersion);
const variables = {
  contextId,
  get afterVersion() {
    return version;
  },
};

let unanswered;
const client = createClient({
  url: url.replace(/^http/, "ws"),
  retryAttempts: Infinity,
  retryWait: () => wait(200 + 800 * Math.random()), // not all clients at once
  shouldRetry: () => true, // also when nobody listens there, for the while that a restart takes
  // A connection can be gone without a word. So it is asked now and then, and given up when no answer comes.
  keepAlive: 10_000,
  on: {
    ping: (received) => received || (unanswered = setTimeout(() => client.terminate(), 5_000)),
    pong: (received) => received && clearTimeout(unanswered),
    closed: () => clearTimeout(unanswered),
  },
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
