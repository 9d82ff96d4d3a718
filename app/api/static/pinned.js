/** Keeps a box that grows scrolled to its end, unless the reader has scrolled away from there. */

const NEAR_PX = 8;

/** @param {HTMLElement} box  @returns {() => void} To be called when it has grown. */
export function pinned(box) {
  let atEnd = true;
  let scheduled = false;
  box.addEventListener("scroll", () => {
    atEnd = box.scrollHeight - box.scrollTop - box.clientHeight <= NEAR_PX;
  });
  return () => {
    if (!atEnd || scheduled) return;
    scheduled = true;
    // Once a frame: to ask for the height after every token would lay the page out for every token.
    requestAnimationFrame(() => {
      scheduled = false;
      box.scrollTop = box.scrollHeight;
    });
  };
}
