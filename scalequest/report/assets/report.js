"use strict";
// Draws the report's browsers: tables that can be searched, filtered, sorted, linked to and marked. Reads only this page.
// Every text of a model is put into the page with textContent. Only KaTeX's own MathML is parsed as markup.

const PAGE_ROWS = 50;
const SNIPPET = 240;
const MARKED_CHARACTERS = 1000;
const browsers = new Map();

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The rows of a browser: base64, zlib, JSON.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// ---------------------------------------------------------------------------------------------------------------- maths

// $$...$$, \[...\], \(...\), $...$ and a bare \boxed{...}. A dollar sign before a digit that no sign closes is money: as in
// pandoc, an opening $ has no space after it, and a closing $ none before it and no digit after it.
const MATHS = new RegExp(
  [
    String.raw`\$\$([^$]+?)\$\$`,
    String.raw`\\\[([\s\S]+?)\\\]`,
    String.raw`\\\(([\s\S]+?)\\\)`,
    String.raw`(?<![\\$\w])\$(?![\s$])([^$\n]*?[^\s$\\])\$(?![\d$])`,
    String.raw`(\\boxed\{(?:[^{}]|\{[^{}]*\})*\})`,
  ].join("|"),
  "g",
);

function formula(source, display) {
  try {
    const markup = katex.renderToString(source, { output: "mathml", displayMode: display, strict: "ignore", trust: false, maxSize: 20 });
    const holder = document.createElement("template");
    // The page's policy forbids inline styles, which KaTeX writes for a few commands.
    holder.innerHTML = markup.replace(/ style="[^"]*"/g, "");
    return holder.content;
  } catch {
    return null; // broken LaTeX stays as it was written
  }
}

function rendered(text) {
  const parts = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(MATHS)) {
    const [whole, dollars, brackets, parentheses, dollar, boxed] = match;
    const made = formula(dollars ?? brackets ?? parentheses ?? dollar ?? boxed, Boolean(dollars ?? brackets));
    if (!made) continue;
    parts.append(text.slice(end, match.index), made);
    end = match.index + whole.length;
  }
  parts.append(text.slice(end));
  return parts;
}

// A text with a switch between its maths and its letters, where it has maths.
function textPanel([name, text, remark]) {
  const body = element("div", { class: "text", dir: "auto" });
  const head = element("p", { class: "title" }, element("b", {}, name), remark ? ` ${remark}` : "");
  const maths = rendered(text);
  if (maths.querySelector?.("math")) {
    const toggle = element("button", { type: "button", class: "plain", ariaPressed: "false" }, "as written");
    toggle.addEventListener("click", () => {
      const written = toggle.ariaPressed === "false";
      toggle.ariaPressed = String(written);
      body.replaceChildren(written ? text : rendered(text));
    });
    head.append(" ", toggle);
  }
  body.append(maths);
  return element("div", { class: "panel" }, head, body);
}

// ---------------------------------------------------------------------------------------------------------------- marks

const MARKS_KEY = `scalequest marks ${document.title}`;

function readMarks() {
  try {
    return JSON.parse(localStorage.getItem(MARKS_KEY)) || {};
  } catch {
    return {}; // a browser that keeps nothing for pages from disk
  }
}

const marks = readMarks();

// The beginning of the question goes with the mark, so that `filter` refuses marks of another run with the same ids.
function setMark(id, mark, question) {
  if (marks[id]?.mark === mark) delete marks[id];
  else marks[id] = { id, mark, question: [...question].slice(0, MARKED_CHARACTERS).join("") };
  try {
    localStorage.setItem(MARKS_KEY, JSON.stringify(marks));
  } catch {
    // kept until the page is closed
  }
}

function marksAsJsonl() {
  return Object.keys(marks).sort().map((id) => `${JSON.stringify(marks[id])}\n`).join("");
}

