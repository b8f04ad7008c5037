// GraphiQL over the service that serves this page, opened with a tab for each example.
import { HISTORY_PLUGIN } from "@graphiql/plugin-history";
import { explorerPlugin } from "@graphiql/plugin-explorer";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createClient } from "graphql-ws";
import { useState } from "react";
import { EXAMPLES } from "./examples.js";
import { FillIds, madeIds, newestIds } from "./ids.jsx";

// The page stands at the path that answers GraphQL, whatever is before it.
const url = location.origin + location.pathname;

// Subscriptions bring the credential that the headers editor holds in connection_init, as browsers cannot send headers
// with a WebSocket. One connection is opened for each, so that the headers are those of the moment.
let headers = {};
const fetcherOfHeaders = createGraphiQLFetcher({
  url,
  enableIncrementalDelivery: false,
  wsClient: createClient({ url: url.replace(/^http/, "ws"), connectionParams: () => headers }),
});

function ask(parameters, options) {
  headers = options?.headers ?? {};
  return fetcherOfHeaders(parameters, options);
}

const plugins = [HISTORY_PLUGIN, explorerPlugin()];

export function App() {
  const [ids, setIds] = useState({});
  const [fetcher] = useState(() => {
    // A service that cannot answer is told of by GraphiQL itself, which asks for the schema.
    newestIds(ask).then((found) => setIds((made) => ({ ...found, ...made })), () => {});
    return async (parameters, options) => {
      const answer = await ask(parameters, options);
      const made = madeIds(answer);
      if (made) setIds((known) => ({ ...known, ...made }));
      return answer;
    };
  });
  return (
    <GraphiQL fetcher={fetcher} plugins={plugins} defaultTabs={EXAMPLES} defaultEditorToolsVisibility="variables">
      <GraphiQL.Logo>Forkpoint</GraphiQL.Logo>
      <FillIds ids={ids} />
    </GraphiQL>
  );
}
