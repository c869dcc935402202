// Step 2: the form and the YAML in step. The text is the draft; what changes in the form is carried into it by the server.

import {ask, made, prose} from "/static/create_ask.js";
import * as fields from "/static/create_fields.js";
import * as lists from "/static/create_lists.js";

const $ = (id) => document.getElementById(id);
const begun = JSON.parse($("begun").textContent);
const yaml = $("yaml");
const PAUSE = 350; // milliseconds without a key
let changes = {};
let timer = 0;
let asking = null;
let isDirty = false;
let replaces = begun.draft.base;
let pathFollows = begun.isNew;
let problems = [];

// --- what changes ---

function changed(name, pause = 0) {
  changes[name] = fields.value(name);
  touched(pause);
}

function touched(pause) {
  isDirty = true;
  $("state").textContent = "Checking …";
  clearTimeout(timer);
  timer = setTimeout(sync, pause);
}

$("fields").addEventListener("input", (event) => {
  const name = event.target.dataset.field;
  const list = event.target.closest("[data-list]")?.dataset.list;
  if (list) changed(list, PAUSE);
  else if (name === "type") retype();
  else if (name) {
    const isText = ["text", "textarea"].includes(event.target.type);
    if (name.endsWith(".how")) Object.assign(changes, fields.seen(`${name.split(".")[0]}.`));
    fields.reveal();
    if (name === "name") follow(event.target.value);
    changed(name, isText ? PAUSE : 0);
  }
});
$("fields").addEventListener("insert", (event) => {
  const {theirs, variable} = event.detail;
  if (theirs) changes["dataset.columns"] = {...changes["dataset.columns"], [variable]: theirs};
  changed(event.target.dataset.field);
});
for (const each of document.querySelectorAll("[data-add]")) {
  each.addEventListener("click", () => lists.add(each.dataset.add, () => changed(each.dataset.add)));
}
yaml.addEventListener("input", () => touched(PAUSE));
$("form").addEventListener("submit", (event) => event.preventDefault());

// As long as nothing was changed, another type begins with what the columns suggest for it.
function retype() {
  if (!isDirty && Object.keys(begun.asked).length) {
    location.replace(`/create/evaluation?${new URLSearchParams({...begun.asked, type: fields.value("type")})}`);
    return;
  }
  if (fields.value("type") === "score") {
    for (const [name, usual] of [["min_score", "1"], ["max_score", "5"], ["pass_threshold", "4"]]) $(`f-${name}`).value ||= usual;
  }
  fields.reveal();
  Object.assign(changes, fields.seen(""));
  changed("type");
}

function follow(name) {
  if (!pathFollows || !name) return;
  const path = $("f-path");
  path.value = path.value.replace(/[^/]*$/, `${name}.yaml`);
  $("shown-path").textContent = path.value;
}

$("f-path").addEventListener("input", () => {
  pathFollows = false;
  touched(PAUSE);
});

// --- the row that is looked at ---

function move(by) {
  const row = $("row");
  row.value = Math.max(1, (Number.parseInt(row.value, 10) || 1) + by);
  look(0);
}

function look(pause) {
  clearTimeout(timer);
  timer = setTimeout(sync, pause);
}

$("earlier").addEventListener("click", () => move(-1));
$("later").addEventListener("click", () => move(1));
$("row").addEventListener("input", () => look(PAUSE));

// --- in step ---

async function sync(isAnew = false) {
  clearTimeout(timer);
  timer = 0;
  if (asking) {
    await asking;
    return sync(isAnew);
  }
  const again = lists.repeated();
  if (again) delete changes.thresholds;
  const sent = changes;
  const text = yaml.value;
  changes = {};
  const isForm = Object.keys(sent).length > 0;
  const value = {text, path: $("f-path").value.trim(), row: Number.parseInt($("row").value, 10) || 1, changes: isForm ? sent : null};
  asking = ask("/create/draft", isAnew ? {...value, is_anew: true, changes: {...everything(), ...sent}} : value);
  try {
    const answer = await asking;
    asking = null;
    if (yaml.value !== text) {
      changes = {...sent, ...changes}; // somebody typed there meanwhile: once more, with that
      return sync();
    }
    show(answer, {isForm: (isForm && !("dataset.columns" in sent)) || isAnew}); // a column that got a name has it everywhere
    if (again) problems.unshift(bound(again));
    list();
  } catch (error) {
    asking = null;
    changes = {...sent, ...changes};
    $("state").replaceChildren(prose(`Not in step: ${error.message}.`));
  }
}

