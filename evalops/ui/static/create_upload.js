// The upload of a dataset: chosen or dropped, sent as it is, with progress; a file that is there is asked about.

import {Refused, ask, lost, made, prose} from "/static/create_ask.js";

const $ = (id) => document.getElementById(id);
const form = $("upload");
let file = null;
let sending = null;

$("file").addEventListener("change", () => choose($("file").files[0]));
choose($("file").files[0]); // a hand quicker than this script, and a page that was loaded anew
for (const name of ["dragenter", "dragover"]) {
  form.addEventListener(name, (event) => {
    event.preventDefault();
    form.classList.add("is-over");
  });
}
for (const name of ["dragleave", "drop"]) form.addEventListener(name, () => form.classList.remove("is-over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
// A file that misses the field would replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

async function choose(chosen) {
  if (!chosen || sending) return;
  file = chosen;
  fail(null);
  wrong(null);
  $("replace-field").hidden = true;
  $("replace").checked = false;
  $("ready").hidden = false;
  try {
    $("path").value = (await ask(`/create/name?${new URLSearchParams({name: file.name})}`)).path;
  } catch (error) {
    fail(error);
  }
  said(`${file.name}, ${size(file.size)}`);
  $("going").hidden = false;
  $("bar").hidden = true;
  $("path").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!file || sending) return;
  fail(null);
  wrong(null);
  const path = $("path").value.trim();
  const replaces = $("replace").checked && !$("replace-field").hidden;
  try {
    if (!replaces) await ask(`/create/name?${new URLSearchParams({path})}`);
    const answer = await send(path, replaces);
    location.assign(answer.location);
  } catch (error) {
    done();
    if (error.code === "exists") offer(error);
    else if (error.code === "outside" || error.code === "format") wrong(error.message);
    else if (error.message) fail(error);
  }
});

$("cancel").addEventListener("click", () => sending?.abort());
$("path").addEventListener("input", () => {
  $("replace-field").hidden = true;
  wrong(null);
});

function send(path, replaces) {
  const asked = new URLSearchParams(replaces ? {path, replace: "1"} : {path});
  $("send").disabled = true;
  $("cancel").hidden = $("going").hidden = $("bar").hidden = false;
  return new Promise((resolve, reject) => {
    sending = new XMLHttpRequest();
    sending.open("PUT", `/create/dataset?${asked}`);
    sending.setRequestHeader("accept", "application/json");
    sending.responseType = "json";
    sending.upload.addEventListener("progress", (event) => {
      const share = event.total ? (100 * event.loaded) / event.total : 100;
      $("bar").value = share;
      said(share < 100 ? `${size(event.loaded)} of ${size(event.total)} sent` : "All is sent; its rows are being read …");
    });
    sending.addEventListener("load", () => {
      if (sending.status === 201) resolve(sending.response);
      else reject(new Refused(sending.status, sending.response));
    });
    sending.addEventListener("error", () => reject(lost));
    sending.addEventListener("abort", () => {
      said("Cancelled: nothing was kept.");
      reject(new Refused(0, {error: {message: ""}}));
    });
    sending.send(file);
  });
}

function done() {
  if (sending?.readyState === XMLHttpRequest.DONE && sending.status) said("");
  sending = null;
  $("send").disabled = false;
  $("cancel").hidden = $("bar").hidden = true;
}

function offer(error) {
  wrong(`${error.message}: take another name, like ${error.body.free}, or say that it is to be replaced`);
  $("replace-field").hidden = false;
  $("path").focus();
}

function wrong(message) {
  $("path-field").classList.toggle("is-wrong", Boolean(message));
  $("path").setAttribute("aria-invalid", String(Boolean(message)));
  $("path-error").hidden = !message;
  $("path-error").replaceChildren(message ? prose(message) : "");
}

function fail(error) {
  const rows = (error?.body?.diagnostics ?? []).map((each) =>
    made("li", {}, prose(each.message), ` (line ${each.line})`));
  $("failed").hidden = !error;
  $("failed").replaceChildren(...(error ? [made("p", {}, prose(error.message))] : []), ...(rows.length ? [made("ul", {}, ...rows)] : []));
  if (error) $("failed").focus();
}

function said(text) {
  $("said").textContent = text;
}

function size(count) {
  for (const unit of ["bytes", "kB", "MB"]) {
    if (count < 1000) return `${unit === "bytes" ? count : count.toFixed(count < 10 ? 1 : 0)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} GB`;
}
