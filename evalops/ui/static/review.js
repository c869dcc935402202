// A result with many rows: the page is there at once, and the rows are put in when they have come.
"use strict";

const late = document.getElementById("late");

async function fill() {
  const answer = await fetch(late.dataset.whole);
  if (!answer.ok) throw new Error(answer.statusText);
  const made = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.getElementById("whole").replaceWith(made.getElementById("whole"));
  const script = document.createElement("script");
  script.src = late.dataset.script;
  script.addEventListener("load", () => late.remove());
  document.head.append(script);
}

if (late) {
  fill().catch(() => {
    late.className = "notice bad";
    late.textContent = "✗ The rows could not be read. Load the page again, or download them.";
  });
}
