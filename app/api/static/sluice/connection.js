/** One HTTP connection: bounds its silence, and knows why it ended. */

import { Lost } from "./errors.js";

/** Ends by `close`, by the stream's own signal, or by `drop`. */
export class Connection {
  /** How long it may be without a byte. */
  silenceMsMax;
  #abort = new AbortController();
  #stop;
  #stopped = () => this.#abort.abort(this.#stop.reason);
  // What was open before the network went is dead now, and would only be found out by its silence.
  #online = () => this.drop("network");

  /**
   * @param {number} silenceMsMax
   * @param {AbortSignal} stop Ends the stream, and so this.
   */
  constructor(silenceMsMax, stop) {
    this.silenceMsMax = silenceMsMax;
    this.#stop = stop;
    stop.addEventListener("abort", this.#stopped);
    globalThis.addEventListener?.("online", this.#online);
    if (stop.aborted) this.#stopped();
  }

  /** For fetch. */
  get signal() {
    return this.#abort.signal;
  }

  /** End it as lost. @param {string} reason */
  drop(reason) {
    this.#abort.abort(new Lost(reason));
  }

  /** Harmless where it has ended. Otherwise the server is to see that nobody reads any more. */
  close() {
    this.#stop.removeEventListener("abort", this.#stopped);
    globalThis.removeEventListener?.("online", this.#online);
    this.#abort.abort();
  }

  /** What the network owes, within `silenceMsMax`. @throws {Lost} */
  async hear(promise) {
    const timer = setTimeout(() => this.drop("silence"), this.silenceMsMax);
    try {
      return await promise;
    } catch (cause) {
      const { reason } = this.signal;
      throw reason instanceof Lost ? reason : new Lost("network", { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  /** A body, as it comes. By hand: not every browser iterates streams. @param {ReadableStream<Uint8Array>|null} body */
  async *pieces(body) {
    if (body === null) return;
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await this.hear(reader.read());
      if (done) return;
      yield value;
    }
  }
}
