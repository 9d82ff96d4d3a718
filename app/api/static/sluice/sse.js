/** Server-sent events from bytes, as the standard says. Knows nothing of what they mean. */

import { SluiceError } from "./errors.js";

/**
 * @typedef {object} Frame
 * @property {string} event Its name; `message` where it had none.
 * @property {string} data
 * @property {string|null} id Its own; null where it had none. (The standard's "last event ID" is the caller's to keep.)
 */

/** Feed it bytes as they come. It holds what is incomplete, and a stream's end drops that. */
export class SseDecoder {
  // Takes a BOM away, and keeps half a character for the piece that completes it.
  #utf8 = new TextDecoder();
  #afterCr = false;
  #line = "";
  #event = "";
  #data = [];
  #id = null;
  #heldCharacters = 0;
  #eventCharactersMax;
  /** The last `retry:`, in milliseconds. @type {number|null} */
  retryMs = null;

  /** @param {number} eventCharactersMax Longest event. */
  constructor(eventCharactersMax) {
    this.#eventCharactersMax = eventCharactersMax;
  }

  /**
   * The events that these bytes complete.
   *
   * @param {Uint8Array} bytes
   * @returns {Frame[]}
   * @throws {SluiceError} `event_too_large`
   */
  decode(bytes) {
    const frames = [];
    let text = this.#utf8.decode(bytes, { stream: true });
    if (text === "") return frames;
    // A CR has ended its line when it came: an LF behind it, also in the next piece, is no second line end.
    if (this.#afterCr && text.startsWith("\n")) text = text.slice(1);
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line === "") this.#dispatch(frames);
      else this.#take(line);
    }
    if (this.#heldCharacters + this.#line.length > this.#eventCharactersMax)
      throw new SluiceError("event_too_large", `An event is longer than ${this.#eventCharactersMax} characters.`);
    return frames;
  }

  #take(line) {
    this.#heldCharacters += line.length;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch(frames) {
    if (this.#data.length > 0)
      frames.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id || null });
    this.#event = "";
    this.#data = [];
    this.#id = null;
    this.#heldCharacters = 0;
  }
}
