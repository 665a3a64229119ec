// A dependency from the registry: mktemplate up node-app --set source=examples/apps/npm --set npm=true
const ms = require("ms");
const server = require("node:http").createServer((request, response) => {
  response.end(`two days are ${ms("2 days")} ms\n`);
});
server.listen(process.env.PORT);
process.on("SIGTERM", () => server.close());
