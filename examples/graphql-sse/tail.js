// Tails a context over Server-Sent Events: each message once and in order, over as many connections as it takes.
//   node graphql-sse/tail.js CONTEXT_ID [AFTER_VERSION]
import { createClient } from "graphql-sse";
import { setTimeout as wait } from "node:timers/promises";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";

const client = createClient({ url, retryAttempts: 0 }); // it would begin again where it began before

const query = `subscription ($contextId: ID!, $afterVersion: Int) {
  messageAppended(contextId: $contextId, afterVersion: $afterVersion) { version message { role content } }
}`;

// Gives what follows a version, until the context is deleted.
async function* tail(contextId, version) {
  for (;;) {
    try {
      const variables = { contextId, afterVersion: version };
      for await (const { data, errors } of client.iterate({ query, variables })) {
        if (errors) throw errors;
        yield data.messageAppended;
        // The one thing to remember: the next subscription goes on from here.
        version = data.messageAppended.version;
      }
      return;
    } catch (error) {
      // Errors of GraphQL are a list; anything else means that the connection was lost, or not to be had.
      if (Array.isArray(error) && error[0].extensions.code !== "UNAVAILABLE") throw error;
    }
    await wait(200 + 800 * Math.random()); // not all clients at once
  }
}

const [contextId, afterVersion = 0] = process.argv.slice(2);
for await (const { version, message } of tail(contextId, Number(afterVersion))) {
  console.log(version, message.role, message.content);
}
