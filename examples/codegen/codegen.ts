import type { CodegenConfig } from "@graphql-codegen/cli";

const config: CodegenConfig = {
  schema: "../../schema.graphql",
  documents: "index.ts",
  ignoreNoDocuments: false,
  generates: {
    "__generated__/": {
      preset: "client",
      presetConfig: { fragmentMasking: false },
      config: {
        documentMode: "string", // what is sent; no client needs to print it
        enumType: "string-literal",
        importExtension: ".ts", // as node imports them; leave it out where a bundler does
        strictScalars: true, // a scalar that is not named here is an error, not `any`
        scalars: {
          DateTime: "string",
          ID: "string",
          JSON: "unknown",
        },
        useTypeImports: true,
      },
    },
  },
};

export default config;
