/**
 * Sluice's client for browsers and Node 20 or newer: reads a stream to its end, over as many connections as that takes.
 * No dependencies and no build: take this folder as it is.
 *
 *     import { generate } from "./sluice/sluice.js";
 *
 *     const stream = generate({ prompt: "Why is the sky blue?" });
 *     for await (const event of stream) {
 *       if (event.type === "token") show(event.data.token);
 *       if (event.type === "reset") clear(); // what was said so far is void; it is said again from the beginning
 *     }
 *
 * The loop ends behind the event `done`, and only there. An answer that failed throws a SluiceError; a connection that
 * just ends is half an answer, and the client goes on behind the last event it got. To leave the loop early closes the
 * connection and lets the server's disconnect policy decide; `cancel()` stops the generation itself.
 *
 * Owns the order of connections and events. It does not keep the text, and never asks for a second answer by itself.
 */

import { Backoff, rest } from "./backoff.js";
import { Connection } from "./connection.js";
import { Lost, SluiceError, refusal } from "./errors.js";
import { SseDecoder } from "./sse.js";

export { SluiceError };

/**
 * Bounds, each of which can be set in the options. `Ms` are milliseconds.
 *
 * @typedef {object} Limits
 * @property {number} backoffMsMin Longest first wait after a lost connection; the server's `retry:` replaces it.
 * @property {number} backoffMsMax Longest wait of all. The longest doubles each time, and any wait up to it is as
 *   likely. A browser that says it is offline is asked after this long, or as soon as it says otherwise.
 * @property {number} triesMax Connections in a row that bring nothing new, before the client gives up. Those that were
 *   lost offline do not count.
 * @property {number} triesTotalMax Connections of one stream, before the client gives up.
 * @property {number} silenceMsMax A connection without a byte for this long is dead: three of the server's heartbeats.
 * @property {number} retryAfterMsMax Longest Retry-After that is waited for; a longer one ends in that error.
 * @property {number} eventCharactersMax Longest single event.
 */
export const DEFAULTS = Object.freeze({
  backoffMsMin: 500,
  backoffMsMax: 15_000,
  triesMax: 10,
  triesTotalMax: 500,
  silenceMsMax: 45_000,
  retryAfterMsMax: 60_000,
  eventCharactersMax: 16 * 1024 * 1024,
});

// What follows `done` is the end of the body; some proxies keep it to themselves.
const FAREWELL_MS_MAX = 1000;

/**
 * @typedef {object} StreamEvent
 * @property {"token"|"done"|"reset"|"notice"|string} type
 * @property {any} data Parsed. `token`: `{type, token, index}`; `done`: `{finish_reason, usage, duration_ms, …}`.
 * @property {string|null} id Null where the server cannot resume behind this event.
 */

/**
 * Where a stream stands with its connections, for `onConnection`.
 *
 * @typedef {object} ConnectionState
 * @property {"connecting"|"open"|"lost"|"offline"} state
 * @property {number} connection Counts from 1; those from 2 on resume.
 * @property {string} [method] `connecting`: POST, or GET for a stream that has an id.
 * @property {string|null} [after] `connecting`: the event id behind which it goes on.
 * @property {string} [reason] `lost`, `offline`: network, truncated, silence, cut, cursor_gone, diverged, what the server
 *   said (drain, max_age, slow_reader …) or the code of its error.
 * @property {number} [delayMs] `lost`, `offline`: until the next try, at the latest.
 */

/**
 * @typedef {Partial<Limits> & Partial<Target>} Options
 * @typedef {Record<string, string>} Headers
 * @typedef {object} Target
 * @property {string} baseUrl Before every path, without a slash at its end; empty for the page's own origin.
 * @property {string} path What to POST to: `/api/v1/generate` or `/api/v1/chat`.
 * @property {Headers | (() => Headers | Promise<Headers>)} headers Sent with every request, such as Authorization; a
 *   function is asked before each, as tokens expire.
 * @property {string} idempotencyKey Names the generation: a POST that is sent again joins it. By default a random one.
 * @property {string} lastEventId Where to begin in a stream that is resumed; by default at its beginning.
 * @property {AbortSignal} signal Ends the loop, which throws the signal's reason.
 * @property {(state: ConnectionState) => void} onConnection Told of every connection, loss and wait.
 * @property {(frame: import("./sse.js").Frame) => void} onFrame Told of every event as it came, repeated ones included.
 * @property {typeof globalThis.fetch} fetch Used instead of the global one; must obey its signal.
 */

/**
 * Generate an answer.
 *
 * @param {object} body As the route takes it: `{prompt, model?, max_tokens?, …}`; `{message, …}` for chat.
 * @param {Options} [options]
 */
export function generate(body, options = {}) {
  return new SluiceStream({ ...options, body });
}

/**
 * Read a stream that exists, from its beginning or from behind `options.lastEventId`. Where that is the stream's end,
 * the loop ends without an event.
 *
 * @param {string} streamId
 * @param {Options} [options]
 */
