// The tabs that a new visitor finds, in the order of their files. Variables that `ids.jsx` fills in begin empty.
const documents = import.meta.glob("./examples/*.graphql", { query: "?raw", import: "default", eager: true });

export const EXAMPLES = Object.keys(documents)
  .sort()
  .map((path) => {
    const query = documents[path].trimEnd();
    const names = [...query.matchAll(/\$(\w+): ID!/g)].map(([, name]) => name);
    const variables = Object.fromEntries(names.map((name) => [name, ""]));
    return { query, variables: names.length ? JSON.stringify(variables, null, 2) : "" };
  });
