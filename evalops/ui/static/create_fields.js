// The fields of the form: their values, which of them are to be seen, and what is wrong with them.

import {made, prose} from "/static/create_ask.js";
import * as lists from "/static/create_lists.js";

const SHORT = 120; // characters of a hint that stands beside its field; below the file each is whole
export const LISTS = ["labels", "thresholds", "group_by"];
const form = document.getElementById("form");
const of = (name) => [...form.querySelectorAll(`[data-field="${CSS.escape(name)}"]`)];
const names = [...new Set([...form.querySelectorAll("[data-field]")].map((each) => each.dataset.field))];
let columns = [];
let models = [];

export function value(name) {
  if (LISTS.includes(name)) return lists.values(name);
  const found = of(name);
  if (found[0].type === "radio") return found.find((each) => each.checked)?.value ?? "";
  return found[0].type === "checkbox" ? found[0].checked : found[0].value;
}

function set(name, given) {
  for (const each of of(name)) {
    if (each.type === "radio") each.checked = each.value === given;
    else if (each.type === "checkbox") each.checked = given;
    else if (each.tagName === "SELECT") pick(each, given);
    else if (each.value !== given) each.value = given;
  }
}

// A value that no option has gets one: it is what the file says.
function pick(select, given) {
  if (![...select.options].some((each) => each.value === given)) {
    const isColumn = "columns" in select.dataset && given;
    select.append(made("option", {value: given}, isColumn ? `${given} (not in the dataset)` : given || "none"));
  }
  select.value = given;
}

// Every field in the parts that begin with a prefix, or that are to be seen for the type of now.
export function seen(prefix) {
  const found = names.filter((each) => (prefix ? each.startsWith(prefix) : of(each)[0].closest("[data-types]:not([hidden])")));
  const listed = prefix ? [] : LISTS.filter((each) => form.querySelector(`[data-types]:not([hidden]) [data-list="${each}"]`));
  return Object.fromEntries([...found, ...listed].map((each) => [each, value(each)]));
}

export function show(fields, but, changed) {
  for (const [name, given] of Object.entries(fields)) {
    if (name in but) continue;
    if (name === "group_by") lists.showGroups(columns, given);
    else if (name === "labels" || name === "thresholds") lists.show(name, given, () => changed(name));
    else if (names.includes(name)) set(name, given);
  }
}

// Fields whose value the form cannot show are left alone.
export function keep(kept) {
  for (const name of [...names, ...LISTS]) {
    const isKept = kept.includes(name) || kept.includes(`${name.split(".")[0]}.how`);
    const controls = LISTS.includes(name) ? form.querySelectorAll(`[data-of="${name}"] :is(input, select, button)`) : of(name);
    for (const each of controls) each.disabled = isKept;
    const note = document.getElementById(`k-${name}`);
    if (note) note.hidden = !isKept;
  }
}

export function reveal() {
  const type = value("type");
  for (const each of form.querySelectorAll("[data-types]")) each.hidden = !each.dataset.types.split(" ").includes(type);
  for (const each of form.querySelectorAll("[data-when]")) {
    const [name, wanted] = each.dataset.when.split("=");
    const isFilled = name.endsWith(".model_source") && [...each.querySelectorAll("input")].some((input) => input.value);
    each.hidden = value(name) !== wanted && !isFilled;
  }
  for (const each of form.querySelectorAll("[data-model-label]")) {
    each.textContent = value(`${each.dataset.modelLabel}.model_source`) === "dedicated" ? "Endpoint id" : "Model";
  }
}

export function know(found, served) {
  if (JSON.stringify(found) === JSON.stringify(columns) && models.length === served.length) return;
  columns = found;
  models = served;
  for (const select of form.querySelectorAll("select[data-columns]")) {
    const now = select.value;
    select.replaceChildren(made("option", {value: ""}, "none"), ...columns.map((each) => made("option", {value: each.name}, each.shown)));
    if (select.dataset.columns === "models" && models.length) {
      const options = models.map((each) => made("option", {value: each}, each));
      select.append(made("optgroup", {label: "Models of evalops.yaml"}, ...options));
    }
    pick(select, now);
  }
  lists.showGroups(columns, lists.values("group_by"));
  for (const group of form.querySelectorAll("[data-insert]")) group.replaceChildren(...columns.map((each) => inserter(each, group.dataset.insert)));
}

function inserter(column, name) {
  const found = made("button", {type: "button", className: "button tiny", disabled: !column.variable}, column.shown);
  found.title = column.theirs ? `It is called ${column.variable} in templates` : "";
  found.addEventListener("click", () => {
    const area = of(name)[0];
    area.setRangeText(`{{ ${column.variable} }}`, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new CustomEvent("insert", {bubbles: true, detail: column}));
    area.focus();
  });
  return found;
}

// Marks fields with the first error each has; returns the first of them in the order of the page.
export function mark(problems) {
  const wrong = new Map();
  for (const each of problems) if (each.field && each.severity === "error" && !wrong.has(each.field)) wrong.set(each.field, each);
  for (const box of form.querySelectorAll("[data-of]")) {
    const problem = wrong.get(box.dataset.of);
    const place = document.getElementById(`e-${box.dataset.of}`);
    box.classList.toggle("is-wrong", Boolean(problem));
    for (const each of box.querySelectorAll("input, select, textarea")) {
      if (problem) each.setAttribute("aria-invalid", "true");
      else each.removeAttribute("aria-invalid");
    }
    place.hidden = !problem;
    place.replaceChildren(problem ? prose(problem.message + (problem.hint && problem.hint.length <= SHORT ? ` (${problem.hint})` : "")) : "");
  }
  return [...form.querySelectorAll("[data-of]")].find((each) => wrong.has(each.dataset.of) && each.offsetParent) ?? null;
}

export function focus(box) {
  const found = box?.querySelector("input:not(:disabled):checked, input:not(:disabled), select:not(:disabled), textarea:not(:disabled), [data-add]");
  if (!found) return false;
  for (let each = found.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
  found.focus();
  return true;
}
