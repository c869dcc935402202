// The lists of the form: labels with pass or fail, thresholds, columns to group by.

import {made} from "/static/create_ask.js";

const ENDS = [["estimate", "estimate"], ["lower", "lower bound"], ["upper", "upper bound"]];

function list(name) {
  return document.querySelector(`[data-list="${name}"]`);
}

function button(text, about, action) {
  const found = made("button", {type: "button", className: "button tiny"}, made("span", {ariaHidden: "true"}, text));
  found.append(made("span", {className: "visually-hidden"}, about));
  found.addEventListener("click", action);
  return found;
}

function field(label, control) {
  const found = made("label", {className: "field small"}, made("span", {}, label), control);
  return found;
}

function label(value, changed) {
  const text = made("input", {value: value.text, spellcheck: false, name: "text", ariaLabel: "Label"});
  text.setAttribute("aria-describedby", "e-labels");
  const passes = made("input", {type: "checkbox", checked: value.passes, name: "passes"});
  const row = made("div", {className: "entry"}, text, made("label", {className: "check"}, passes, " passes"));
  row.append(button("✕", "Remove this label", () => removed(row, changed)));
  return row;
}

function threshold(value, changed) {
  const metric = made("input", {value: value.metric, name: "metric", spellcheck: false});
  metric.setAttribute("list", "metrics");
  const [min, max] = ["min", "max"].map((name) => made("input", {value: value[name], name, inputMode: "decimal"}));
  const on = made("select", {name: "on"}, ...ENDS.map(([each, text]) => made("option", {value: each}, text)));
  on.value = value.on;
  for (const each of [metric, min, max, on]) each.setAttribute("aria-describedby", "e-thresholds");
  const row = made("div", {className: "entry is-bound"}, field("Metric", metric), field("At least", min), field("At most", max));
  row.append(field("Of the", on), button("✕", "Remove this threshold", () => removed(row, changed)));
  return row;
}

function removed(row, changed) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  const add = row.closest(".field").querySelector("[data-add]");
  row.remove();
  (next?.querySelector("input") ?? add).focus();
  changed();
}

export const EMPTY = {
  labels: {text: "", passes: false},
  thresholds: {metric: "", min: "", max: "", on: "estimate"},
};
const ROWS = {labels: label, thresholds: threshold};

export function show(name, values, changed) {
  list(name).replaceChildren(...values.map((each) => ROWS[name](each, changed)));
}

export function add(name, changed) {
  const row = ROWS[name]({...EMPTY[name]}, changed);
  list(name).append(row);
  row.querySelector("input").focus();
}

export function values(name) {
  if (name === "group_by") return [...list(name).querySelectorAll("input:checked")].map((each) => each.value);
  return [...list(name).children].map((row) => {
    const found = {};
    for (const each of row.querySelectorAll("[name]")) found[each.name] = each.type === "checkbox" ? each.checked : each.value;
    return found;
  });
}

// The first metric that has two rows: a spec can hold one bound for each.
export function repeated() {
  const names = values("thresholds").map((each) => each.metric).filter(Boolean);
  return names.find((each, place) => names.indexOf(each) !== place) ?? null;
}

export function showGroups(columns, chosen) {
  const known = new Map(columns.map((each) => [each.name, each.shown]));
  for (const each of chosen) if (!known.has(each)) known.set(each, `${each} (not in the dataset)`);
  const boxes = [...known].map(([name, shown]) =>
    made("label", {className: "check"}, made("input", {type: "checkbox", value: name, checked: chosen.includes(name)}), shown));
  list("group_by").replaceChildren(...(boxes.length ? boxes : [made("span", {className: "muted small"}, "The columns of the dataset are not known yet.")]));
}
