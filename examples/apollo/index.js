// Apollo Client: one cache of objects by id, pages that grow, and a mutation and a subscription that write into them.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { relayStylePagination } from "@apollo/client/utilities";
import { OperationTypeNode } from "graphql";
import { createClient } from "graphql-ws";
import { filter, firstValueFrom, map } from "rxjs";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";

const socket = createClient({ url: url.replace(/^http/, "ws"), retryAttempts: Infinity, shouldRetry: () => true });

const client = new ApolloClient({
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: url }),
  ),
  cache: new InMemoryCache({
    possibleTypes: { Node: ["Context", "Message"] },
    typePolicies: {
      Query: {
        fields: {
          // A context that any other query has brought is found by its id.
          context: (found, { args, toReference }) =>
            found === undefined ? toReference({ __typename: "Context", id: args.id }) : found,
        },
      },
      // Pages of the same roles are one list. It is made of edges: ask for these, not for `nodes`.
      Context: { fields: { messages: relayStylePagination(["roles"]) } },
    },
  }),
});

const CREATE = gql`
  mutation Create($input: CreateContextInput!) {
    createContext(input: $input) {
      context {
        id
        name
        latestVersion
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

const MESSAGE = gql`
  fragment MessageLine on Message {
    id
    version
    role
    content
  }
`;

const PAGE = gql`
  query Page($id: ID!, $after: String) {
    context(id: $id) {
      id
      latestVersion
      messages(first: 2, after: $after) {
        edges {
          cursor
          node {
            ...MessageLine
          }
        }
        pageInfo {
          endCursor
          hasNextPage
        }
      }
    }
  }
  ${MESSAGE}
`;

const APPEND = gql`
  mutation Append($input: AppendMessagesInput!) {
    appendMessages(input: $input) {
      context {
        id
        latestVersion
      }
      messages {
        ...MessageLine
      }
    }
  }
  ${MESSAGE}
`;

const TAIL = gql`
  subscription Tail($id: ID!, $afterVersion: Int) {
    messageAppended(contextId: $id, afterVersion: $afterVersion) {
      message {
        ...MessageLine
      }
    }
  }
  ${MESSAGE}
`;

// Puts a message at the end of what is shown. The same one may come twice: from the mutation that appended it and from
// the subscription, and again after a reconnect, since graphql-ws then subscribes with the version it began with.
function show(cache, contextId, message) {
  cache.modify({
    id: cache.identify({ __typename: "Context", id: contextId }),
    fields: {
      latestVersion: (known) => Math.max(known, message.version),
      messages(page, { readField, toReference }) {
        if (page.edges.some(({ node }) => readField("id", node) === message.id)) return page;
        const node = toReference(cache.identify(message));
        return { ...page, edges: [...page.edges, { __typename: "MessageEdge", cursor: "", node }] };
      },
    },
  });
}

const created = await client.mutate({
  mutation: CREATE,
  variables: {
    input: {
      name: "Trip to Lisbon",
      messages: [
        { role: "SYSTEM", content: "You plan trips." },
        { role: "USER", content: "Five days in Lisbon, please." },
        { role: "ASSISTANT", content: "Shall I look for flights or trains?" },
      ],
    },
  },
});
const { id, latestVersion } = created.data.createContext.context;

// The mutation's answer is in the cache under the context's id, so this sends no request.
const named = await client.query({ query: NAME, variables: { id }, fetchPolicy: "cache-only" });
console.log("name, from the cache:", named.data.context.name);

// What a component watches.
const page = client.watchQuery({ query: PAGE, variables: { id } });
page.subscribe(({ error }) => {
  if (error) throw error;
});
const shown = page.pipe(
  filter(({ dataState }) => dataState === "complete"),
  map(({ data }) => data.context),
);
const lastVersion = ({ messages }) => messages.edges.at(-1).node.version;
const until = (version) => firstValueFrom(shown.pipe(filter((context) => lastVersion(context) === version)));
const print = (what, { latestVersion, messages }) =>
  console.log(`${what}: ${messages.edges.map(({ node }) => node.version).join(" ")} of ${latestVersion}`);

const first = await until(2);
print("the first page", first);

await page.fetchMore({ variables: { after: first.messages.pageInfo.endCursor } });
print("and the second", await until(3));

const tail = client.subscribe({ query: TAIL, variables: { id, afterVersion: latestVersion } });
tail.subscribe(({ data, error }) => {
  if (error) throw error;
  show(client.cache, id, data.messageAppended.message);
});

await client.mutate({
  mutation: APPEND,
  variables: { input: { contextId: id, messages: [{ role: "USER", content: "By train." }] } },
  update: (cache, { data }) => data.appendMessages.messages.forEach((message) => show(cache, id, message)),
});
print("and what was appended", await until(4));

// Somebody else, who does not share the cache.
await fetch(url, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    query: "mutation ($input: AppendMessagesInput!) { appendMessages(input: $input) { replayed } }",
    variables: { input: { contextId: id, messages: [{ role: "ASSISTANT", content: "On which day?" }] } },
  }),
});
print("and what came in", await until(5));

client.stop();
await socket.dispose();