export function resume(streamId, options = {}) {
  return new SluiceStream({ ...options, streamId });
}

/** One stream. Read it once, by `for await` or by `text()`; nothing is sent before that. */
export class SluiceStream {
  /** Known from the first answer on. @type {string|null} */
  streamId;
  /** Behind which the next connection goes on. @type {string|null} */
  lastEventId;
  /** @type {string} */
  idempotencyKey;
  /** How many were tried. */
  connections = 0;
  #options;
  #limits;
  #backoff;
  #stop = new AbortController();
  #connection = null;
  #events = null;
  #done = false;
  #index = 0;
  // Tokens without an id since the last one with an id, and those of them that this connection has yet to repeat.
  #unlogged = [];
  #repeats = [];

  /** @param {Options & {body?: object, streamId?: string}} options Use `generate` or `resume`. */
  constructor({
    baseUrl = "",
    path = "/api/v1/generate",
    headers = {},
    body = null,
    streamId = null,
    lastEventId = null,
    idempotencyKey = newKey(),
    signal = null,
    onConnection = () => {},
    onFrame = () => {},
    fetch = (...request) => globalThis.fetch(...request),
    ...limits
  }) {
    const unknown = Object.keys(limits).find((name) => !(name in DEFAULTS));
    if (unknown !== undefined) throw new TypeError(`Sluice has no option ${unknown}.`);
    new URL(baseUrl + path, globalThis.location?.href); // throws now what every try would throw again
    Object.assign(this, { streamId, lastEventId, idempotencyKey });
    const ask = typeof headers === "function" ? headers : () => headers;
    this.#options = { baseUrl, path, headers: async () => ({ ...(await ask()) }), body, signal, onConnection, onFrame, fetch };
    this.#limits = { ...DEFAULTS, ...limits };
    this.#backoff = new Backoff(this.#limits);
  }

  /**
   * The stream's events, in order, none twice and none missing.
   *
   * @returns {AsyncGenerator<StreamEvent, void, void>}
   * @throws {SluiceError} The stream ended in an error, was refused, or could not be reached within the limits.
   */
  [Symbol.asyncIterator]() {
    this.#events ??= this.#run();
    return this.#events;
  }

  /**
   * The whole text of the answer.
   *
   * @returns {Promise<string>}
   * @throws {SluiceError} As the iterator does.
   */
  async text() {
    let text = "";
    for await (const { type, data } of this) {
      if (type === "reset") text = "";
      if (type === "token" && data.type === "content") text += data.token;
    }
    return text;
  }

