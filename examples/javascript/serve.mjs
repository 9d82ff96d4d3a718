#!/usr/bin/env node
// Serves eventsource.html, and passes /api/ on to Sluice, so that the browser sees one origin. For trying things out, on
// 127.0.0.1 only.
//
//     SLUICE_URL=http://127.0.0.1:8080 node serve.mjs        then open what it prints; PAGE_PORT is 8090 if not set

import { readFile } from "node:fs/promises";
import { createServer, request } from "node:http";

const sluice = new URL(process.env.SLUICE_URL ?? "http://127.0.0.1:8080");
const page = await readFile(new URL("eventsource.html", import.meta.url));

function pass(incoming, outgoing) {
  const upstream = request(new URL(incoming.url, sluice), { method: incoming.method, headers: incoming.headers });
  upstream.on("response", (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    // Each piece goes on as it comes. A connection that breaks breaks here too: ended tidily, it would look complete.
    answer.on("error", () => outgoing.destroy()).pipe(outgoing);
  });
  upstream.on("error", () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()));
  // A reader that leaves takes its stream along; Sluice then stops generating.
  outgoing.on("close", () => upstream.destroy());
  incoming.pipe(upstream);
}

const server = createServer((incoming, outgoing) => {
  if (incoming.url.startsWith("/api/")) return pass(incoming, outgoing);
  if (incoming.url.split("?")[0] !== "/") return outgoing.writeHead(404).end();
  outgoing.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(page);
});
server.listen(Number(process.env.PAGE_PORT ?? 8090), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
