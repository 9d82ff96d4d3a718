/** Keeps a box that grows scrolled to its end, unless the reader has scrolled away from there. */

const NEAR_PX = 8;

/** @param {HTMLElement} box  @returns {() => void} To be called when it has grown. */
export function pinned(box) {
  let following = true;
  let scheduled = false;
  let seenHeight = 0;
  box.addEventListener("scroll", () => {
    // Against the height that was scrolled to: by the time this is heard, the box may have grown by itself.
    following = box.scrollTop + box.clientHeight >= seenHeight - NEAR_PX;
    box.classList.toggle("following", following);
  });
  return () => {
    if (!following || scheduled) return;
    scheduled = true;
    // Once a frame: to ask for the height after every token would lay the page out for every token.
    requestAnimationFrame(() => {
      scheduled = false;
      seenHeight = box.scrollHeight;
      box.scrollTop = seenHeight;
    });
  };
}
