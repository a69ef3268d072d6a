// While a run is followed, fetch the page again every few seconds and put its new parts in their places.
"use strict";
const PAUSE = 5000;

async function look() {
  if (!document.querySelector("[data-follow]")) return;
  try {
    if (!document.hidden) {
      const answer = await fetch(location.pathname, { credentials: "same-origin" });
      if (answer.ok && !answer.redirected) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const name = CSS.escape(part.dataset.live);
          const other = fresh.querySelector(`[data-live="${name}"]`);
          // a form that somebody is filling in stays as it is
          if (!other || part.contains(document.activeElement) || part.isEqualNode(other)) continue;
          part.replaceChildren(...other.childNodes);
          part.toggleAttribute("data-follow", other.hasAttribute("data-follow"));
        }
        if (!document.querySelector("[data-follow]")) location.replace(location.pathname);
      }
    }
  } catch (error) {
    // the server is away for a moment: the next look tells
  }
  setTimeout(look, PAUSE);
}

setTimeout(look, PAUSE);
