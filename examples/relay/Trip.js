// For the compiler only. In an application these stand in its components, and the bundler's plugin for Relay puts what
// was compiled in their place; index.js imports that itself, and needs no bundler.
import { graphql } from "relay-runtime";

graphql`
  query TripQuery($id: ID!) {
    context(id: $id) {
      id
      name
      ...TripMessages_context
    }
  }
`;

// As usePaginationFragment takes it: `node(id:)` finds the context again, and pages of `messages` are one connection.
graphql`
  fragment TripMessages_context on Context
  @argumentDefinitions(count: { type: "Int", defaultValue: 2 }, cursor: { type: "String" })
  @refetchable(queryName: "TripMessagesQuery") {
    latestVersion
    messages(first: $count, after: $cursor) @connection(key: "TripMessages_messages") {
      edges {
        node {
          version
          role
          content
        }
      }
    }
  }
`;

graphql`
  mutation TripCreateMutation($input: CreateContextInput!) {
    createContext(input: $input) {
      context {
        id
      }
    }
  }
`;

graphql`
  mutation TripAppendMutation($input: AppendMessagesInput!, $connections: [ID!]!) {
    appendMessages(input: $input) {
      context {
        latestVersion
      }
      messages @appendNode(connections: $connections, edgeTypeName: "MessageEdge") {
        version
        role
        content
      }
    }
  }
`;

graphql`
  subscription TripTailSubscription($id: ID!, $afterVersion: Int, $connections: [ID!]!) {
    messageAppended(contextId: $id, afterVersion: $afterVersion) {
      message @appendNode(connections: $connections, edgeTypeName: "MessageEdge") {
        version
        role
        content
      }
    }
  }
`;
