// The audit page at work: a person accepts, changes, adds or removes statements, and saves them as evidence.csv.
// Nothing is loaded or sent. Offsets count Unicode characters, as in Python, not the UTF-16 units of this language.
"use strict";
(() => {
const {columns, findings, values, studies} = JSON.parse(document.getElementById("data").textContent);
const FIELDS = columns.filter(name => !["study", "extractor", "verified", "votes"].includes(name));
const NORMAL = "No Finding", CORRECTED = "corrected";
const bar = document.getElementById("bar");
let study = 0, row = 0;  // Where the reader is.
let editing = null;  // {number: of the statement, -1 for a new one}
let unsaved = false;
const undo = [];

function make(tag, given, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}

function take(item, lines) {
  // Sets a study's statements from lines of the table; one without a finding says that there is none.
  item.statements = lines.filter(line => line.finding).map(line => ({...line, state: ""}));
  item.read = lines.some(line => !line.finding && line.verified === "yes");
}

for (const item of studies) {
  item.points = Array.from(item.report);
  take(item, item.lines);
  item.section = document.getElementById(`study-${studies.indexOf(item)}`);
}

const decided = line => line.state !== "" || line.verified === "yes";
const isRead = item => item.statements.length ? item.statements.every(decided) : item.read;
const kept = item => item.statements.filter(line => line.state !== "removed");
const describe = line => [line.certainty, line.side, line.place, line.severity, line.change].filter(Boolean).join(", ");

// --- Drawing ---------------------------------------------------------------------------------------------------------

function drawReport(item, number) {
  const box = item.section.querySelector(".report");
  const lines = kept(item).filter(line => line.finding !== NORMAL);
  const cuts = [...new Set([0, item.points.length, ...lines.flatMap(line => [+line.start, +line.end])])];
  cuts.sort((a, b) => a - b);
  const current = number === study ? item.statements[row] : null;
  box.replaceChildren(...cuts.slice(1).map((end, i) => {
    const start = cuts[i], text = item.points.slice(start, end).join("");
    const here = lines.filter(line => line.start <= start && end <= line.end);
    if (!here.length) return document.createTextNode(text);
    const certainty = values.certainty.find(value => here.some(line => line.certainty === value));
    return make("mark", {class: certainty + (here.includes(current) ? " current" : ""),
                         title: here.map(line => `${line.finding} (${describe(line)})`).join("; ")}, text);
  }));
}

function drawStudy(number) {
  const item = studies[number], here = number === study;
  drawReport(item, number);
  const rows = item.statements.map((line, i) => make("li",
    {class: `statement ${line.state}${here && i === row ? " here" : ""}`, tabindex: here && i === row ? 0 : -1,
     onclick: event => { if (!event.target.closest("button, form")) go(number, i); }},
    make("span", {class: `certainty ${line.certainty}`}, line.certainty), " ",
    make("strong", null, line.finding), " ", describe({...line, certainty: ""}),
    line.quote ? make("q", null, line.quote) : null,
    line.votes ? make("span", {class: "state"}, `${line.votes} votes`) : null,
    make("span", {class: "state"}, line.state || (line.verified === "yes" ? "accepted before" : "")),
    make("span", {class: "buttons"}, button("Accept", () => { go(number, i); accept(); }),
      line.finding === NORMAL ? null : button("Certainty", () => { go(number, i); turn(); }),
      line.finding === NORMAL ? null : button("Edit", () => { go(number, i); edit(i); }),
      button(line.state === "removed" ? "Restore" : "Remove", () => { go(number, i); remove(); })),
    editing && here && editing.number === i ? form() : null));
  if (!rows.length) {
    rows.push(make("li", {class: `statement${here ? " here" : ""}`, tabindex: here ? 0 : -1}, "No evidence. ",
      make("span", {class: "state"}, item.read ? "accepted" : ""),
      make("span", {class: "buttons"}, button("Accept", () => { go(number, 0); accept(); }))));
  }
  if (editing && here && editing.number < 0) rows.push(make("li", {class: "statement"}, form()));
  item.section.querySelector(".evidence").replaceChildren(
    make("ul", {class: "statements", "aria-label": `Statements of ${item.study}`}, ...rows),
    make("p", {class: "buttons"}, button("Add a statement", () => add(number)),
      button("Accept the report", () => { go(number, 0); acceptAll(); })));
  item.section.classList.toggle("read", isRead(item));
}

function button(text, act) {
  return make("button", {type: "button", tabindex: -1, onclick: act}, text);
}

function drawBar(said = "") {
  const changes = studies.flatMap(item => item.statements)
    .filter(line => ["changed", "added", "removed"].includes(line.state)).length;
  bar.querySelector(".count").textContent =
    `${studies.filter(isRead).length} of ${studies.length} reports read, ${changes} corrections. ${said}`;
}

function go(toStudy, toRow, focus = true) {
  const before = study;
  if (editing && (toStudy !== study || toRow !== row)) editing = null;
  study = Math.max(0, Math.min(studies.length - 1, toStudy));
  row = Math.max(0, Math.min(studies[study].statements.length - 1, toRow));
  if (before !== study) drawStudy(before);
  drawStudy(study);
  drawBar();
  if (focus) {
    const here = studies[study].section.querySelector(".here");
    here.focus({preventScroll: true});
    if (before !== study) studies[study].section.scrollIntoView({block: "start"});
    here.scrollIntoView({block: "nearest"});
  }
}

// --- Decisions -------------------------------------------------------------------------------------------------------

function change(act) {
  // Does it to the study at hand, so that it can be undone.
  const item = studies[study];
  undo.push({study, row, statements: item.statements.map(line => ({...line})), read: item.read});
  act(item);
  unsaved = true;
}

function step(by) {
  const next = row + by, last = studies[study].statements.length - 1;
  if (next > Math.max(last, 0)) return study + 1 < studies.length ? go(study + 1, 0) : go(study, row);
  if (next < 0) return study ? go(study - 1, Infinity) : go(study, row);
  go(study, next);
}

function accept() {
  change(item => {
    const line = item.statements[row];
    if (!line) item.read = true;
    else if (line.state === "") line.state = "accepted";
  });
  step(1);
}

function acceptAll() {
  change(item => {
    item.read = true;
    for (const line of item.statements) line.state = line.state || "accepted";
  });
  go(Math.min(study + 1, studies.length - 1), 0);
}

function correct(line, given) {
  // Gives a statement other values; one that is as it was is accepted.
  line.was = line.was || {...line};
  Object.assign(line, given);
  if (line.state === "added") return;
  line.state = FIELDS.some(name => String(line[name]) !== String(line.was[name])) ? "changed" : "accepted";
}

function turn() {
  const line = studies[study].statements[row];
  if (!line || line.finding === NORMAL) return;
  const after = values.certainty[(values.certainty.indexOf(line.certainty) + 1) % values.certainty.length];
  change(() => correct(line, {certainty: after}));
  go(study, row);
}

function remove() {
  const line = studies[study].statements[row];
  if (!line) return;
  change(item => {
    if (line.state === "added") item.statements.splice(row, 1);
    else if (line.state === "removed") line.state = line.before;
    else { line.before = line.state; line.state = "removed"; }
  });
  go(study, row);
}

function takeBack() {
  const last = undo.pop();
  if (!last) return;
  editing = null;
  studies[last.study].statements = last.statements;
  studies[last.study].read = last.read;
  go(last.study, last.row);
}

// --- The form --------------------------------------------------------------------------------------------------------

function places(item, quote) {
  // [{start, text}] of where the words stand. Any white space stands for any other: a form changes line breaks.
  const words = quote.trim().split(/\s+/).filter(Boolean).map(word => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  return words.length ? [...item.report.matchAll(new RegExp(words.join("\\s+"), "gu"))].map(
    ({0: text, index}) => ({start: Array.from(item.report.slice(0, index)).length, text})) : [];
}

function selected() {
  // {number: of the report, quote, start} of the words that are selected in a report, or null.
  const chosen = getSelection();
  if (!chosen.rangeCount || chosen.isCollapsed) return null;
  const inside = chosen.getRangeAt(0).commonAncestorContainer;
  const number = studies.findIndex(item => item.section.querySelector(".report").contains(inside));
  if (number < 0) return null;
  const box = studies[number].section.querySelector(".report");
  const range = chosen.getRangeAt(0), before = document.createRange(), text = range.toString(), quote = text.trim();
  before.selectNodeContents(box);
  before.setEnd(range.startContainer, range.startOffset);
  return quote && {number, quote, start: Array.from(before.toString() + text.slice(0, text.indexOf(quote))).length};
}

function add(number) {
  const words = selected();  // Before the report is drawn anew.
  const to = number ?? words?.number ?? study;
  go(to, to === study ? row : 0);
  edit(-1, words?.number === to ? {quote: words.quote, start: words.start} : {});
}

function edit(number, words) {
  const line = number < 0 ? {certainty: "present", ...words} : studies[study].statements[number];
  if (!line || line.finding === NORMAL) return;
  editing = {number, values: {...line}};
  drawStudy(study);
  const node = studies[study].section.querySelector("form");
  node.elements.finding.focus();
  node.scrollIntoView({block: "nearest"});
}

function form() {
  const line = editing.values, item = studies[study];
  const field = (name, input) => make("label", {class: name}, name, input);
  const choice = name => field(name, make("select", {name}, ...values[name].map(value =>
    make("option", {value, selected: value === (line[name] || "")}, value || "-"))));
  const quote = make("textarea", {name: "quote", rows: 2, oninput: () => where(), onkeydown: event => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); node.requestSubmit(); }
  }}, line.quote || "");
  const start = make("select", {name: "start"});
  const wrong = make("p", {role: "alert", class: "warn"});
  function where(at = line.start) {
    start.replaceChildren(...places(item, quote.value).map((place, i) =>
      make("option", {value: place.start, selected: place.start === +at}, `${i + 1}, at ${place.start}`)));
    start.parentElement.hidden = start.options.length < 2;
  }
  const node = make("form", {onsubmit: event => { event.preventDefault(); apply(node, wrong); }},
    field("finding", make("input", {name: "finding", list: "findings", value: line.finding || "", autocomplete: "off"})),
    choice("certainty"), choice("side"),
    field("place", make("input", {name: "place", value: line.place || "", autocomplete: "off"})),
    choice("severity"), choice("change"), field("quote", quote),
    make("label", {class: "start"}, "which of these words", start), wrong,
    make("span", {class: "buttons"}, make("button", {type: "submit"}, "Apply"), button("Cancel", cancel)));
  node.fill = found => { quote.value = found.quote; where(found.start); };
  where();
  return node;
}

