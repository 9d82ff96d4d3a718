import assert from "node:assert/strict";
import test from "node:test";

import { DEFAULTS, generate, resume } from "../../../app/api/static/sluice/sluice.js";
import {
  CUT,
  HANG,
  STREAM_ID,
  cutBeforeHeaders,
  done,
  empty,
  event,
  id,
  refuse,
  serve,
  stream,
  token,
} from "./server.mjs";

// Only one test looks at the waits; the others need not wait.
const FAST = { backoffMsMin: 1, backoffMsMax: 4 };
const PROMPT = { prompt: "x" };
// A timer counts whole milliseconds, and the clock beside it does not.
const TIMER_MS_MAX = 2;

/** A client of the server that the script makes. */
async function client(t, script, options = {}, open = (all) => generate(PROMPT, all)) {
  const server = await serve(t, ...script);
  const states = [];
  const onConnection = (state) => states.push(state);
  const made = open({ baseUrl: server.url, onConnection, ...FAST, ...options });
  const lost = () => states.filter(({ state }) => state === "lost").map(({ reason }) => reason);
  return { server, stream: made, states, lost };
}

/** Names of the events, or text of the tokens, that the caller gets. */
async function read(events) {
  const seen = [];
  for await (const { type, data } of events) seen.push(type === "token" ? data.token : type);
  return seen;
}

test("a stream is read to its end", async (t) => {
  const { stream: made, server, states } = await client(t, [stream(token(1), token(2), done(3))]);
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "done"]);
  assert.deepEqual(server.requests[0].body, { prompt: "x", stream: true });
  assert.equal(server.requests[0].headers["idempotency-key"], made.idempotencyKey);
  assert.match(made.idempotencyKey, /^[0-9a-f-]{36}$/);
  assert.equal(made.streamId, STREAM_ID);
  assert.equal(made.lastEventId, id(3));
  assert.deepEqual(
    states.map(({ state }) => state),
    ["connecting", "open"],
  );
});

test("pieces of single bytes, CRLF and heartbeats give the same text", async (t) => {
  const text = `${token(1, "ü水🌊 ")}: ping\n\n${token(2)}${done(3)}`.replaceAll("\n", "\r\n");
  const pieces = [...Buffer.from(text)].map((byte) => Uint8Array.of(byte));
  const { stream: made } = await client(t, [stream(...pieces)]);
  assert.equal(await made.text(), "ü水🌊 t2 ");
});

test("a connection that breaks is resumed behind the last event", async (t) => {
  const { stream: made, server, lost } = await client(t, [
    stream(token(1), token(2), CUT),
    stream(token(3), CUT),
    stream(done(4)),
  ]);
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "t3 ", "done"]);
  assert.deepEqual(
    server.requests.map(({ method, url, headers }) => [method, url, headers["last-event-id"]]),
    [
      ["POST", "/api/v1/generate", undefined],
      ["GET", `/api/v1/streams/${STREAM_ID}`, id(2)],
      ["GET", `/api/v1/streams/${STREAM_ID}`, id(3)],
    ],
  );
  assert.deepEqual(lost(), ["network", "network"]);
});

test("an event that was cut in the middle counts as not received", async (t) => {
  const half = token(2).slice(0, -1); // all but the line end that completes it
  const { stream: made, server } = await client(t, [stream(token(1) + half, CUT), stream(token(2), done(3))]);
  assert.equal(await made.text(), "t1 t2 ");
  assert.equal(server.requests[1].headers["last-event-id"], id(1));
});

test("a body that ends without done is incomplete, and resumed", async (t) => {
  const { stream: made, lost } = await client(t, [stream(token(1)), stream(token(2), done(3))]);
  assert.equal(await made.text(), "t1 t2 ");
  assert.deepEqual(lost(), ["truncated"]);
});

test("a stream cut between its headers and its first event is read from its beginning", async (t) => {
  const { stream: made, server } = await client(t, [stream(": ping\n\n", CUT), stream(token(1), done(2))]);
  assert.equal(await made.text(), "t1 ");
  assert.equal(server.requests[1].url, `/api/v1/streams/${STREAM_ID}`);
  assert.equal(server.requests[1].headers["last-event-id"], undefined);
});

