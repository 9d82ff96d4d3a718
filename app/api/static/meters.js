/** What a reader of the stream would measure: the time to the first token, the pace, the largest gap. */

const NOTHING = "–";

export class Meters {
  #ttft = document.querySelector("#ttft");
  #count = document.querySelector("#count");
  #rate = document.querySelector("#rate");
  #gap = document.querySelector("#gap");
  #connections = document.querySelector("#connections");
  #state = document.querySelector("#state");
  #stream = document.querySelector("#stream");
  #beganMs = 0;
  #firstMs = null;
  #lastMs = null;
  #gapMs = 0;
  #tokens = 0;

  /** Another stream begins. */
  clear() {
    for (const meter of [this.#ttft, this.#count, this.#rate, this.#gap, this.#connections])
      meter.textContent = NOTHING;
    this.stream(null, "");
    this.#beganMs = performance.now();
    this.void();
  }

  /** What was counted so far is void. */
  void() {
    this.#firstMs = this.#lastMs = null;
    this.#gapMs = this.#tokens = 0;
  }

  /** A token of whatever kind has come. */
  token() {
    const now = performance.now();
    this.#tokens += 1;
    if (this.#firstMs === null) {
      this.#firstMs = now;
      this.#ttft.textContent = milliseconds(now - this.#beganMs);
    } else {
      this.#gapMs = Math.max(this.#gapMs, now - this.#lastMs);
      this.#gap.textContent = milliseconds(this.#gapMs);
      this.#rate.textContent = (((this.#tokens - 1) * 1000) / (now - this.#firstMs)).toFixed(1);
    }
    this.#lastMs = now;
    this.#count.textContent = this.#tokens;
  }

  /** @param {number} count */
  connections(count) {
    this.#connections.textContent = count;
  }

  /** @param {string} text  @param {""|"live"|"good"|"warn"|"bad"} tone */
  state(text, tone = "") {
    // Only what changes: a screen reader says it each time.
    if (this.#state.textContent !== text) this.#state.textContent = text;
    this.#state.dataset.tone = tone;
    this.#state.title = text;
  }

  /** @param {string|null} id  @param {string} status Where its state can be asked for. */
  stream(id, status) {
    this.#stream.textContent = id ?? NOTHING;
    this.#stream.title = id === null ? "" : `${id}: status`;
    if (id === null) this.#stream.removeAttribute("href");
    else this.#stream.href = status;
  }
}

function milliseconds(ms) {
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
