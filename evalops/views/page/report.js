// The rows of a result as a table to filter, sort, search and read. For every element with data-rows="ID" it reads the
// JSON in the element with that id, and draws only the rows in sight. Elements with data-view are shown one at a time.
// All text is set as text. There is no library, no request, and no style but classes and heights.
"use strict";

(() => {
  const MARGIN = 8; // rows that are drawn beyond those in sight
  const SHOWN = 160; // characters of a cell
  const MARKED = 300; // places that a search marks in one text
  const BINS = 10; // ranges of scores, where there are too many different ones
  const STATUSES = ["scored", "invalid", "error"];
  const PASS = 0, FAIL = 1, PLAIN = 2, INVALID = 3, ERROR = 4;
  const OUTCOMES = [
    ["✓", "passes", "good"], ["✗", "does not pass", "bad"], ["•", "has a verdict", ""],
    ["⊘", "invalid", "warn"], ["!", "error", "warn"],
  ];
  const MOVES = { up: ["▲", "better than at the base", "good"], down: ["▼", "worse than at the base", "bad"],
                  other: ["≠", "another verdict than at the base", "info"], new: ["+", "not among the rows of the base", "info"] };
  const TOWARD = { up: ["▲", "moved toward A since the base", "info"], down: ["▼", "moved toward B since the base", "info"] };
  const moves = (data) => (data.type === "compare" ? { ...MOVES, ...TOWARD } : MOVES);
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const number = (value) => value.toLocaleString("en");

  /** An element with attributes (`on…` are listeners) and children, which are nodes or texts. */
  function make(tag, attributes, ...children) {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null && value !== undefined) found.setAttribute(name, value === true ? "" : value);
    }
    found.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
    return found;
  }

  const sign = (text) => make("span", { "aria-hidden": "true" }, text);
  const chip = (mark, text, tone) => make("span", { class: `chip ${tone || ""}` }, sign(mark), ` ${text}`);
  const short = (text) => (text === null || text === undefined ? "" : text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text);
  const printed = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(+value.toPrecision(6)) : value);

  // --- what the data says ---

  function outcome(data, row) {
    if (data.status[row] === 1) return INVALID;
    if (data.status[row] === 2) return ERROR;
    const passed = data.passed ? data.passed[row] : null;
    return passed === null ? PLAIN : passed ? PASS : FAIL;
  }

  /** How a verdict is called: its value, or why there is none. */
  function verdict(data, row) {
    if (data.status[row] === 0) return printed(data.verdict[row]);
    const problem = data.problem ? data.problem[row] : null;
    return STATUSES[data.status[row]] + (problem ? `: ${problem}` : "");
  }

  function verdictChip(data, row) {
    const [mark, , tone] = OUTCOMES[outcome(data, row)];
    return chip(mark, verdict(data, row), tone);
  }

  function disagrees(data, row, how) {
    switch (how) {
      case "gold": return data.agrees[row] === false;
      case "judges": return differ((data.votes[row] || []).map((vote) => `${vote.status} ${vote.value}`));
      case "orders": return differ(data.orders[row] || []);
      default: return data.moved[row] === how;
    }
  }

  const differ = (values) => values.some((each) => each !== values[0]);

  /** Every value of a column with how often it is there, in the order of words. */
  function tally(count, value) {
    const found = new Map();
    for (let row = 0; row < count; row++) {
      const each = value(row);
      if (each !== null && each !== undefined) found.set(each, (found.get(each) || 0) + 1);
    }
    return [...found].sort(([one], [other]) => words.compare(String(one), String(other)));
  }

  // --- filters: a name, a label, choices with counts, and whether a row is of a choice ---

  function filters(data) {
    const found = [];
    const add = (name, label, choices, test) => {
      const there = choices.filter(([, , count]) => count > 0);
      if (there.length > 1 || (there.length && name === "disagreement")) found.push({ name, label, choices: there, test });
    };
    const counted = (test) => { let count = 0; for (let row = 0; row < data.count; row++) count += test(row) ? 1 : 0; return count; };
    const outcomes = Uint8Array.from({ length: data.count }, (_, row) => outcome(data, row));
    add("outcome", "Outcome",
        OUTCOMES.map(([mark, text], place) => [String(place), `${mark} ${text}`, counted((row) => outcomes[row] === place)]),
        (choice) => (row) => outcomes[row] === Number(choice));
    addValues(add, "verdict", "Verdict", data, (row) => (data.status[row] === 0 ? data.verdict[row] : null));
    if (data.gold) addValues(add, "gold", "Gold", data, (row) => data.gold[row]);
    const ways = [];
    if (data.agrees) ways.push(["gold", "≠ verdict is not gold"]);
    if (data.votes) ways.push(["judges", "≠ judges disagree"]);
    if (data.orders) ways.push(["orders", "≠ the orders disagree"]);
    if (data.moved) for (const [name, [mark, text]] of Object.entries(moves(data))) ways.push([name, `${mark} ${text}`]);
    add("disagreement", "Disagreement", ways.map(([name, text]) => [name, text, counted((row) => disagrees(data, row, name))]),
        (choice) => (row) => disagrees(data, row, choice));
    data.groups.forEach((group, place) => addValues(add, `group ${place}`, group.name, data, (row) => group.values[row]));
    return found;
  }

  function addValues(add, name, label, data, value) {
    const all = tally(data.count, value);
    if (all.length > 2 * BINS && all.every(([each]) => typeof each === "number")) {
      const least = Math.min(...all.map(([each]) => each)), width = (Math.max(...all.map(([each]) => each)) - least) / BINS;
      const bin = (each) => Math.min(BINS - 1, Math.floor((each - least) / width));
      const counts = Array(BINS).fill(0);
      for (const [each, count] of all) counts[bin(each)] += count;
      add(name, label, counts.map((count, place) =>
        [String(place), `${printed(least + place * width)} to ${printed(least + (place + 1) * width)}`, count]),
        (choice) => (row) => { const each = value(row); return each !== null && bin(each) === Number(choice); });
    } else {
      add(name, label, all.slice(0, 500).map(([each, count]) => [String(each), printed(each), count]),
          (choice) => (row) => { const each = value(row); return each !== null && String(each) === choice; });
    }
  }

  // --- columns: a title, a class that says on how wide a page it is there, its cell, and what it is sorted by ---

  function columns(data) {
    const found = [{ name: "row", title: "Row", kind: "is-number", cell: (row) => number(row + 1), by: (row) => row }];
    const text = (name, title, kind, value) =>
      found.push({ name, title, kind, cell: (row) => short(value(row)), by: (row) => (value(row) || "").slice(0, 100).toLowerCase() || null });
    found.push({ name: "verdict", title: "Verdict", kind: "is-verdict", cell: (row) => verdictChip(data, row),
                 by: (row) => (data.status[row] === 0 ? data.verdict[row] : `\uffff${verdict(data, row)}`) });
    if (data.gold) found.push({ name: "gold", title: "Gold", kind: "is-short is-wide", by: (row) => data.gold[row],
                                cell: (row) => golden(data, row) });
    if (data.before) found.push({ name: "before", title: "At the base", kind: "is-short is-wide", by: (row) => data.before[row],
                                  cell: (row) => earlier(data, row) });
    data.groups.slice(0, 2).forEach((group, place) => text(`group ${place}`, group.name, "is-short is-wider", (row) => group.values[row]));
    const responses = data.texts.filter((each) => each.role !== "column");
    const lead = longest(data.texts.filter((each) => each.role === "column"), data.count);
    if (lead) text("lead", lead.name, responses.length ? "is-text is-wide" : "is-text", (row) => lead.values[row]);
    responses.slice(0, 2).forEach((each, place) =>
      text(`response ${place}`, titled(each), place ? "is-text is-wide" : "is-text", (row) => each.values[row]));
    if (data.reason) text("reason", "Reason", lead || responses.length ? "is-text is-wider" : "is-text", (row) => data.reason[row]);
    if (!lead && !responses.length) text("key", "Key", "is-text", (row) => data.key[row]);
    return found;
  }

  const titled = (each) => (each.role === "a" || each.role === "b" ? `${each.role.toUpperCase()}: ${each.name}` : each.name);

  function golden(data, row) {
    const value = data.gold[row];
    if (value === null) return "";
    const same = data.agrees ? data.agrees[row] : null;
    return same === false ? make("span", {}, make("span", { class: "differs", title: "not the verdict" }, "≠"), ` ${printed(value)}`) : printed(value);
  }

  function earlier(data, row) {
    const mark = data.moved[row] ? moves(data)[data.moved[row]] : null;
    const value = data.before_status[row] === "scored" ? printed(data.before[row]) : data.before_status[row] || "";
    return mark ? make("span", { title: mark[1] }, sign(mark[0]), ` ${value}`) : value;
  }

  /** The column that says most. */
  function longest(texts, count) {
    let best = null, most = 0;
    for (const each of texts) {
      let length = 0;
      for (let row = 0; row < Math.min(count, 50); row++) length += (each.values[row] || "").length;
      if (length > most) { best = each; most = length; }
    }
    return best;
  }

  // --- the table ---

  function table(host) {
    const data = JSON.parse(document.getElementById(host.dataset.rows).textContent);
    const shape = columns(data), choices = filters(data);
    const state = { filters: new Map(), query: [], sort: null, shown: flippedFirst(data), active: 0, height: 0, drawn: "" };
    let order = flippedFirst(data), haystack = null;
    const label = host.getAttribute("aria-label") || "Rows", own = host.dataset.rows;

    const search = make("input", { type: "search", placeholder: "all of these words", autocomplete: "off", spellcheck: "false" });
    const selects = new Map(choices.map((each) => [each.name, select(each)]));
    const clear = make("button", { type: "button", class: "button tiny", onclick: reset, hidden: true }, "Clear all");
    const count = make("p", { class: "count", role: "status", "aria-live": "polite" });
    const hint = make("span", { class: "small muted", hidden: !hasFlips(data) }, "those that moved since the base first");
    const head = make("tr", {}, ...shape.map(heading));
    const body = make("tbody");
    const grid = make("table", { class: "table tight", "aria-rowcount": String(data.count + 1) },
                      make("caption", { class: "visually-hidden" }, label), make("thead", {}, head), body);
    const scroller = make("div", { class: "grid", tabindex: "0", role: "region", "aria-label": label, onscroll: draw }, grid);
    const empty = make("p", { class: "empty", hidden: true }, "No row is like that.");
    host.replaceChildren(
      make("div", { class: "filters" }, named(`${own}-search`, "Search", search),
           ...choices.map((each, place) => named(`${own}-${place}`, each.label, selects.get(each.name)))),
      make("div", { class: "bar" }, count, hint, clear, keys()), scroller, empty);

    let waiting = 0;
    search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, data.count > 5000 ? 120 : 0); });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && search.value) { search.value = ""; changed(); event.preventDefault(); }
      if (event.key === "ArrowDown" || event.key === "Enter") { changed(); go(0); event.preventDefault(); }
    });
    host.addEventListener("keydown", pressed);
    body.addEventListener("click", (event) => {
      const line = event.target.closest("tr[data-place]");
      if (line && !String(document.getSelection())) open(Number(line.dataset.place));
    });
    new ResizeObserver(() => { state.drawn = ""; draw(); }).observe(scroller);
    changed();

    function select(filter) {
      const any = make("option", { value: "" }, "any");
      const options = filter.choices.map(([value, text, rows]) => make("option", { value }, `${text} (${number(rows)})`));
      return make("select", { onchange: changed }, any, ...options);
    }

    function heading(column) {
      return make("th", { scope: "col", class: column.kind, "aria-sort": "none" },
                  make("button", { type: "button", class: "sort", onclick: () => sort(column) }, column.title));
    }

    function reset() {
      search.value = "";
      for (const each of selects.values()) each.value = "";
      changed();
      search.focus();
    }

    function sort(column) {
      const descending = state.sort && state.sort.column === column && !state.sort.descending;
      state.sort = { column, descending };
      order = sorted(data.count, column.by, descending);
      hint.hidden = true;
      [...head.children].forEach((each, place) =>
        each.setAttribute("aria-sort", shape[place] !== column ? "none" : descending ? "descending" : "ascending"));
      changed();
    }

    function changed() {
      clearTimeout(waiting);
      state.query = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const tests = choices.filter((each) => selects.get(each.name).value !== "").map((each) => each.test(selects.get(each.name).value));
      if (state.query.length) {
        haystack = haystack || searchable(data);
        tests.push((row) => state.query.every((word) => haystack[row].includes(word)));
      }
      state.shown = tests.length ? order.filter((row) => tests.every((test) => test(row))) : order;
      state.active = 0;
      const found = state.shown.length;
      count.textContent = found === data.count ? `${number(found)} row${found === 1 ? "" : "s"}` : `${number(found)} of ${number(data.count)} rows`;
      clear.hidden = !tests.length;
      empty.hidden = found > 0;
      scroller.hidden = !found;
      scroller.scrollTop = 0;
      state.drawn = "";
      draw();
    }

    /** Puts the rows in sight into the table, and as much room around them as the others would take. */
    function draw() {
      const total = state.shown.length, height = state.height || 33;
      const first = Math.max(0, Math.min(total, Math.floor(scroller.scrollTop / height)) - MARGIN);
      const last = Math.min(total, Math.ceil((scroller.scrollTop + (scroller.clientHeight || 600)) / height) + MARGIN);
      if (state.drawn === `${first} ${last}`) return;
      state.drawn = `${first} ${last}`;
      const held = body.contains(document.activeElement);
      const lines = [];
      for (let place = first; place < last; place++) lines.push(line(place));
      body.replaceChildren(room(first * height), ...lines, room((total - last) * height));
      if (!state.height && lines.length && lines[0].offsetHeight) {
        state.height = lines[0].getBoundingClientRect().height;
        state.drawn = "";
        return draw();
      }
      if (held) (opener(state.active) || scroller).focus({ preventScroll: true });
    }

    function room(height) {
      const cell = make("td"), found = make("tr", { "aria-hidden": "true", class: "room", hidden: height <= 0 }, cell);
      cell.style.height = `${height}px`;
      return found;
    }

    function line(place) {
      const row = state.shown[place];
      const cells = shape.map((column, index) => {
        const content = column.cell(row);
        return make("td", { class: column.kind }, index ? content : make("button", {
          type: "button", class: "open", tabindex: place === state.active ? "0" : "-1",
          "aria-label": `Row ${content}, ${verdict(data, row)}: open`,
        }, content));
      });
      return make("tr", { "data-place": String(place), "aria-rowindex": String(place + 2), class: place === state.active ? "is-active" : null }, ...cells);
    }

    const lineAt = (place) => body.querySelector(`tr[data-place="${place}"]`);
    const opener = (place) => { const found = lineAt(place); return found && found.querySelector("button"); };

    /** Moves to a row of those shown, into sight and with the keyboard's focus. */
    function go(place) {
      if (!state.shown.length) return;
      state.active = Math.max(0, Math.min(state.shown.length - 1, place));
      const height = state.height || 33, top = state.active * height, header = head.offsetHeight;
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top + height > scroller.scrollTop + scroller.clientHeight - header) scroller.scrollTop = top + height + header - scroller.clientHeight;
      state.drawn = "";
      draw();
      (opener(state.active) || scroller).focus({ preventScroll: true });
    }

    function pressed(event) {
      const typing = event.target.closest("input, select, textarea, dialog");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const page = Math.max(1, Math.floor(scroller.clientHeight / (state.height || 33)) - 2);
      const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (event.key in steps && !event.target.closest("thead")) {
        go(body.contains(document.activeElement) ? state.active + steps[event.key] : state.active);
        event.preventDefault();
      } else if (event.key === "Enter" && event.target === scroller) open(state.active);
    }

    function open(place) {
      go(place);
      detail(data, state, place, (next) => go(next));
    }

    /** Sets filters by the values of rows: what a click on a part of a chart asks for. */
    function pick(values) {
      for (const each of selects.values()) each.value = "";
      search.value = "";
      for (const [name, value] of Object.entries(values)) {
        const chosen = selects.get(name);
        if (chosen && [...chosen.options].some((option) => option.value === value)) chosen.value = value;
        else if (value === "(invalid)" && selects.has("outcome")) selects.get("outcome").value = String(INVALID);
      }
      changed();
      host.scrollIntoView({ block: "start" });
      go(0);
    }

    return { host, pick, search: () => search.focus(), go: () => go(state.active) };
  }

  const all = (count) => Uint32Array.from({ length: count }, (_, row) => row);

  const hasFlips = (data) => Boolean(data.moved && data.moved.some((each) => each && each !== "new"));

  /** The order before any other is asked for: what the verdict left or came to since the base, then the dataset's. */
  function flippedFirst(data) {
    if (!hasFlips(data)) return all(data.count);
    const places = ["down", "up", "other"];
    return sorted(data.count, (row) => { const place = places.indexOf(data.moved[row]); return place < 0 ? null : place; }, false);
  }

  /** All rows in the order of a column; those without a value last, equal ones in the order of the dataset. */
  function sorted(count, by, descending) {
    const values = Array.from({ length: count }, (_, row) => by(row));
    const sign_ = descending ? -1 : 1;
    return all(count).sort((one, other) => {
      const left = values[one], right = values[other];
      if (left === right) return one - other;
      if (left === null || left === undefined) return 1;
      if (right === null || right === undefined) return -1;
      if (typeof left !== typeof right) return typeof left === "number" ? -1 : 1;
      return (left < right ? -1 : 1) * sign_ || one - other;
    });
  }

  /** What a search looks through: every text of a row. */
  function searchable(data) {
    const parts = [...data.texts.map((each) => each.values), data.reason, data.problem, data.key].filter(Boolean);
    return Array.from({ length: data.count }, (_, row) => {
      let text = verdict(data, row);
      for (const each of parts) if (each[row]) text += `\n${each[row]}`;
      if (data.gold && data.gold[row] !== null) text += `\n${data.gold[row]}`;
      for (const each of data.groups) text += `\n${each.values[row]}`;
      return text.toLowerCase();
    });
  }

  function named(id, text, control) {
    control.id = id;
    return make("div", { class: "field" }, make("label", { class: "eyebrow", for: id }, text), control);
  }

  function keys() {
    const key = (text) => make("kbd", {}, text);
    return make("p", { class: "push small muted keys" }, key("/"), " search, ", key("j"), " ", key("k"), " move, ", key("Enter"), " open");
  }

  // --- one row ---

  function detail(data, state, place, moved) {
    const title = make("h3", { id: "row-title" });
    const content = make("div", { class: "stack" });
    const step = (by, text, hint) => make("button", { type: "button", class: "button tiny", onclick: () => move(by), title: hint }, text);
    const before = step(-1, "← Previous", "k"), after = step(1, "Next →", "j");
    const close = make("button", { type: "button", class: "button tiny", onclick: () => dialog.close() }, "Close");
    const dialog = make("dialog", { class: "dialog detail", "aria-labelledby": "row-title" },
                        make("div", { class: "bar detail-head" }, title, make("span", { class: "bar push" }, before, after, close)), content);
    dialog.addEventListener("close", () => { dialog.remove(); moved(place); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
      if (event.key in steps && !event.ctrlKey && !event.metaKey && !event.altKey) { move(steps[event.key]); event.preventDefault(); }
    });
    document.body.append(dialog);
    show();
    dialog.showModal();
    close.focus();

    function move(by) {
      if (place + by < 0 || place + by >= state.shown.length) return;
      place += by;
      show();
      dialog.scrollTop = 0;
    }

    function show() {
      const row = state.shown[place];
      title.textContent = `Row ${number(row + 1)}`;
      before.disabled = place === 0;
      after.disabled = place === state.shown.length - 1;
      content.replaceChildren(...parts(data, row, state.query).filter(Boolean));
    }
  }

  /** What there is of a row: verdict, sides or response, votes, other columns, prompts. */
  function* parts(data, row, query) {
    yield facts(data, row);
    if (data.reason && data.reason[row]) yield text("What the judge said", data.reason[row], query);
    if (data.type === "compare") {
      yield sides(data, row, query);
      if (data.orders && data.orders[row]) yield orders(data, row);
    } else {
      for (const each of data.texts) if (each.role !== "column") yield text(each.name, each.values[row], query);
    }
    if (data.votes && data.votes[row]) yield votes(data, row);
    if (data.criteria && data.criteria[row]) {
      yield grid("Criteria", ["Criterion", "Score"], Object.entries(data.criteria[row]).map(([name, value]) => [name, printed(value)]));
    }
    if (data.evaluators && data.evaluators[row]) yield text("Evaluators", JSON.stringify(data.evaluators[row], null, 2), query);
    yield others(data, row);
    for (const each of data.texts) if (each.role === "column" && !isShort(each, row)) yield text(each.name, each.values[row], query);
    for (const each of data.prompts) if (each.values[row]) yield folded(`${each.name}, filled in for this row`, each.values[row], query);
  }

  /** Whether what a column has of a row fits on a line beside its name. */
  function isShort(each, row) {
    const value = each.values[row];
    return each.role === "column" && value !== null && value.length <= 60 && !value.includes("\n");
  }

  function others(data, row) {
    const list = make("dl", { class: "facts" });
    const add = (term, what) => list.append(make("dt", {}, term), make("dd", {}, what));
    for (const each of data.texts) if (isShort(each, row)) add(each.name, each.values[row]);
    add("Key", make("code", {}, data.key[row] || ""));
    return make("section", { class: "stack" }, make("h4", {}, "Other columns"), list);
  }

  function facts(data, row) {
    const list = make("dl", { class: "facts" });
    const add = (term, ...what) => list.append(make("dt", {}, term), make("dd", {}, ...what));
    const [, said] = OUTCOMES[outcome(data, row)];
    add("Verdict", verdictChip(data, row), ...(outcome(data, row) < PLAIN ? [" ", make("span", { class: "muted" }, said)] : []));
    if (data.gold && data.gold[row] !== null) {
      const same = data.agrees ? data.agrees[row] : null;
      add("Gold", `${printed(data.gold[row])} `, same === null || same === undefined ? "" : same ? chip("✓", "agrees", "good") : chip("≠", "not the verdict", "bad"));
    }
    if (data.before) {
      const mark = data.moved[row] ? moves(data)[data.moved[row]] : ["=", "the same as at the base", ""];
      const value = data.before_status[row] === "scored" ? printed(data.before[row]) : data.before_status[row];
      add("Before → now", value ? `${value} → ${verdict(data, row)} ` : "", chip(...mark));
    }
    return list;
  }

  function sides(data, row, query) {
    const found = make("div", { class: "sides" });
    for (const side of ["a", "b"]) {
      const each = data.texts.find((one) => one.role === side);
      const name = side.toUpperCase(), candidate = data.candidates["ab".indexOf(side)];
      const won = data.status[row] === 0 && data.verdict[row] === name;
      const heading = make("h4", { class: "bar" }, `${name}${candidate ? `: ${candidate}` : ""}`, won ? chip("✓", "wins", "good") : data.verdict[row] === "Tie" ? chip("=", "tie", "") : null);
      found.append(make("section", { class: "stack" }, heading, pre(each ? each.values[row] : null, query)));
    }
    return found;
  }

  function orders(data, row) {
    const said = (data.said && data.said[row]) || [];
    const lines = data.orders[row].map((choice, place) => [place ? "B shown first" : "A shown first", choice === null ? "no verdict" : choice, said[place] || ""]);
    return grid(differ(data.orders[row]) ? "Both orders: they disagree" : "Both orders agree", ["Order", "Winner", "Reason"], lines);
  }

  function votes(data, row) {
    const lines = data.votes[row].map((vote) => [
      data.judges[vote.judge] || `judge ${vote.judge + 1}`, String(vote.repeat),
      vote.status === "scored" ? printed(vote.value) : vote.status + (vote.problem ? `: ${vote.problem}` : ""), vote.reason || "",
    ]);
    return grid(disagrees(data, row, "judges") ? "Votes: they disagree" : "Votes agree", ["Judge", "Repeat", "Vote", "Reason"], lines);
  }

  function grid(title, names, lines) {
    return make("section", { class: "stack" }, make("h4", {}, title), make("div", { class: "table-wrap" }, make("table", { class: "table tight" },
      make("thead", {}, make("tr", {}, ...names.map((each) => make("th", { scope: "col" }, each)))),
      make("tbody", {}, ...lines.map((cells) => make("tr", {}, ...cells.map((each) => make("td", { class: "break" }, each))))))));
  }

  const text = (title, value, query) =>
    value === null || value === undefined ? null : make("section", { class: "stack" }, make("h4", {}, title), pre(value, query));
  const folded = (title, value, query) =>
    make("details", { class: "fold" }, make("summary", {}, title), pre(value, query));

  function pre(value, query) {
    if (value === null || value === undefined) return make("p", { class: "muted" }, "not here");
    return make("pre", { class: "code" }, ...marked(value, query));
  }

  /** A text with the words of the search marked. */
  function* marked(value, query) {
    if (!query.length) return yield value;
    const pattern = new RegExp(query.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "gi");
    let end = 0, count = 0;
    for (const match of value.matchAll(pattern)) {
      if (++count > MARKED) break;
      yield value.slice(end, match.index);
      yield make("mark", {}, match[0]);
      end = match.index + match[0].length;
    }
    yield value.slice(end);
  }

  // --- the page ---

  const hosts = new Map(); // what was drawn, by element
  const within = (element) => [...element.querySelectorAll("[data-rows]")];
  const start = (host) => { if (!hosts.has(host)) hosts.set(host, table(host)); return hosts.get(host); };
  const inSight = () => within(document.body).filter((host) => !host.closest("[hidden]"));

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog, [data-rows]")) {
      if (event.key !== "/" || event.target.closest("input, select, textarea, dialog")) return;
    }
    const host = inSight()[0];
    if (!host) return;
    if (event.key === "/") { start(host).search(); event.preventDefault(); }
    if (event.key === "j" || event.key === "k") { start(host).go(); event.preventDefault(); }
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pick]");
    const host = button && document.querySelector(`[data-rows="${CSS.escape(button.dataset.pick)}"]`);
    if (host) start(host).pick({ gold: button.dataset.gold, verdict: button.dataset.verdict });
  });

  const views = [...document.querySelectorAll("[data-view]")];
  const title = document.title;

  /** Shows the view that the address names, or that holds what it names; else the first. */
  function route(event) {
    const id = location.hash.slice(1);
    const named_ = id ? document.getElementById(id) : null;
    if (event && id && (!named_ || !named_.closest("[data-view]"))) return; // a place outside of all views
    const view = (named_ && named_.closest("[data-view]")) || views[0];
    for (const each of views) each.hidden = each !== view;
    view.parentElement.classList.add("is-routed");
    document.title = view === views[0] ? title : `${view.dataset.title} · ${title}`;
    for (const link of document.querySelectorAll(".nav a")) {
      if (link.hash === `#${view.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    within(view).forEach(start);
    if (event && named_ === view) {
      scrollTo({ top: 0, behavior: "instant" });
      const heading = view.querySelector("[tabindex='-1']");
      if (heading) heading.focus({ preventScroll: true });
    }
  }

  if (views.length > 1) {
    addEventListener("hashchange", route);
    route(null);
  } else within(document.body).forEach(start);

  const tools = document.querySelector("[data-tools]");
  if (tools) {
    const themes = ["system", "light", "dark"];
    const now = () => document.documentElement.dataset.theme || "system";
    const button = make("button", { type: "button", class: "button tiny", title: "Light or dark", onclick: () => {
      const next = themes[(themes.indexOf(now()) + 1) % themes.length];
      if (next === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      name();
    } });
    const name = () => button.replaceChildren(sign("◐"), make("span", { class: "visually-hidden" }, "Theme:"), ` ${now()}`);
    name();
    tools.append(button);
  }
})();
