// Fills the ids of contexts into the variables of the examples, so that nobody copies UUIDs from one tab to the next.
// `contextId` is the newest root, `forkId` a fork of it: as found when the page opens, and then as made by its mutations.
import { useGraphiQL } from "@graphiql/react";
import { useEffect } from "react";

const NEWEST = `{
  contexts(first: 1, filter: { rootsOnly: true }, orderBy: { field: CREATED_AT }) {
    nodes { id forks(first: 1) { nodes { id } } }
  }
}`;

// An id that was filled in earlier gives way to a newer one; one that somebody wrote stays.
const STORED = "forkpoint:filled";
const FILLED_MAX = 100;
const filled = new Set(JSON.parse(localStorage.getItem(STORED) ?? "[]"));

/** Ask for the newest root and its oldest fork. */
export async function newestIds(ask) {
  const answer = await ask({ query: NEWEST });
  const [root] = answer.data?.contexts.nodes ?? [];
  return { contextId: root?.id ?? "", forkId: root?.forks.nodes[0]?.id ?? "" };
}

/** Give the ids of what an answer says was made, or nothing. */
export function madeIds(answer) {
  const { createContext, forkContext } = answer.data ?? {};
  if (createContext?.context?.id) return { contextId: createContext.context.id, forkId: "" };
  if (forkContext?.context?.id) return { forkId: forkContext.context.id };
  return null;
}

/** Keep the variables of the tab that is shown up to date. */
export function FillIds({ ids }) {
  const { editor, tab } = useGraphiQL((state) => ({
    editor: state.variableEditor,
    tab: state.tabs[state.activeTabIndex].id,
  }));
  useEffect(() => {
    const text = editor && fill(editor.getValue(), ids);
    if (text) editor.setValue(text);
  }, [editor, tab, ids]);
  return null;
}

function fill(text, ids) {
  let variables;
  try {
    variables = JSON.parse(text);
  } catch {
    return null; // somebody is writing there
  }
  const stale = Object.keys(ids).filter(
    (name) => (variables?.[name] === "" || filled.has(variables?.[name])) && variables[name] !== ids[name],
  );
  if (!stale.length) return null;
  for (const name of stale) {
    variables[name] = ids[name];
    filled.add(ids[name]);
  }
  localStorage.setItem(STORED, JSON.stringify([...filled].slice(-FILLED_MAX)));
  return JSON.stringify(variables, null, 2);
}