test("a POST that is cut before its headers is sent again under the same key", async (t) => {
  const { stream: made, server } = await client(t, [cutBeforeHeaders, stream(token(1), done(2))]);
  assert.equal(await made.text(), "t1 ");
  const [first, second] = server.requests;
  assert.deepEqual([first.method, second.method], ["POST", "POST"]);
  assert.equal(first.headers["idempotency-key"], second.headers["idempotency-key"]);
  assert.deepEqual(first.body, second.body);
});

test("the server's reconnect is obeyed: its wait, not the client's own", async (t) => {
  t.mock.method(Math, "random", () => 0.75);
  const farewell = `retry: 321\n${event("reconnect", { reason: "drain", retry_ms: 321 })}`;
  const { stream: made, states } = await client(t, [stream(token(1), farewell), stream(token(2), CUT), stream(done(3))]);
  assert.equal(await made.text(), "t1 t2 ");
  const [drained, cut] = states.filter(({ state }) => state === "lost");
  assert.deepEqual([drained.reason, drained.delayMs], ["drain", 321]);
  // From then on, `retry:` bounds the client's own first wait.
  assert.equal(cut.reason, "network");
  assert.equal(cut.delayMs, 321 * 0.75);
});

test("204 says that there is nothing more", async (t) => {
  const { stream: made } = await client(t, [empty(204)], { lastEventId: id(3) }, (all) => resume(STREAM_ID, all));
  assert.deepEqual(await read(made), []);
});

test("a stream that exists is resumed from where the caller says", async (t) => {
  const { stream: made, server } = await client(t, [stream(token(3), done(4))], { lastEventId: id(2) }, (all) =>
    resume(STREAM_ID, all),
  );
  assert.equal(await made.text(), "t3 ");
  assert.equal(server.requests[0].headers["last-event-id"], id(2));
});

test("410 voids the text, and the stream is read from its beginning", async (t) => {
  const { stream: made, server } = await client(t, [
    stream(token(1), token(2), CUT),
    refuse(410, "cursor_gone"),
    stream(token(1), token(2), token(3), done(4)),
  ]);
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "reset", "t1 ", "t2 ", "t3 ", "done"]);
  assert.equal(server.requests[2].headers["last-event-id"], undefined);
});

test("410 for the beginning itself is the end", async (t) => {
  const { stream: made, server } = await client(t, [
    stream(token(1), CUT),
    refuse(410, "cursor_gone"),
    refuse(410, "cursor_gone"),
  ]);
  await assert.rejects(read(made), { code: "cursor_gone", status: 410, requestId: "r1" });
  assert.equal(server.requests.length, 3);
});

test("a reset voids the text, and the tokens behind it count from 1 again", async (t) => {
  const reset = event("reset", { reason: "diverged" }, id(0, 1));
  const again = token(1, "new ", id(1, 1));
  const { stream: made, server } = await client(t, [
    stream(token(1), token(2), reset, again, CUT),
    stream(token(2, "text ", id(2, 1)), event("done", {}, id(3, 1))),
  ]);
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "reset", "new ", "text ", "done"]);
  assert.equal(server.requests[1].headers["last-event-id"], id(1, 1));
});

test("text() leaves out what a reset voids", async (t) => {
  const reset = event("reset", { reason: "diverged" }, id(0, 1));
  const { stream: made } = await client(t, [stream(token(1), reset, token(1, "new ", id(1, 1)), done(2))]);
  assert.equal(await made.text(), "new ");
});

test("404 is the end, and is not asked for again", async (t) => {
  const { stream: made, server } = await client(t, [stream(token(1), CUT), refuse(404, "not_found")]);
  await assert.rejects(read(made), { name: "SluiceError", code: "not_found", status: 404, retryable: false });
  assert.equal(server.requests.length, 2);
});

for (const [status, code] of [
  [400, "invalid_request"],
  [404, "model_not_found"],
  [422, "idempotency_mismatch"],
  [500, "internal_error"],
]) {
  test(`${status} ${code} is not asked for again`, async (t) => {
    const { stream: made, server } = await client(t, [refuse(status, code)]);
    await assert.rejects(read(made), { code, status });
    assert.equal(server.requests.length, 1);
  });
}

test("503 is tried again, not before Retry-After", async (t) => {
  const later = refuse(503, "draining", { retryable: true, headers: { "Retry-After": "1" } });
  const { stream: made, states } = await client(t, [later, stream(token(1), done(2))]);
  assert.equal(await made.text(), "t1 ");
  const { reason, delayMs } = states.find(({ state }) => state === "lost");
  assert.equal(reason, "draining");
  assert.ok(delayMs > 1000 && delayMs < 1010, `${delayMs} ms`);
});