  /**
   * Stop the generation. Whoever reads it gets the SluiceError `cancelled`; a stream that has ended stays as it is.
   * While the stream has no id there is nothing to name: then the connection ends, and the disconnect policy decides.
   *
   * @throws {SluiceError} The server refuses.
   * @throws {TypeError|DOMException} It cannot be reached, or not within `silenceMsMax`.
   */
  async cancel() {
    if (this.streamId === null) {
      this.#stop.abort(new SluiceError("cancelled", "The stream was cancelled before it began."));
      return;
    }
    const { fetch, headers } = this.#options;
    const signal = AbortSignal.timeout(this.#limits.silenceMsMax);
    const response = await fetch(this.#url(), { method: "DELETE", headers: await headers(), signal });
    const connection = new Connection(this.#limits.silenceMsMax, signal);
    if (!response.ok) throw await refusal(response, connection.pieces(response.body));
  }

  /** Drop the connection, as a network does: the client resumes. For tests, and where the network is known to be new. */
  cut() {
    this.#connection?.drop("cut");
  }

  async *#run() {
    const { signal } = this.#options;
    const stop = () => this.#stop.abort(signal.reason);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    try {
      while (!this.#done) yield* this.#try();
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async *#try() {
    try {
      this.#stop.signal.throwIfAborted();
      yield* this.#read();
    } catch (error) {
      if (this.#done) return;
      this.#stop.signal.throwIfAborted();
      if (!(error instanceof Lost)) throw error;
      if (error.startOver) yield this.#startOver(error);
      await this.#pause(error);
    }
  }

  async #pause(lost) {
    // Asked only now: without a network, a server on this machine can still be reached.
    const state = globalThis.navigator?.onLine === false ? "offline" : "lost";
    const delayMs = this.#backoff.next(lost, state === "offline");
    this.#options.onConnection({ state, connection: this.connections, reason: lost.reason, delayMs });
    await rest(delayMs, this.#stop.signal);
  }

  /** One connection's events. Throws unless the stream has ended. */
  async *#read() {
    const connection = new Connection(this.#limits.silenceMsMax, this.#stop.signal);
    this.#connection = connection;
    this.connections += 1;
    this.#repeats = [...this.#unlogged];
    try {
      const response = await connection.hear(this.#request(connection.signal));
      await this.#admit(response, connection);
      const decoder = new SseDecoder(this.#limits.eventCharactersMax);
      for await (const bytes of connection.pieces(response.body)) {
        const frames = decoder.decode(bytes);
        this.#backoff.obey(decoder.retryMs);
        for (const frame of frames) {
          if (this.#done) break;
          this.#stop.signal.throwIfAborted();
          const event = this.#interpret(frame);
          if (event !== null) yield event;
        }
        if (this.#done) connection.silenceMsMax = FAREWELL_MS_MAX;
      }
      if (!this.#done) throw new Lost("truncated");
    } finally {
      this.#connection = null;
      connection.close();
    }
  }

  #url() {
    const { baseUrl, path } = this.#options;
    return baseUrl + (this.streamId === null ? path : `/api/v1/streams/${encodeURIComponent(this.streamId)}`);
  }

  async #request(signal) {
    const { fetch, body, onConnection } = this.#options;
    const method = this.streamId === null ? "POST" : "GET";
    const headers = { ...(await this.#options.headers()), Accept: "text/event-stream" };
    const request = { method, headers, signal, cache: "no-store" };
    if (method === "POST") {
      // A POST that is cut before its headers has begun a stream that nobody can name: the same key joins it.
      headers["Idempotency-Key"] = this.idempotencyKey;
      headers["Content-Type"] = "application/json";
      request.body = JSON.stringify({ ...body, stream: true });
    } else if (this.lastEventId !== null) {
      headers["Last-Event-ID"] = this.lastEventId;
    }
    onConnection({ state: "connecting", connection: this.connections, method, after: this.lastEventId });
    return fetch(this.#url(), request);
  }

  async #admit(response, connection) {
    const { status, headers } = response;
    // An error that names a stream is how that stream ended: to ask again would bring the same.
    const isEnd = !response.ok && headers.has("X-Stream-Id");
    this.streamId ??= headers.get("X-Stream-Id");
    this.#done = status === 204;
    if (this.#done || (status === 200 && headers.get("Content-Type")?.startsWith("text/event-stream"))) {
      this.#options.onConnection({ state: "open", connection: this.connections });
      return;
    }
    const error = await refusal(response, connection.pieces(response.body));
    if (status === 410 && this.lastEventId !== null) throw new Lost(error.code, { startOver: true, cause: error });
    const floorMs = error.retryAfterMs ?? 0;
    if (isEnd || !error.retryable || floorMs > this.#limits.retryAfterMsMax) throw error;
    throw new Lost(error.code, { floorMs, cause: error });
  }

  /** The caller's event, or null where this is none. Throws where the connection or the stream has failed. */
  #interpret(frame) {
    this.#options.onFrame(frame);
    const { event: type, id } = frame;
    const data = parsed(frame);
    if (type === "reconnect") throw new Lost(data.reason, { delayMs: data.retry_ms ?? null });
    if (type === "error") this.#fail(data, id);
    if (type === "reset") this.#forget();
    const repeated = type === "token" && this.#repeated(data, id);
    if (id !== null) {
      this.lastEventId = id;
      this.streamId ??= id.split(".")[0];
    }
    if (repeated) return null;
    if (type !== "notice") this.#backoff.progress();
    this.#done = type === "done";
    return { type, data, id };
  }

  #fail({ code, message, retryable, status = null, retry_after_seconds: seconds = null }, id) {
    // Without an id these two are about the connection: the stream goes on in its log.
    if (id === null && code === "log_unavailable") throw new Lost(code);
    if (id === null && code === "cursor_gone" && this.lastEventId !== null) throw new Lost(code, { startOver: true });
    throw new SluiceError(code, message, { retryable, status, retryAfterMs: seconds === null ? null : seconds * 1000 });
  }

  /**
   * Whether the caller has this token already. Tokens that came without an id, while the server's log was away, come
   * again after a resume. Where they are others now, another producer said them, and the old ones are in no log.
   */
  #repeated(token, id) {
    if (this.#repeats.length > 0) {
      const known = this.#repeats.shift();
      if (known.type !== token.type || known.token !== token.token) throw new Lost("diverged", { startOver: true });
      if (id !== null) this.#unlogged.shift();
      return true;
    }
    if (token.type === "content") {
      if (token.index <= this.#index) return true;
      this.#index = token.index;
    }
    if (id === null) this.#unlogged.push(token);
    else this.#unlogged = [];
    return false;
  }

  #forget() {
    this.#index = 0;
    this.#unlogged = [];
    this.#repeats = [];
  }

  #startOver({ reason }) {
    this.#forget();
    this.lastEventId = null;
    return { type: "reset", data: { reason }, id: null };
  }
}

/** At least 122 random bits. randomUUID is missing where a page came neither by HTTPS nor from this machine. */
function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function parsed({ event, data }) {
  try {
    return JSON.parse(data);
  } catch (cause) {
    throw new SluiceError("invalid_event", `The data of a ${event} event is not JSON.`, { cause });
  }
}
