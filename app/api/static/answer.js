/** The text, as it comes. */

import { Pinned } from "./pinned.js";

export class Answer {
  #box;
  #pinned;
  #run = null;
  #kind = null;

  /** @param {HTMLElement} box */
  constructor(box) {
    this.#box = box;
    this.#pinned = new Pinned(box);
  }

  clear() {
    this.#pinned.clear();
    this.#kind = null;
  }

  /** @param {{type: string, token: string}} token Shown as text: nothing in it is markup. */
  add({ type, token }) {
    if (type !== this.#kind) {
      const span = document.createElement("span");
      span.className = type;
      this.#run = document.createTextNode("");
      span.append(this.#run);
      this.#box.append(span);
      this.#kind = type;
    }
    this.#run.appendData(token);
    this.#pinned.grown();
  }
}
