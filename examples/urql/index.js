// urql: a normalised cache, a mutation, and subscriptions over a WebSocket or over Server-Sent Events.
import { Client, fetchExchange, gql, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { createClient } from "graphql-ws";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";

const socket = createClient({ url: url.replace(/^http/, "ws"), retryAttempts: Infinity, shouldRetry: () => true });

// Objects are kept by type and id. Pages of one connection are joined when `nodes` or `edges` are asked for.
const cache = () =>
  cacheExchange({
    resolvers: {
      // A context that any other operation has brought is found by its id.
      Query: { context: (_, { id }) => ({ __typename: "Context", id }) },
      Context: { messages: relayPagination() },
    },
  });

const overWebSocket = new Client({
  url,
  exchanges: [
    cache(),
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
      }),
    }),
  ],
});

// The same fetch that sends queries takes subscriptions, and no more packages are needed.
const overEvents = new Client({
  url,
  fetchSubscriptions: true,
  exchanges: [cache(), fetchExchange],
});

const CREATE = gql`
  mutation Create($input: CreateContextInput!) {
    createContext(input: $input) {
      context {
        id
        name
      }
    }
  }
`;

const NAME = gql`
  query Name($id: ID!) {
    context(id: $id) {
      id
      name
    }
  }
`;

const PAGE = gql`
  query Page($id: ID!, $after: String) {
    context(id: $id) {
      id
      messages(first: 2, after: $after) {
        nodes {
          id
          version
          content
        }
        pageInfo {
          endCursor
          hasNextPage
        }
      }
    }
  }
`;

const APPEND = gql`
  mutation Append($input: AppendMessagesInput!) {
    appendMessages(input: $input) {
      context {
        id
        latestVersion
      }
      messages {
        id
        version
        content
      }
    }
  }
`;

const TAIL = gql`
  subscription Tail($id: ID!, $afterVersion: Int) {
    messageAppended(contextId: $id, afterVersion: $afterVersion) {
      message {
        id
        version
        content
      }
    }
  }
`;

// urql gives errors beside the data; here the first one ends the program.
function dataOf({ data, error }) {
  if (error) throw error;
  return data;
}

const client = overWebSocket;
const messages = [
  { role: "SYSTEM", content: "You plan trips." },
  { role: "USER", content: "Five days in Lisbon, please." },
  { role: "ASSISTANT", content: "Shall I look for flights or trains?" },
];
const { createContext } = dataOf(await client.mutation(CREATE, { input: { name: "Trip to Lisbon", messages } }));
const { id } = createContext.context;

// The mutation's answer is in the cache under the context's id, so this sends no request.
const named = await client.query(NAME, { id }, { requestPolicy: "cache-only" });
console.log("name, from the cache:", dataOf(named).context.name);

const versions = ({ context }) => context.messages.nodes.map(({ version }) => version).join(" ");
const first = dataOf(await client.query(PAGE, { id }));
console.log("the first page:", versions(first));
const second = await client.query(PAGE, { id, after: first.context.messages.pageInfo.endCursor });
console.log("and the second:", versions(dataOf(second)));

const input = { contextId: id, messages: [{ role: "USER", content: "By train." }] };
const { appendMessages } = dataOf(await client.mutation(APPEND, { input }));
console.log("appended:", appendMessages.messages[0].version);

for (const [way, subscriber] of Object.entries({ "a WebSocket": overWebSocket, events: overEvents })) {
  const { promise, resolve, reject } = Promise.withResolvers();
  const tail = subscriber.subscription(TAIL, { id, afterVersion: 3 });
  const { unsubscribe } = tail.subscribe(({ data, error }) =>
    error ? reject(error) : resolve(data.messageAppended.message),
  );
  const { version, content } = await promise;
  unsubscribe();
  console.log(`over ${way}:`, version, content);
}

await socket.dispose();