function apply(node, wrong) {
  const given = Object.fromEntries([...new FormData(node)].map(([name, value]) => [name, value.trim()]));
  const item = studies[study], number = editing.number;
  const finding = findings.find(name => name.toLowerCase() === given.finding.toLowerCase());
  let line = {...given, finding};
  if (!finding) { wrong.textContent = "This is no finding of the vocabulary: choose one of the list."; return; }
  if (finding === NORMAL) {
    line = Object.fromEntries(FIELDS.map(name => [name, ""]));
    Object.assign(line, {finding, certainty: "present"});
  } else {
    const place = places(item, given.quote).find(one => String(one.start) === given.start);
    if (!place) { wrong.textContent = "These words are not in the report."; return; }
    line.quote = place.text;
    line.end = String(place.start + Array.from(place.text).length);
  }
  const same = other => FIELDS.every(name => String(other[name]) === String(line[name]));
  if (item.statements.some((other, i) => i !== number && other.state !== "removed" && same(other))) {
    wrong.textContent = "The report has this statement already."; return;
  }
  editing = null;
  change(() => {
    if (number >= 0) correct(item.statements[number], line);
    else item.statements.push({...line, extractor: CORRECTED, verified: "", state: "added"});
  });
  go(study, number < 0 ? item.statements.length - 1 : number);
}

