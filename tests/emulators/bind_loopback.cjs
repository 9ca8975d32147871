// Preloaded into kinesis-local (node --require), which can choose neither an address nor a free port.
// Every server binds to a free port of 127.0.0.1; the one meant for plain HTTP prints its address as
// the first line on stdout.
// The process ends when its standard input closes, so it never outlives whoever started it.
"use strict";
const net = require("node:net");

const plain = Number(process.env.KINESIS_MOCK_PLAIN_PORT);
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...given) {
  const [first] = given;
  const asked = typeof first === "object" && first !== null ? first.port : first;
  if (Number(asked) === plain) {
    this.once("listening", () => process.stdout.write(`http://127.0.0.1:${this.address().port}\n`));
  }
  const callback = given.find((argument) => typeof argument === "function");
  return listen.call(this, { port: 0, host: "127.0.0.1" }, callback);
};

// Not process.exit: kinesis-local replaces it by one that waits for idle connections.
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL"));
process.stdin.resume();
