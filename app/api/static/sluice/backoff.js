/** How long to wait between two connections, and when to give up. */

import { SluiceError } from "./errors.js";

/** One for each stream. */
export class Backoff {
  #limits;
  #baseMs;
  #fruitless = 0;
  #total = 0;
  #progressed = false;

  /** @param {import("./sluice.js").Limits} limits */
  constructor(limits) {
    this.#limits = limits;
    this.#baseMs = limits.backoffMsMin;
  }

  /** The server's `retry:`, if it said one. @param {number|null} retryMs */
  obey(retryMs) {
    if (retryMs !== null) this.#baseMs = Math.min(retryMs, this.#limits.retryAfterMsMax);
  }

  /** This connection brought something new. */
  progress() {
    this.#progressed = true;
  }

  /**
   * Milliseconds until the next connection.
   *
   * @param {import("./errors.js").Lost} lost
   * @param {boolean} offline There is no network, which is not the server's fault.
   * @throws {SluiceError} `gave_up`
   */
  next(lost, offline) {
    const { triesMax, triesTotalMax, backoffMsMax, retryAfterMsMax } = this.#limits;
    if (this.#progressed) this.#fruitless = 0;
    else if (!offline) this.#fruitless += 1;
    this.#progressed = false;
    this.#total += 1;
    if (this.#fruitless >= triesMax) throw gaveUp(`${triesMax} connections in a row brought nothing new`, lost);
    if (this.#total >= triesTotalMax) throw gaveUp(`${triesTotalMax} connections did not bring the end`, lost);
    if (offline) return backoffMsMax;
    // The server has spread its readers already. Where nobody did, as when a worker was killed, full jitter keeps them
    // from coming back all at once.
    if (lost.delayMs !== null && this.#fruitless <= 1) return Math.min(lost.delayMs, retryAfterMsMax);
    const doubledMs = this.#baseMs * 2 ** Math.max(0, this.#fruitless - 1);
    return lost.floorMs + Math.min(doubledMs, Math.max(backoffMsMax, this.#baseMs)) * Math.random();
  }
}

function gaveUp(what, lost) {
  return new SluiceError("gave_up", `${what}; the last was lost by: ${lost.reason}.`, { retryable: true, cause: lost });
}

/** Resolves after `ms`, or once the browser is online again; rejects with the signal's reason. */
export function rest(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", end);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, ms);
    globalThis.addEventListener?.("online", end);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
