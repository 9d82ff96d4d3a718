/** An HTTP server that answers each request as the test's script says, and keeps what was asked. */

import { createServer } from "node:http";

export const STREAM_ID = "pYnkZ0gC2rT1uVwX3yZaBcDe";

/** The id of a stream's event. */
export const id = (seq, epoch = 0) => `${STREAM_ID}.${epoch}.${seq}`;

/** One event's text; without an id where `eventId` is null. */
export function event(name, data, eventId = null) {
  return `${eventId === null ? "" : `id: ${eventId}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** The content token of this index, whose id has the same number. */
export const token = (index, text = `t${index} `, eventId = id(index)) =>
  event("token", { type: "content", token: text, index }, eventId);

export const done = (seq) => event("done", { done: true, finish_reason: "stop" }, id(seq));

/** In a stream: the connection breaks here. */
export const CUT = Symbol("cut");
/** In a stream: nothing more comes, and the connection stays. */
export const HANG = Symbol("hang");

/** Answers with a stream, a piece at a time. */
export function stream(...pieces) {
  return async (_request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "X-Stream-Id": STREAM_ID });
    response.flushHeaders();
    for (const piece of pieces) {
      if (piece === CUT) return response.socket.destroy();
      if (piece === HANG) return undefined;
      response.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 2)); // so that the pieces are packets of their own
    }
    return response.end();
  };
}

/** Breaks the connection before any header. */
export const cutBeforeHeaders = (_request, response) => response.socket.destroy();

/** Answers with an error in Sluice's shape. */
export function refuse(status, code, { retryable = false, headers = {} } = {}) {
  return (_request, response) => {
    response.writeHead(status, { "Content-Type": "application/json", "X-Request-ID": "r1", ...headers });
    response.end(JSON.stringify({ error: { code, message: `${code}.`, retryable, request_id: "r1" } }));
  };
}

/** Answers with a status and no body. */
export const empty = (status) => (_request, response) => response.writeHead(status).end();

/**
 * Starts a server for one test. A request beyond the script gets 418, which no client asks for again.
 *
 * @returns {Promise<{url: string, requests: object[], closed: Promise<void>[]}>} `closed`: for each request, resolved
 *   once its connection has ended.
 */
export async function serve(test, ...script) {
  const requests = [];
  const closed = [];
  const server = createServer(async (request, response) => {
    const number = requests.length;
    const { method, url, headers } = request;
    const asked = { method, url, headers, body: null };
    requests.push(asked);
    closed.push(new Promise((resolve) => response.on("close", resolve)));
    let body = "";
    for await (const piece of request) body += piece;
    asked.body = body === "" ? null : JSON.parse(body);
    await (script[number] ?? refuse(418, "unexpected"))(request, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests, closed };
}
