/** What came over the wire, line by line, and what the client did about it. */

import { Pinned } from "./pinned.js";

const LINES_MAX = 500;
const DATA_CHARACTERS_MAX = 2000;

export class EventLog {
  #list;
  #kept;
  #pinned;
  #lines = 0;
  #began = 0;

  /** @param {HTMLOListElement} list  @param {HTMLElement} kept Says how much of it all is shown. */
  constructor(list, kept) {
    this.#list = list;
    this.#kept = kept;
    this.#pinned = new Pinned(list);
  }

  /** From now on, for another stream. */
  clear() {
    this.#pinned.clear();
    this.#lines = 0;
    this.#began = performance.now();
  }

  /** An event of the stream's. @param {import("./sluice/sse.js").Frame} frame */
  frame({ event, data, id }) {
    // The stream's own part of the id is the same in every line.
    this.#add(event, event, id === null ? "no id" : id.slice(id.indexOf(".") + 1), data);
  }

  /** Something that the client did or met. */
  connection(name, text) {
    this.#add(`connection ${name}`, name, "", text);
  }

  #add(className, name, id, data) {
    const line = document.createElement("li");
    line.className = className;
    const seconds = ((performance.now() - this.#began) / 1000).toFixed(3);
    line.append(cell("time", "", seconds), cell("span", "name", name), cell("span", "id", id));
    line.append(cell("span", "data", data.slice(0, DATA_CHARACTERS_MAX)));
    this.#list.append(line);
    this.#lines += 1;
    if (this.#lines > LINES_MAX) this.#list.firstElementChild.remove();
    this.#kept.textContent = this.#lines > LINES_MAX ? `last ${LINES_MAX} of ${this.#lines}` : `${this.#lines}`;
    this.#pinned.grown();
  }
}

function cell(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