function cancel() {
  editing = null;
  go(study, row);
}

document.addEventListener("selectionchange", () => {
  const node = editing && studies[study].section.querySelector("form"), found = node && selected();
  if (found?.number === study) node.fill(found);
});

// --- The file --------------------------------------------------------------------------------------------------------

// What a spreadsheet would take for a formula stands behind a quote, as in the build's tables.
const FORMULA = /^'*[=+\-@\t\r]/;
const quoted = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const cell = text => quoted(FORMULA.test(text) ? "'" + text : text);
const plain = text => text.startsWith("'") && FORMULA.test(text) ? text.slice(1) : text;

function linesOf(item) {
  const rows = kept(item).map(line => ({...line, study: item.study,
    extractor: ["changed", "added"].includes(line.state) ? CORRECTED : line.extractor,
    votes: ["changed", "added"].includes(line.state) ? "" : line.votes, verified: decided(line) ? "yes" : ""}));
  const nothing = {...Object.fromEntries(columns.map(name => [name, ""])), study: item.study, extractor: item.extractor,
                   verified: isRead(item) ? "yes" : ""};
  return rows.length ? rows : [nothing];
}

function save() {
  const rows = studies.flatMap(linesOf).map(line => columns.map(name => cell(String(line[name] ?? ""))).join(","));
  const url = URL.createObjectURL(new Blob([[columns.join(","), ...rows, ""].join("\n")], {type: "text/csv"}));
  make("a", {href: url, download: "evidence.csv"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  unsaved = false;
  drawBar(`Saved ${rows.length} lines.`);
}

function parse(text) {
  const rows = [[]];
  const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy;
  for (let found; pattern.lastIndex < text.length && (found = pattern.exec(text));) {
    rows.at(-1).push(plain(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"')));
    if (found[3] !== ",") rows.push([]);
  }
  return rows.filter(cells => cells.length > 1);
}

async function open(file) {
  if (!file) return;
  const [header, ...rows] = parse((await file.text()).replace(/^\ufeff/, ""));
  if (!header || columns.some(name => !header.includes(name))) return drawBar("This file is no table of evidence.");
  const found = new Map();
  for (const cells of rows) {
    const line = Object.fromEntries(header.map((name, i) => [name, cells[i] ?? ""]));
    found.set(line.study, [...(found.get(line.study) || []), line]);
  }
  const here = studies.filter(item => found.has(item.study));
  for (const item of here) {
    take(item, found.get(item.study));
    for (const line of item.statements) {
      if (line.verified === "yes" && line.extractor === CORRECTED) line.state = "changed";
    }
  }
  undo.length = 0;
  editing = null;
  studies.forEach((_, number) => drawStudy(number));
  go(0, 0);
  drawBar(`Opened: ${here.length} of these reports, ${found.size - here.length} others left out.`);
}

const chooser = make("input", {type: "file", accept: ".csv,text/csv", hidden: true,
                               onchange: () => open(chooser.files[0]).then(() => { chooser.value = ""; })});

// --- Keys ------------------------------------------------------------------------------------------------------------

const KEYS = {
  ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1),
  n: () => go(study + 1, 0), p: () => go(study - 1, 0), a: accept, A: acceptAll, c: turn, r: remove, Delete: remove,
  e: () => edit(row), Enter: () => edit(row), i: () => add(), z: takeBack, s: save, o: () => chooser.click(),
  "?": () => { const help = document.getElementById("keys"); help.open = !help.open; },
};

document.addEventListener("keydown", event => {
  if (event.key === "Escape" && editing) return cancel();
  if (event.key === "s" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); return save(); }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, button, summary")) return;
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });

bar.querySelector(".buttons").append(button("Save evidence.csv", save), button("Open a saved one", () => chooser.click()),
                                     chooser);
bar.hidden = false;
document.body.append(make("datalist", {id: "findings"}, ...findings.map(value => make("option", {value}))));
studies.forEach((_, number) => drawStudy(number));
go(0, 0, false);
})();
