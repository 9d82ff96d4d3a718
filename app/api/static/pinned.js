/** Keeps a box that grows scrolled to its end, unless the reader has scrolled away from there. */

const NEAR_PX = 8;

export class Pinned {
  #box;
  #following = true;
  #scheduled = false;
  #seenHeight = 0;

  /** @param {HTMLElement} box */
  constructor(box) {
    this.#box = box;
    box.addEventListener("scroll", () => {
      // Against the height that was scrolled to: by the time this is heard, the box may have grown by itself.
      this.#follow(box.scrollTop + box.clientHeight >= this.#seenHeight - NEAR_PX);
    });
    this.clear();
  }

  /** Begin anew, with nothing in the box. */
  clear() {
    this.#box.replaceChildren();
    this.#seenHeight = 0;
    this.#follow(true);
  }

  /** Something was added. */
  grown() {
    if (!this.#following || this.#scheduled) return;
    this.#scheduled = true;
    // Once a frame: to ask for the height after every token would lay the page out for every token.
    requestAnimationFrame(() => {
      this.#scheduled = false;
      if (!this.#following) return; // since this was scheduled
      this.#seenHeight = this.#box.scrollHeight;
      this.#box.scrollTop = this.#seenHeight;
    });
  }

  #follow(following) {
    this.#following = following;
    this.#box.classList.toggle("following", following);
  }
}