function everything() {
  return {...fields.seen("judge."), ...fields.seen("dataset."), ...fields.seen(""), ...fields.seen("na"), type: fields.value("type"),
    thresholds: lists.values("thresholds"), gold: fields.value("gold"), group_by: lists.values("group_by")};
}

function bound(metric) {
  return {severity: "error", field: "thresholds", message: `\`${metric}\` has two rows`, hint: "write both bounds in one row", line: null};
}

function show(answer, {isForm}) {
  if (yaml.value !== answer.text) yaml.value = answer.text;
  const isShown = answer.fields !== null;
  if (isShown && !isForm) fields.show(answer.fields, changes, changed);
  if (isShown) fields.know(answer.columns, begun.models);
  if (isShown) fields.keep(answer.kept);
  fields.reveal();
  $("fields").disabled = !isShown;
  $("anew").hidden = isShown;
  $("reason").hidden = isShown;
  $("reason").textContent = answer.reason;
  $("more").hidden = answer.more.length === 0;
  $("more").textContent = `Also in the file: ${answer.more.join(", ")}. The form leaves this as it is.`;
  $("shown-path").textContent = answer.path;
  $("metrics").replaceChildren(...answer.metrics.map((each) => made("option", {value: each})));
  showRow(answer.row);
  problems = answer.problems;
}

function showRow(row) {
  $("row-note").textContent = row.note;
  $("cells").replaceChildren(...row.cells.flatMap(([name, text]) => [made("dt", {}, name), made("dd", {}, text)]));
  for (const area of document.querySelectorAll("pre[id^='r-']")) {
    const found = row.rendered[area.id.slice(2)];
    area.textContent = found ? found.text ?? `It cannot be rendered: ${found.error}` : "Nothing yet.";
  }
}

// --- what is wrong ---

function list() {
  const wrong = problems.filter((each) => each.severity === "error").length;
  fields.mark(problems);
  $("problems").hidden = problems.length === 0;
  $("problem-list").replaceChildren(...problems.map(item));
  const words = `${wrong} error${wrong === 1 ? "" : "s"}`;
  const kept = isDirty || begun.isNew ? " Not saved yet." : "";
  $("state").textContent = (wrong ? `${words} to mend.` : problems.length ? "Valid, with something to know." : "Valid.") + kept;
}

function item(each) {
  const place = each.line && each.is_here ? made("button", {type: "button", className: "button quiet tiny"}, `line ${each.line}`) : null;
  place?.addEventListener("click", () => select(each.line));
  const where = each.line && !each.is_here ? made("code", {}, `${each.path}:${each.line}`) : null;
  const head = made("p", {}, made("strong", {}, each.severity), " ", ...[place, where].filter(Boolean));
  const found = made("li", {className: `notice small ${each.severity === "error" ? "bad" : "warn"}`}, head, made("p", {}, prose(each.message)));
  if (each.hint) found.append(made("p", {}, made("span", {className: "muted"}, "hint: "), prose(each.hint)));
  return found;
}

function select(line) {
  const lines = yaml.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  yaml.focus();
  yaml.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
}

// --- saving ---

$("anew").addEventListener("click", () => sync(true));
$("save").addEventListener("click", async () => {
  $("save").disabled = true;
  try {
    do await sync();
    while (timer || Object.keys(changes).length > (lists.repeated() ? 1 : 0));
    if (!lists.repeated()) await save();
    else fields.focus(fields.mark(problems));
  } finally {
    $("save").disabled = false;
  }
});

async function save() {
  $("state").textContent = "Saving: every row is checked once more …";
  try {
    const answer = await ask("/create/spec", {text: yaml.value, path: $("f-path").value.trim(), replaces});
    isDirty = false;
    location.assign(answer.location);
  } catch (error) {
    if (error.code === "exists") return offer(error);
    problems = error.body?.problems ?? problems;
    list();
    $("state").replaceChildren(prose(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`));
    if (error.code === "invalid" && !fields.focus(fields.mark(problems))) $("problems").focus();
  }
}

function offer(error) {
  $("state").replaceChildren(prose(`Not saved: ${error.message}.`));
  $("replace-text").replaceChildren(prose(`${error.message}. What is in it now would be gone, but for what git has.`));
  $("replace-yes").onclick = () => {
    replaces = error.body.digest;
    $("replace").close();
    save();
  };
  $("replace-no").onclick = () => {
    $("replace").close();
    $("f-path").focus();
  };
  $("replace").showModal();
}

window.addEventListener("beforeunload", (event) => {
  if (isDirty) event.preventDefault();
});

$("f-path").value = begun.draft.path;
yaml.value = begun.draft.text;
show(begun.draft, {isForm: false});
list();
