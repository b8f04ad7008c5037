// Audits the server at a URL as npm graphql-http does, and writes each audit with what came of it as JSON.
// Packages are those of the folder where it runs.
import { createRequire } from "node:module";

const { auditServer } = createRequire(`${process.cwd()}/`)("graphql-http");

const results = await auditServer({ url: process.argv[2] });
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
