// Relay's store without React: a query, a page more, a mutation and a subscription that append to the same connection.
import {
  ConnectionHandler,
  Environment,
  Network,
  Observable,
  RecordSource,
  Store,
  commitMutation,
  createOperationDescriptor,
  fetchQuery,
  getSingularSelector,
  requestSubscription,
} from "relay-runtime";
import { createClient } from "graphql-ws";
import TripAppend from "./__generated__/TripAppendMutation.graphql.js";
import TripCreate from "./__generated__/TripCreateMutation.graphql.js";
import TripMessages from "./__generated__/TripMessages_context.graphql.js";
import TripMessagesQuery from "./__generated__/TripMessagesQuery.graphql.js";
import TripQuery from "./__generated__/TripQuery.graphql.js";
import TripTail from "./__generated__/TripTailSubscription.graphql.js";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";
const socket = createClient({ url: url.replace(/^http/, "ws"), retryAttempts: Infinity, shouldRetry: () => true });

async function request({ name, text }, variables) {
  console.log("request:", name);
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json" },
    body: JSON.stringify({ operationName: name, query: text, variables }),
  });
  return response.json();
}

const subscribe = ({ name, text }, variables) =>
  Observable.create((sink) => socket.subscribe({ operationName: name, query: text, variables }, sink));

const environment = new Environment({
  network: Network.create(request, subscribe),
  store: new Store(new RecordSource()),
});

const mutate = (mutation, variables) =>
  new Promise((onCompleted, onError) => commitMutation(environment, { mutation, variables, onCompleted, onError }));

const { createContext } = await mutate(TripCreate, {
  input: {
    name: "Trip to Lisbon",
    messages: [
      { role: "SYSTEM", content: "You plan trips." },
      { role: "USER", content: "Five days in Lisbon, please." },
      { role: "ASSISTANT", content: "Shall I look for flights or trains?" },
    ],
  },
});
const { id } = createContext.context;

// Kept as long as it is shown, so that the store does not collect it.
const trip = createOperationDescriptor(TripQuery, { id });
environment.retain(trip);

const { context } = await fetchQuery(environment, TripQuery, { id }).toPromise();
console.log(context.name);

// What usePaginationFragment does, with its data, its loadNext, and its subscription to what it shows.
const messages = environment.lookup(getSingularSelector(TripMessages, context));
function show({ data }) {
  const versions = data.messages.edges.map(({ node }) => node.version).join(" ");
  console.log(`${versions} of ${data.latestVersion}`);
}
show(messages);
environment.subscribe(messages, show);

const { endCursor } = messages.data.messages.pageInfo;
await fetchQuery(environment, TripMessagesQuery, { id, cursor: endCursor }).toPromise();

// A connection has an id of its own in the store, by which mutations and subscriptions name it.
const connections = [ConnectionHandler.getConnectionID(id, "TripMessages_messages")];
await mutate(TripAppend, { input: { contextId: id, messages: [{ role: "USER", content: "By train." }] }, connections });

// What the mutation has appended comes again, and stands there once.
await new Promise((arrived, onError) => {
  requestSubscription(environment, {
    subscription: TripTail,
    variables: { id, afterVersion: 3, connections },
    onNext: ({ messageAppended }) => arrived(messageAppended),
    onError,
  });
});

// All of it is in the store: no request is sent.
await fetchQuery(environment, TripQuery, { id }, { fetchPolicy: "store-or-network" }).toPromise();
console.log("asked again:", environment.lookup(trip.fragment).data.context.name);

await socket.dispose();
