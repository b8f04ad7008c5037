// GraphQL Code Generator: operations whose variables and answers TypeScript knows, and one function that sends them.
import { graphql } from "./__generated__/index.ts";
import type { TypedDocumentString } from "./__generated__/graphql.ts";

const url = process.env.FORKPOINT_URL ?? "http://127.0.0.1:8000/graphql";

type Answer<Data> = { data?: Data; errors?: { message: string; extensions: { code: string } }[] };

async function send<Data, Variables>(document: TypedDocumentString<Data, Variables>, variables: Variables) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json" },
    body: JSON.stringify({ query: document, variables }),
  });
  const { data, errors } = (await response.json()) as Answer<Data>;
  if (!data || errors) throw new Error(errors?.map(({ message }) => message).join("; "));
  return data;
}

const Create = graphql(`
  mutation Create($input: CreateContextInput!) {
    createContext(input: $input) {
      context {
        id
      }
    }
  }
`);

const Window = graphql(`
  query Window($id: ID!, $budget: Int!) {
    context(id: $id) {
      name
      window(budget: $budget) {
        tokenCount
        messages {
          role
          content
        }
      }
    }
  }
`);

const { createContext } = await send(Create, {
  input: {
    name: "Trip to Lisbon",
    messages: [
      { role: "SYSTEM", content: "You plan trips." },
      { role: "USER", content: "Five days in Lisbon, please." },
      { role: "ASSISTANT", content: "Shall I look for flights or trains?" },
    ],
  },
});

// Null when there is none: the type says so, and the compiler insists on the question mark.
const { context } = await send(Window, { id: createContext.context.id, budget: 18 });
console.log(context?.name, context?.window.tokenCount);
context?.window.messages.forEach(({ role, content }) => console.log(`${role}: ${content}`));
