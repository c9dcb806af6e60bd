"""Style sheet and script of the report's HTML page, which loads nothing from elsewhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a1c1f; --soft: #5a6069; --ground: #ffffff; --panel: #f6f6f4; --line: #dddfe2; --hair: #ecedef;
  --accent: #1f57b3; --strong: #4b82d8; --bar: #a9b0ba; --taken: #e3b795; --mark: #15171a; --alert: #8f3b00; --alert-ground: #fdf4ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e6e9; --soft: #a0a7b1; --ground: #131518; --panel: #1b1e22; --line: #353a41; --hair: #262a30;
    --accent: #86aef0; --strong: #4f80cf; --bar: #616975; --taken: #8f5f3e; --mark: #ffffff; --alert: #f0b07a; --alert-ground: #2a2018;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1.5rem; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; padding: 0 1.25rem 6rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, nav { max-width: 50rem; margin: 0 auto; }
a { color: var(--accent); text-underline-offset: 0.2em; text-decoration-thickness: 1px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--ground); padding: 0.5rem; }
nav { padding: 1.5rem 0 0; font-size: 0.875rem; }
nav p { display: none; }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
nav a { color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--accent); text-decoration: underline; }
header { padding: 3rem 0 0; }
.name { margin: 0; color: var(--soft); font-size: 0.875rem; }
h1 { margin: 0.25rem 0 1.25rem; font-size: clamp(1.75rem, 5vw, 2.5rem); line-height: 1.15; font-weight: 650; letter-spacing: -0.02em; text-wrap: balance; }
.lead { font-size: 1.0625rem; max-width: 42rem; }
.lead p { margin: 0 0 0.5rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1.25rem; margin: 2rem 0 0; padding: 1.25rem 0; border-block: 1px solid var(--line); }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.figures dt { color: var(--soft); font-size: 0.8125rem; line-height: 1.4; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }
section { margin-top: 4rem; }
h2 { margin: 0 0 1rem; font-size: 1.375rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; }
h3 { margin: 2.5rem 0 0.75rem; font-size: 1rem; font-weight: 650; }
p { margin: 0 0 0.875rem; max-width: 42rem; }
code { font: 0.875em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.alert { max-width: none; padding: 0.875rem 1rem; border-left: 3px solid var(--alert); background: var(--alert-ground); }
figure { margin: 2rem 0; }
figcaption { margin-bottom: 1rem; font-size: 0.875rem; color: var(--soft); }
.key { margin-left: 0.75rem; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.4em; background: var(--strong); }
.key.taken::before { background: var(--taken); }
svg { display: block; overflow: visible; }
svg text { font-size: 13px; fill: var(--ink); }
svg .group { font-weight: 600; font-size: 14px; }
svg .number { font-variant-numeric: tabular-nums; }
svg .tick { font-size: 12px; fill: var(--soft); }
svg .track { fill: var(--hair); }
svg .bar { fill: var(--bar); }
svg .strong { fill: var(--strong); }
svg .taken { fill: var(--taken); }
svg .whisker { stroke: var(--mark); stroke-width: 1.5; }
.caption { margin: 2rem 0 0.5rem; font-size: 0.875rem; color: var(--soft); max-width: none; }
.scroll { overflow-x: auto; margin: 0 0 2rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; line-height: 1.45; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 1.25rem 0.4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--hair); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
.r { text-align: right; }
tbody .r, th code { white-space: nowrap; }
td code { overflow-wrap: break-word; }
td.l:last-child { min-width: 11rem; }
summary { cursor: pointer; }
summary::before { content: "+"; color: var(--soft); display: inline-block; width: 1.25rem; flex: none; }
[open] > summary::before { content: "−"; }
.fold > summary { padding: 0.625rem 0; font-weight: 600; list-style: none; border-top: 1px solid var(--line); }
.fold > summary::-webkit-details-marker { display: none; }
.fold > summary:hover { color: var(--accent); }
.samples + .fold { margin-top: 2.5rem; }
.fold:last-child { border-bottom: 1px solid var(--line); }
.sample { border-top: 1px solid var(--hair); padding: 0.875rem 0; }
details.sample { padding: 0; }
details.sample > summary { display: flex; gap: 0.25rem; padding: 0.5rem 0; font-size: 0.875rem; list-style: none; }
details.sample > summary::-webkit-details-marker { display: none; }
details.sample > summary:hover .first { color: var(--accent); }
details.sample[open] { padding-bottom: 1rem; }
.group { flex: 0 0 8.5rem; color: var(--soft); }
.first { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; unicode-bidi: isolate; }
.facts { margin: 0 0 0.5rem; font-size: 0.8125rem; color: var(--soft); max-width: none; overflow-wrap: anywhere; }
.sample dl { margin: 0; display: grid; grid-template-columns: 6rem minmax(0, 1fr); gap: 0.5rem 1rem; font-size: 0.9375rem; }
.sample dt { color: var(--soft); font-size: 0.8125rem; padding-top: 0.15rem; }
.sample dd { margin: 0; padding: 0.5rem 0.75rem; background: var(--panel); white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 1.25rem; font-size: 0.875rem; color: var(--soft); max-width: none; }
.tools[hidden] { display: none; }
input, select { font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: 3px; padding: 0.25rem 0.5rem; max-width: 100%; }
@media (max-width: 36rem) {
  .sample dl { grid-template-columns: minmax(0, 1fr); gap: 0.25rem; }
  .sample dt { padding-top: 0.5rem; }
  details.sample > summary { flex-wrap: wrap; }
  .group { flex-basis: calc(100% - 2rem); }
  .first { flex-basis: 100%; padding-left: 1.5rem; }
}
@media (min-width: 76rem) {
  body { display: grid; grid-template-columns: 13rem minmax(0, 50rem); justify-content: center; column-gap: 4rem; }
  nav { position: sticky; top: 0; align-self: start; margin: 0; padding: 3.25rem 0 2rem; }
  nav p { display: block; margin: 0 0 1rem; font-weight: 650; }
  nav ul { flex-direction: column; gap: 0.5rem; }
  main { margin: 0; width: 100%; }
  .name { display: none; }
}
@media print { nav, .tools { display: none; } body { display: block; } }
"""

# Shows the fields above a browsable list and hides the rows that do not match.
SCRIPT = """
for (const list of document.querySelectorAll(".browse")) {
  const [tools, find, only] = [".tools", "input", "select"].map((name) => list.querySelector(name));
  const rows = [...list.querySelectorAll("details")];
  const show = () => {
    const text = find.value.toLowerCase();
    for (const row of rows) {
      row.hidden = !(row.textContent.toLowerCase().includes(text) && (!only.value || row.dataset.group === only.value));
    }
    list.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  tools.addEventListener("input", show);
  tools.hidden = false;
  show();
}
"""
