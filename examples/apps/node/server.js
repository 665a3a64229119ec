// Node.js alone: mktemplate up node-app --set source=examples/apps/node --set main=server.js
const { userInfo } = require("node:os");
const server = require("node:http").createServer((request, response) => {
  response.end(`node, as ${userInfo().username}: ${request.url}\n`);
});
server.listen(process.env.PORT);
process.on("SIGTERM", () => server.close());
