// Runs operations with the client of the npm package graphql-ws, and writes what it was told as a line of JSON each.
// Arguments: the URL; a list of operations as JSON; after how many results in all to leave.
import { createRequire } from "node:module";
import { join } from "node:path";

const { createClient } = createRequire(join(process.cwd(), "any.js"))("graphql-ws");
const [url, operations, results] = process.argv.slice(2);

const tell = (...what) => console.log(JSON.stringify(what));
let left = Number(results);
const client = createClient({
  url,
  lazyCloseTimeout: 0,
  retryAttempts: 1000,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 20)),
  shouldRetry: () => true,
  on: { connected: (_socket, _payload, again) => tell("connected", again) },
});
client.on("closed", (event) => tell("closed", event.code));

await Promise.all(
  JSON.parse(operations).map(
    (payload) =>
      new Promise((resolve) => {
        const leave = client.subscribe(payload, {
          next: (result) => {
            tell("next", result);
            if (payload.variables?.first) payload.variables.first += 1; // counts when it connects anew
            left -= 1;
            if (left === 0) leave();
          },
          error: (errors) => {
            tell("error", errors);
            resolve();
          },
          complete: () => {
            tell("complete");
            resolve();
          },
        });
      }),
  ),
);
await client.dispose();
