// The list follows its filters as they are chosen; without scripts the button does.
"use strict";

const filter = document.getElementById("filter");
if (filter) {
  for (const select of filter.querySelectorAll("select")) {
    select.addEventListener("change", () => filter.requestSubmit());
  }
}
