// The example that stands here until --set source=DIR puts an application in its place.
const server = require("node:http").createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain");
  response.end("Hello from mktemplate's node-app.\n");
});
server.listen(process.env.PORT);
process.on("SIGTERM", () => server.close());
