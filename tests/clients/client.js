// Handshakes as Node's own TLS makes them: `node client.js ROOTS HOST:PORT…`, one JSON object of port to error code.
"use strict";
const { readFileSync } = require("node:fs");
const tls = require("node:tls");

const [roots, ...targets] = process.argv.slice(2);
const ca = readFileSync(roots);

function handshake(target) {
  const [servername, port] = target.split(":");
  return new Promise((resolve) => {
    const socket = tls.connect({ host: "127.0.0.1", port, servername, ca }, () => {
      socket.destroy();
      resolve([port, ""]);
    });
    socket.on("error", (error) => resolve([port, `${error.code}: ${error.message}`]));
  });
}

(async () => {
  const answers = {};
  for (const target of targets) {
    const [port, words] = await handshake(target);
    answers[port] = words;
  }
  console.log(JSON.stringify(answers));
})();