test("a Retry-After beyond the bound is the caller's to wait for", async (t) => {
  const later = refuse(503, "unavailable", { retryable: true, headers: { "Retry-After": "3600" } });
  const { stream: made, server } = await client(t, [later]);
  await assert.rejects(read(made), { code: "unavailable", retryable: true, retryAfterMs: 3_600_000 });
  assert.equal(server.requests.length, 1);
});

test("Retry-After may be a date", async (t) => {
  const headers = { "Retry-After": new Date(Date.now() + 7_200_000).toUTCString() };
  const { stream: made } = await client(t, [refuse(503, "unavailable", { retryable: true, headers })]);
  await assert.rejects(read(made), ({ retryAfterMs }) => retryAfterMs > 7_100_000 && retryAfterMs <= 7_200_000);
});

test("an error that names a stream is how that stream ended", async (t) => {
  const failed = refuse(504, "upstream_stalled", { retryable: true, headers: { "X-Stream-Id": STREAM_ID } });
  const { stream: made, server } = await client(t, [failed]);
  await assert.rejects(read(made), { code: "upstream_stalled", status: 504, retryable: true });
  assert.equal(server.requests.length, 1);
});

test("a page instead of a stream is no answer, whatever its status", async (t) => {
  const page = (status) => (_request, response) =>
    response.writeHead(status, { "Content-Type": "text/html" }).end("<h1>Log in</h1>");
  const { stream: made, lost } = await client(t, [page(200), page(502), stream(token(1), done(2))]);
  assert.equal(await made.text(), "t1 ");
  assert.deepEqual(lost(), ["http_error", "http_error"]);
});

test("an error event ends the stream with what it says", async (t) => {
  const failed = event("error", { code: "upstream_stalled", message: "No token.", retryable: true }, id(2));
  const { stream: made, server } = await client(t, [stream(token(1), failed)]);
  await assert.rejects(read(made), { code: "upstream_stalled", message: "No token.", retryable: true, status: null });
  assert.equal(server.requests.length, 1);
});

test("an error event's status and wait are told", async (t) => {
  const said = { code: "upstream_rejected", message: "Later.", retryable: true, status: 429, retry_after_seconds: 7 };
  const { stream: made } = await client(t, [stream(token(1), event("error", said, id(2)))]);
  await assert.rejects(read(made), { code: "upstream_rejected", status: 429, retryAfterMs: 7000 });
});

test("an error without an id that is the connection's alone is resumed", async (t) => {
  const away = event("error", { code: "log_unavailable", message: "Away.", retryable: true });
  const { stream: made, lost } = await client(t, [stream(token(1), away), stream(token(2), done(3))]);
  assert.equal(await made.text(), "t1 t2 ");
  assert.deepEqual(lost(), ["log_unavailable"]);
});

test("a cursor that is gone in mid-stream voids the text too", async (t) => {
  const gone = event("error", { code: "cursor_gone", message: "Gone.", retryable: false });
  const { stream: made } = await client(t, [stream(token(1), gone), stream(token(1), token(2), done(3))]);
  assert.deepEqual(await read(made), ["t1 ", "reset", "t1 ", "t2 ", "done"]);
});

const AWAY = event("notice", { resumable: false });
const thought = (text, eventId = null) => event("token", { type: "thought", token: text, index: 0 }, eventId);

test("tokens that came without ids are not shown twice", async (t) => {
  const { stream: made, server } = await client(t, [
    stream(token(1), AWAY, thought("hm "), token(2, "b ", null), thought("hm "), token(3, "c ", null), CUT),
    // The log is back: the same again, with ids; once more it is cut, half-way through the repetition.
    stream(thought("hm ", id(2)), token(2, "b ", id(3)), CUT),
    stream(thought("hm ", id(4)), token(3, "c ", id(5)), thought("hm ", id(6)), token(4, "d ", id(7)), done(8)),
  ]);
  assert.deepEqual(await read(made), ["t1 ", "notice", "hm ", "b ", "hm ", "c ", "hm ", "d ", "done"]);
  assert.deepEqual(
    server.requests.slice(1).map(({ headers }) => headers["last-event-id"]),
    [id(1), id(3)],
  );
});

