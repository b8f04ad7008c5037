// Builds the page into the package that serves it: `make graphiql`.
import { defineConfig } from "vite";

export default defineConfig({
  // Wherever the service is mounted: the page stands at …/graphql, its files at …/graphiql/.
  experimental: {
    renderBuiltUrl: (name, { hostType }) => (hostType === "html" ? `graphiql/${name}` : { relative: true }),
  },
  build: {
    outDir: "../graphql_api/graphiql",
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0,
    license: { fileName: "licenses.md" },
    modulePreload: false,
    target: "es2022",
    chunkSizeWarningLimit: 4000,
    // Hundreds of lines about React's "use client", which means nothing here.
    rolldownOptions: { onLog: (level, log, tell) => log.code === "MODULE_LEVEL_DIRECTIVE" || tell(level, log) },
  },
});