function saveMarks() {
  const address = URL.createObjectURL(new Blob([marksAsJsonl()], { type: "application/jsonl" }));
  const link = element("a", { href: address, download: "marks.jsonl" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// -------------------------------------------------------------------------------------------------------------- browser

class DataBrowser {
  constructor(holder, data) {
    Object.assign(this, { holder, key: holder.dataset.key, ...data });
    this.found = new Map(this.columns.map((column, place) => [column.key, place]));
    // Lower-cased once, so that a keystroke only compares.
    this.texts = this.rows.map((row) =>
      [...row.cells.filter((cell) => typeof cell === "string"), ...row.texts.map((text) => text[1])].join("\n").toLowerCase(),
    );
    this.state = { q: "", sort: "", open: "", choices: {}, past: "", ranges: {}, mark: "" };
    this.limit = PAGE_ROWS;
    this.controls = {};
    // Marks of another run whose page had the same title.
    for (const { cells, texts } of this.marks ? this.rows : []) {
      if (marks[cells[0]] && !texts[0][1].startsWith(marks[cells[0]].question)) delete marks[cells[0]];
    }
    this.build();
    this.show();
  }

  build() {
    const tools = element("form", { class: "tools", role: "search" });
    tools.addEventListener("submit", (event) => event.preventDefault());
    const search = element("input", { type: "search", placeholder: "words, all of which occur" });
    this.controls.q = search;
    search.addEventListener("input", () => this.change({ q: search.value }));
    tools.append(element("label", { class: "wide" }, "Search ", search));
    // On a narrow screen the rows are more important than the filters.
    const filters = element("div");
    const fold = element("details", { class: "filters", open: matchMedia("(min-width: 40rem)").matches }, element("summary", {}, "Filters"), filters);
    tools.append(fold);
    for (const column of this.columns) {
      if (column.kind === "category") filters.append(this.choice(column));
      if (column.kind === "category" && column.order.length) filters.append(this.past(column));
      if (column.kind === "number" && this.extent(column)) filters.append(this.range(column));
    }
    if (this.marks) {
      const only = this.select(["good", "bad", "none"], (mark) => this.change({ mark }));
      this.controls.mark = only;
      this.save = element("button", { type: "button" }, "Save marks as JSONL");
      this.save.addEventListener("click", saveMarks);
      filters.append(element("label", {}, "mark ", only));
      tools.append(this.save);
    }
    const clear = element("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => this.set({}));
    this.count = element("output", {});
    tools.append(clear, this.count);
    this.head = element("tr");
    for (const column of this.shown()) {
      const button = element("button", { type: "button" }, column.label);
      button.addEventListener("click", () => {
        const next = this.state.sort === column.key ? `-${column.key}` : column.key;
        this.change({ sort: next });
      });
      this.head.append(element("th", { scope: "col", class: column.kind === "number" ? "r" : "" }, button));
    }
    this.body = element("tbody");
    this.more = element("button", { type: "button", class: "more" }, "Show more");
    this.more.addEventListener("click", () => {
      this.limit += 4 * PAGE_ROWS;
      this.draw();
    });
    const table = element("table", {}, element("thead", {}, this.head), this.body);
    table.setAttribute("aria-label", this.holder.querySelector("h3").textContent);
    this.holder.append(tools, table, this.more);
    this.body.addEventListener("keydown", (event) => this.walk(event));
  }

  // The id is the last column, the text the first: on a narrow screen what carries the meaning comes first.
  shown() {
    return [...this.columns.slice(1), this.columns[0]];
  }

  value(row, key) {
    return this.rows[row].cells[this.found.get(key)];
  }

  select(names, chosen) {
    const made = element("select", {}, element("option", { value: "" }, "all"));
    for (const name of names) made.append(element("option", { value: name }, name));
    made.addEventListener("change", () => chosen(made.value));
    return made;
  }

  choice(column) {
    const place = this.found.get(column.key);
    const counts = new Map();
    for (const row of this.rows) counts.set(row.cells[place], (counts.get(row.cells[place]) || 0) + 1);
    const names = column.order.length ? column.order.filter((name) => counts.has(name)) : [...counts.keys()].sort();
    const made = this.select(names, (value) => this.change({ choices: { ...this.state.choices, [column.key]: value } }));
    for (const option of made.options) if (option.value) option.textContent += ` (${counts.get(option.value)})`;
    this.controls[column.key] = made;
    return element("label", {}, `${column.label} `, made);
  }

  past(column) {
    const made = this.select(column.order.slice(0, -1), (past) => this.change({ past }));
    this.controls.past = made;
    this.ordered = column;
    return element("label", {}, "passed ", made);
  }

  extent(column) {
    const place = this.found.get(column.key);
    let low = Infinity, high = -Infinity;
    for (const row of this.rows) {
      const value = row.cells[place];
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    return low < high ? [low, high] : null;
  }

  range(column) {
    const [low, high] = this.extent(column);
    const ends = [low, high].map((bound, side) => {
      const name = `${side ? "highest" : "lowest"} ${column.label}`;
      const input = element("input", { type: "number", step: "any", placeholder: String(Number(bound.toPrecision(3))), ariaLabel: name });
      input.addEventListener("input", () => {
        const ranges = { ...this.state.ranges, [column.key]: ends.map((end) => end.value) };
        this.change({ ranges });
      });
      return input;
    });
    this.controls[column.key] = ends;
    return element("fieldset", {}, element("legend", {}, column.label), ends[0], "–", ends[1]);
  }

  change(part) {
    Object.assign(this.state, part);
    this.limit = PAGE_ROWS;
    this.show();
    remember(this);
  }

  // Sets the whole state, as an address has it.
  set(state) {
    this.state = { q: "", sort: "", open: "", choices: {}, past: "", ranges: {}, mark: "", ...state };
    this.controls.q.value = this.state.q;
    for (const column of this.columns) {
      const control = this.controls[column.key];
      if (column.kind === "category" && control) control.value = this.state.choices[column.key] || "";
      if (column.kind === "number" && control) control.forEach((end, side) => { end.value = this.state.ranges[column.key]?.[side] ?? ""; });
    }
    if (this.controls.past) this.controls.past.value = this.state.past;
    if (this.controls.mark) this.controls.mark.value = this.state.mark;
    this.limit = PAGE_ROWS;
    this.show();
    remember(this);
  }

  matching() {
    const { q, choices, past, ranges, mark } = this.state;
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const equal = Object.entries(choices).filter(([, value]) => value).map(([key, value]) => [this.found.get(key), value]);
    const within = Object.entries(ranges)
      .filter(([, ends]) => ends[0] !== "" || ends[1] !== "")
      .map(([key, [low, high]]) => [this.found.get(key), low === "" ? -Infinity : Number(low), high === "" ? Infinity : Number(high)]);
    const order = past && this.ordered ? new Map(this.ordered.order.map((name, at) => [name, at])) : null;
    const ordered = order && this.found.get(this.ordered.key);
    const rows = [];
    for (let at = 0; at < this.rows.length; at++) {
      const cells = this.rows[at].cells;
      if (!equal.every(([place, value]) => cells[place] === value)) continue;
      if (!within.every(([place, low, high]) => cells[place] !== null && cells[place] >= low && cells[place] <= high)) continue;
      if (order && !(order.get(cells[ordered]) > order.get(past))) continue;
      if (mark && (marks[cells[0]]?.mark || "none") !== mark) continue;
      if (!words.every((word) => this.texts[at].includes(word))) continue;
      rows.push(at);
    }
    return rows;
  }

  show() {
    this.rowsShown = this.matching();
    const { sort } = this.state;
    if (sort) {
      const place = this.found.get(sort.replace(/^-/, ""));
      const sign = sort.startsWith("-") ? -1 : 1;
      const cell = (row) => this.rows[row].cells[place];
      this.rowsShown.sort((a, b) => {
        const [one, two] = [cell(a), cell(b)];
        if (one === two) return a - b;
        if (one === null || two === null) return one === null ? 1 : -1; // rows without a value come last
        return (one < two ? -1 : 1) * sign;
      });
    }
    [...this.head.children].forEach((th, at) => {
      const key = this.shown()[at].key;
      th.setAttribute("aria-sort", sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none");
    });
    this.draw();
  }

  draw() {
    const rows = this.rowsShown.slice(0, this.limit);
    const open = this.state.open;
    const opened = open ? this.rows.findIndex((row) => row.cells[0] === open) : -1;
    if (opened >= 0 && !rows.includes(opened)) rows.unshift(opened);
    this.body.replaceChildren(...rows.flatMap((at) => this.line(at, at === opened)));
    if (!rows.length) this.body.append(element("tr", {}, element("td", { colSpan: this.columns.length }, "No row matches.")));
    this.count.value = `${this.rowsShown.length.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")}`;
    this.more.hidden = this.rowsShown.length <= this.limit;
    if (this.save) this.save.disabled = !Object.keys(marks).length;
  }

  line(at, open) {
    const row = element("tr", { class: open ? "open" : "" });
    for (const [place, column] of this.shown().entries()) {
      const value = this.value(at, column.key);
      const cell = element("td", { class: column.kind === "number" ? "r" : column.kind });
      cell.dataset.label = column.label;
      if (place === 0) {
        const words = String(value).slice(0, SNIPPET).replace(/\s+/g, " ").trim() || "(no text)";
        const button = element("button", { type: "button", class: "row", dir: "auto", ariaExpanded: String(open) }, words);
        button.dataset.row = at;
        button.addEventListener("click", () => this.toggle(at));
        cell.append(button);
      } else if (column.kind === "number") {
        cell.append(value === null ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(3));
      } else {
        cell.append(value === null || value === "" ? "–" : String(value));
      }
      const mark = place === 0 && this.marks && marks[this.rows[at].cells[0]];
      if (mark) cell.append(element("span", { class: "mark" }, mark.mark));
      row.append(cell);
    }
    if (!open) return [row];
    return [row, element("tr", { class: "life" }, element("td", { colSpan: this.columns.length }, this.life(at)))];
  }

  // Everything that is known of a row.
  life(at) {
    const { cells, texts } = this.rows[at];
    const facts = element("dl", { class: "rowfacts" });
    this.columns.forEach((column, place) => {
      if (place === 1 || cells[place] === null || cells[place] === "") return;
      facts.append(element("div", {}, element("dt", {}, column.label), element("dd", {}, String(cells[place]))));
    });
    const beside = element("div", { class: "beside" });
    const parts = [facts];
    texts.forEach((text, place) => {
      if (!this.beside.includes(place)) parts.push(textPanel(text));
      else {
        if (!beside.childElementCount) parts.push(beside);
        beside.append(textPanel(text));
      }
    });
    const link = element("a", { href: `#${this.key}?open=${encodeURIComponent(cells[0])}` }, "Link to this row");
    const tail = element("p", { class: "tools" }, link);
    if (this.marks) {
      for (const mark of ["good", "bad"]) {
        const pressed = marks[cells[0]]?.mark === mark;
        const button = element("button", { type: "button", ariaPressed: String(pressed) }, `Mark ${mark}`);
        button.addEventListener("click", () => {
          this.mark(at, mark);
          [...this.body.querySelectorAll("tr.life button")].find((other) => other.textContent === button.textContent)?.focus();
        });
        tail.append(button);
      }
    }
    parts.push(tail);
    return element("div", {}, ...parts);
  }

  toggle(at) {
    const id = this.rows[at].cells[0];
    this.state.open = this.state.open === id ? "" : id;
    this.draw();
    remember(this);
    const buttons = [...this.body.querySelectorAll("button.row")];
    buttons.find((button) => button.closest("tr").classList.contains("open"))?.focus({ preventScroll: true });
  }

  mark(at, mark) {
    setMark(this.rows[at].cells[0], mark, this.rows[at].texts[0][1]);
    this.draw();
  }

  // Arrow keys go from row to row, g and b mark the row that has the focus.
  walk(event) {
    if (!event.target.classList.contains("row") || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = [...this.body.querySelectorAll("button.row")].indexOf(event.target);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const mark = this.marks && { g: "good", b: "bad" }[event.key];
    if (!step && !mark) return;
    if (mark) this.mark(Number(event.target.dataset.row), mark);
    const next = this.body.querySelectorAll("button.row")[place + (step || 0)];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}

// -------------------------------------------------------------------------------------------------------------- address

// `#questions?q=apples&outcome=too_easy&difficulty=0.2..0.5&open=sums/0/12`
function address(browser) {
  const { q, sort, open, choices, past, ranges, mark } = browser.state;
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ q, ...choices, past, mark, sort, open })) if (value) words.set(name, value);
  for (const [name, [low, high]] of Object.entries(ranges)) if (low || high) words.set(name, `${low}..${high}`);
  const text = words.toString();
  return `#${browser.key}${text ? `?${text}` : ""}`;
}

function remember(browser) {
  try {
    history.replaceState(null, "", address(browser));
  } catch {
    // Safari takes 100 addresses in 30 seconds; the next keystroke after that is kept again
  }
}

function follow() {
  const [key, text] = location.hash.slice(1).split("?", 2);
  const browser = browsers.get(key);
  if (!browser || text === undefined) return;
  const words = new URLSearchParams(text);
  const state = { choices: {}, ranges: {} };
  for (const [name, value] of words) {
    const column = browser.columns[browser.found.get(name)];
    const ends = [...value.split(".."), ""].slice(0, 2).map((end) => (Number.isFinite(Number(end)) ? end.trim() : ""));
    if (column?.kind === "number") state.ranges[name] = ends;
    else if (column?.kind === "category") state.choices[name] = value;
    else if (["q", "sort", "open", "past", "mark"].includes(name)) state[name] = value;
  }
  if (state.sort && !browser.found.has(state.sort.replace(/^-/, ""))) state.sort = "";
  browser.set(state);
  (browser.body.querySelector("tr.open") || browser.holder).scrollIntoView({ behavior: "instant" });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const first = browsers.values().next().value;
  if (!first) return;
  event.preventDefault();
  (browsers.get("questions") || first).controls.q.focus();
});

async function start() {
  for (const holder of document.querySelectorAll(".browser")) {
    const rows = holder.querySelector("script.rows");
    try {
      browsers.set(holder.dataset.key, new DataBrowser(holder, await unpack(rows.textContent)));
      rows.remove();
    } catch (error) {
      const words = `The rows cannot be unpacked here (${error.message}). Expected a browser of 2023 or later.`;
      holder.append(element("p", { class: "alert" }, words));
    }
  }
  addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "yes";
}

start();