test("a content token whose index was seen is not shown again", async (t) => {
  const { stream: made } = await client(t, [stream(token(1), token(2), token(2), token(1), token(3), done(4))]);
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "t3 ", "done"]);
});

test("tokens without ids that another producer says otherwise void the text", async (t) => {
  const { stream: made, server } = await client(t, [
    stream(token(1), AWAY, token(2, "lost ", null), CUT),
    stream(token(2, "kept "), token(3)),
    stream(token(1), token(2, "kept "), token(3), done(4)),
  ]);
  assert.deepEqual(await read(made), ["t1 ", "notice", "lost ", "reset", "t1 ", "kept ", "t3 ", "done"]);
  assert.equal(server.requests[2].headers["last-event-id"], undefined);
});

test("a silent connection is taken for dead and replaced", async (t) => {
  const { stream: made, server, lost } = await client(t, [stream(token(1), HANG), stream(token(2), done(3))], {
    silenceMsMax: 200,
  });
  assert.equal(await made.text(), "t1 t2 ");
  assert.deepEqual(lost(), ["silence"]);
  await server.closed[0];
});

test("headers that do not come are silence too", async (t) => {
  const { stream: made, lost } = await client(t, [() => {}, stream(token(1), done(2))], { silenceMsMax: 200 });
  assert.equal(await made.text(), "t1 ");
  assert.deepEqual(lost(), ["silence"]);
});

test("a body that stays open behind done does not hold the caller for long", async (t) => {
  const { stream: made } = await client(t, [stream(token(1), done(2), HANG)]);
  const began = performance.now();
  assert.equal(await made.text(), "t1 ");
  assert.ok(performance.now() - began < 5000);
});

