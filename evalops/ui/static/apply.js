// An apply as it goes: the server sends its lines as they move. What is another page altogether is loaded anew.
"use strict";

const live = document.getElementById("live");
const lines = document.getElementById("lines");
const lost = document.getElementById("lost");
const AGAIN = 2000; // milliseconds until a server that is gone is asked again
let source = null;
let timer = 0;

/** Puts the parts that differ into the page, so that the others keep what a reader does with them. */
function patch(html) {
  const made = new DOMParser().parseFromString(html, "text/html").body;
  const parts = (root) => [...root.querySelectorAll("[data-live]")];
  const [now, next] = [parts(lines), parts(made)];
  if (now.length !== next.length || now.some((part, place) => part.dataset.live !== next[place].dataset.live)) {
    lines.replaceChildren(...made.childNodes);
    return;
  }
  now.forEach((part, place) => {
    if (part.innerHTML !== next[place].innerHTML) part.replaceChildren(...next[place].childNodes);
  });
}

function connect() {
  window.clearTimeout(timer);
  source = new EventSource(live.dataset.events);
  source.addEventListener("look", (event) => {
    lost.hidden = true;
    const told = JSON.parse(event.data);
    if (told.key !== live.dataset.key) window.location.replace(window.location.pathname + window.location.search);
    else patch(told.html);
  });
  source.addEventListener("error", () => {
    source.close();
    timer = window.setTimeout(connect, AGAIN);
    lost.hidden = false;
  });
}

function leave() {
  window.clearTimeout(timer);
  if (source) source.close();
}

// A page that nobody sees asks nothing: a browser has few connections to one server.
document.addEventListener("visibilitychange", () => (document.hidden ? leave() : connect()));
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
connect();
