// The same as graphql_ws.mjs, with the client of the npm package graphql-sse.
import { createRequire } from "node:module";
import { join } from "node:path";

const { createClient } = createRequire(join(process.cwd(), "any.js"))("graphql-sse");
const [url, operations, results] = process.argv.slice(2);

const tell = (...what) => console.log(JSON.stringify(what));
let left = Number(results);
const client = createClient({
  url,
  retryAttempts: 1000,
  retry: () => new Promise((resolve) => setTimeout(resolve, 20)),
  on: { connected: (again) => tell("connected", again) },
});

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
          error: (error) => {
            tell("error", String(error));
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
client.dispose();