/** Gives Node the two things that tell a page of its network. */
function browserNetwork(t) {
  const events = new EventTarget();
  const network = { onLine: true };
  const had = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: network, configurable: true });
  globalThis.addEventListener = events.addEventListener.bind(events);
  globalThis.removeEventListener = events.removeEventListener.bind(events);
  t.after(() => {
    delete globalThis.navigator;
    if (had) Object.defineProperty(globalThis, "navigator", had);
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  return {
    leave: () => (network.onLine = false),
    comeBack: () => {
      network.onLine = true;
      events.dispatchEvent(new Event("online"));
    },
  };
}

test("offline, the next connection waits for the online event", async (t) => {
  const network = browserNetwork(t);
  const { stream: made, server, states } = await client(t, [stream(token(1), CUT), stream(token(2), done(3))], {
    onFrame: () => server.requests.length === 1 && network.leave(),
    backoffMsMax: 60_000,
  });
  setTimeout(() => {
    assert.equal(server.requests.length, 1);
    network.comeBack();
  }, 300);
  assert.equal(await made.text(), "t1 t2 ");
  assert.deepEqual(
    states.map(({ state }) => state),
    ["connecting", "open", "offline", "connecting", "open"],
  );
});

test("connections that are lost offline burn no tries, but the bound on all of them holds", async (t) => {
  browserNetwork(t).leave();
  const limits = { backoffMsMax: 1, triesMax: 2, triesTotalMax: 6 };
  const { stream: made, server } = await client(t, Array(20).fill(cutBeforeHeaders), limits);
  await assert.rejects(read(made), { code: "gave_up" });
  assert.equal(server.requests.length, 6);
});

test("a server that is reached without a network is read all the same", async (t) => {
  browserNetwork(t).leave();
  const { stream: made } = await client(t, [stream(token(1), done(2))]);
  assert.equal(await made.text(), "t1 ");
});

test("a connection from before the network came back is replaced at once", async (t) => {
  const network = browserNetwork(t);
  const { stream: made, lost } = await client(t, [stream(token(1), HANG), stream(token(2), done(3))]);
  setTimeout(network.comeBack, 100);
  assert.equal(await made.text(), "t1 t2 ");
  assert.deepEqual(lost(), ["network"]);
});

test("a signal ends the loop with its reason and the connection with it", async (t) => {
  const abort = new AbortController();
  const { stream: made, server } = await client(t, [stream(token(1), HANG)], { signal: abort.signal });
  const reason = new Error("enough");
  await assert.rejects(async () => {
    for await (const { type } of made) if (type === "token") setTimeout(() => abort.abort(reason), 10);
  }, reason);
  await server.closed[0];
  assert.equal(server.requests.length, 1);
});

test("a signal ends the wait between two connections too", async (t) => {
  const abort = new AbortController();
  const onConnection = ({ state }) => state === "lost" && setTimeout(() => abort.abort(), 20);
  const { stream: made } = await client(t, [cutBeforeHeaders], {
    signal: abort.signal,
    onConnection,
    backoffMsMin: 60_000,
    backoffMsMax: 60_000,
  });
  await assert.rejects(read(made), { name: "AbortError" });
});

test("nothing is sent under a signal that has fired", async (t) => {
  const { stream: made, server } = await client(t, [], { signal: AbortSignal.abort() });
  await assert.rejects(read(made), { name: "AbortError" });
  assert.equal(server.requests.length, 0);
});

test("to leave the loop closes the connection", async (t) => {
  const { stream: made, server } = await client(t, [stream(token(1), HANG)]);
  for await (const { type } of made) if (type === "token") break;
  await server.closed[0];
  assert.equal(server.requests.length, 1);
});

test("cancel asks the server to stop, and the stream ends as cancelled", async (t) => {
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  const { stream: made, server } = await client(t, [
    async (_request, response) => {
      await stream(token(1), HANG)(_request, response);
      await told;
      response.end(event("error", { code: "cancelled", message: "Cancelled.", retryable: false }, id(2)));
    },
    (_request, response) => {
      response.writeHead(204).end();
      tell();
    },
  ]);
  await assert.rejects(
    async () => {
      for await (const { type } of made) if (type === "token") await made.cancel();
    },
    { code: "cancelled" },
  );
  assert.deepEqual([server.requests[1].method, server.requests[1].url], ["DELETE", `/api/v1/streams/${STREAM_ID}`]);
});

test("cancel before there is a stream ends the connection", async (t) => {
  const { stream: made, server } = await client(t, [() => {}]);
  setTimeout(() => made.cancel(), 50);
  await assert.rejects(read(made), { code: "cancelled" });
  await server.closed[0];
  assert.equal(server.requests.length, 1);
});

test("cancel says what the server answered, if that was no", async (t) => {
  const { stream: made } = await client(t, [refuse(404, "not_found")], {}, (all) => resume(STREAM_ID, all));
  await assert.rejects(made.cancel(), { code: "not_found", status: 404 });
});

test("a connection that the caller cuts is resumed", async (t) => {
  const { stream: made, lost } = await client(t, [stream(token(1), HANG), stream(token(2), done(3))]);
  const seen = [];
  for await (const { type, data } of made) {
    seen.push(type === "token" ? data.token : type);
    if (seen.length === 1) setTimeout(() => made.cut(), 10);
  }
  assert.deepEqual(seen, ["t1 ", "t2 ", "done"]);
  assert.deepEqual(lost(), ["cut"]);
});

test("it gives up after so many connections in a row that bring nothing new", async (t) => {
  const script = [stream(token(1), CUT), ...Array(20).fill(stream(token(1), CUT))];
  const { stream: made, server } = await client(t, script, { triesMax: 3 });
  await assert.rejects(read(made), { code: "gave_up", retryable: true });
  assert.equal(server.requests.length, 4);
});

test("what is new starts that count again, but not the count of all", async (t) => {
  const script = Array.from({ length: 20 }, (_, index) => stream(token(index + 1), CUT));
  const { stream: made, server } = await client(t, script, { triesMax: 2, triesTotalMax: 7 });
  await assert.rejects(read(made), { code: "gave_up" });
  assert.equal(server.requests.length, 7);
});

test("longest waits double up to their bound, and each wait is chance", async (t) => {
  const { stream: made, states } = await client(t, Array(8).fill(cutBeforeHeaders), {
    backoffMsMin: 16,
    backoffMsMax: 64,
    triesMax: 7,
  });
  await assert.rejects(read(made), { code: "gave_up" });
  const waits = states.filter(({ state }) => state === "lost").map(({ delayMs }) => delayMs);
  const bounds = [16, 32, 64, 64, 64, 64];
  assert.equal(waits.length, bounds.length);
  for (const [index, boundMs] of bounds.entries())
    assert.ok(waits[index] >= 0 && waits[index] <= boundMs, `${waits}`);
  assert.equal(new Set(waits.slice(2)).size, 4);
});

test("a hundred clients that were cut at one moment come back over the whole of the first wait", async (t) => {
  const clients = 100;
  const open = [];
  const waits = [];
  const first = async (request, response) => {
    await stream(token(1), HANG)(request, response);
    open.push(response);
    if (open.length < clients) return;
    for (const each of open) each.socket.destroy();
  };
  const server = await serve(t, ...Array(clients).fill(first), ...Array(clients).fill(stream(done(2))));
  // What each chose to wait, and did: how late it arrives is a matter of the machine too.
  const watch = () => {
    let lostAt, delayMs;
    return (told) => {
      if (told.state === "lost") [lostAt, delayMs] = [performance.now(), told.delayMs];
      if (told.state === "connecting" && told.connection === 2) waits.push([delayMs, performance.now() - lostAt]);
    };
  };
  const come = () => read(generate(PROMPT, { baseUrl: server.url, onConnection: watch() }));
  await Promise.all(Array.from({ length: clients }, come));
  assert.equal(server.requests.length, 2 * clients);
  assert.equal(waits.length, clients);
  const windowMs = DEFAULTS.backoffMsMin;
  const quarters = [0, 0, 0, 0];
  for (const [delayMs, tookMs] of waits) {
    assert.ok(delayMs >= 0 && delayMs <= windowMs, `${delayMs}`);
    assert.ok(tookMs > delayMs - TIMER_MS_MAX, `${tookMs} ms of ${delayMs}`);
    quarters[Math.min(3, Math.floor((4 * delayMs) / windowMs))] += 1;
  }
  // 25 of a hundred in each quarter, give or take four deviations.
  for (const count of quarters) assert.ok(count >= 8 && count <= 43, `${quarters}`);
});

test("it says where it stands with its connections", async (t) => {
  const { stream: made, states } = await client(t, [stream(token(1), CUT), stream(done(2))]);
  await read(made);
  assert.deepEqual(
    states.map(({ delayMs, ...state }) => state),
    [
      { state: "connecting", connection: 1, method: "POST", after: null },
      { state: "open", connection: 1 },
      { state: "lost", connection: 1, reason: "network" },
      { state: "connecting", connection: 2, method: "GET", after: id(1) },
      { state: "open", connection: 2 },
    ],
  );
});

test("frames are told as they came, repeated ones and connection's own included", async (t) => {
  const frames = [];
  const farewell = event("reconnect", { reason: "max_age", retry_ms: 1 });
  const { stream: made } = await client(t, [stream(token(1), token(1), farewell), stream(done(2))], {
    onFrame: (frame) => frames.push([frame.event, frame.id]),
  });
  await read(made);
  assert.deepEqual(frames, [
    ["token", id(1)],
    ["token", id(1)],
    ["reconnect", null],
    ["done", id(2)],
  ]);
});

test("path, headers and key are the caller's to set", async (t) => {
  const { stream: made, server } = await client(
    t,
    [stream(token(1), CUT), stream(done(2))],
    { path: "/api/v1/chat", headers: { Authorization: "Bearer k" }, idempotencyKey: "mine" },
    (all) => generate({ message: "x" }, all),
  );
  await read(made);
  assert.equal(server.requests[0].url, "/api/v1/chat");
  assert.equal(server.requests[0].headers["idempotency-key"], "mine");
  assert.deepEqual(
    server.requests.map(({ headers }) => headers.authorization),
    ["Bearer k", "Bearer k"],
  );
});

test("a token that expired is replaced before the client comes back", async (t) => {
  let asked = 0;
  const headers = async () => ({ Authorization: `Bearer ${++asked}` });
  const goodbye = event("reconnect", { reason: "reauthenticate", retry_ms: 1 });
  const script = [stream(token(1), goodbye), stream(token(2), done(3))];
  const { stream: made, server } = await client(t, script, { headers });
  assert.deepEqual(await read(made), ["t1 ", "t2 ", "done"]);
  assert.deepEqual(
    server.requests.map(({ headers: sent }) => sent.authorization),
    ["Bearer 1", "Bearer 2"],
  );
});

test("data that is not JSON is an error, not a loop", async (t) => {
  const { stream: made, server } = await client(t, [stream("event: token\ndata: {\n\n")]);
  await assert.rejects(read(made), { code: "invalid_event" });
  assert.equal(server.requests.length, 1);
});

test("mistakes in the options are said at once", () => {
  assert.throws(() => generate(PROMPT, { baseUrl: "http://127.0.0.1", backofMsMin: 1 }), /no option backofMsMin/);
  assert.throws(() => generate(PROMPT), /Invalid URL/); // Node has no page whose origin could be meant
});
