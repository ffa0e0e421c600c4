// The table of the nodes, what is odd first.

import { $, el } from "./dom.js";
import { view, byRank, stateOf, stateClass, stateMark, encryption, fastPath, unreachable } from "./model.js";

const few = 300; // rows; more only if asked for
const rows = new Map(); // by key: the row, and of what it was made
let everything = false;
let selected = null; // key

export function start(open) {
  $("filter").addEventListener("input", draw);
  $("odd").addEventListener("change", draw);
  $("all").addEventListener("click", () => { everything = true; draw(); });
  $("rows").addEventListener("click", (e) => {
    const row = e.target.closest("tr");
    if (row) open(row.dataset.key);
  });
  $("rows").addEventListener("focusin", (e) => select(e.target.dataset.key));
  $("rows").addEventListener("keydown", (e) => {
    const row = e.target.closest("tr");
    const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling,
      Home: row?.parentNode.firstElementChild, End: row?.parentNode.lastElementChild }[e.key];
    if (next) {
      e.preventDefault();
      next.focus();
    } else if (e.key === "Enter" && row) {
      open(row.dataset.key);
    }
  });
}

function select(key) {
  selected = key;
  for (const [k, r] of rows) {
    r.row.tabIndex = k === key ? 0 : -1;
    r.row.setAttribute("aria-selected", k === key);
  }
}

// focus moves the keyboard to the table.
export function focus() {
  (rows.get(selected)?.row ?? $("rows").firstElementChild)?.focus();
}

function matches(n, words, odd) {
  if (odd && !n.findings) return false;
  if (!words.length) return true;
  const findings = (n.findings ?? []).map((f) => f.text);
  const text = [n.name, n.key, stateOf(n), ...(n.public_ip ?? []), ...findings].join(" ").toLowerCase();
  return words.every((w) => text.includes(w));
}

export function draw() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const nodes = [...view.nodes.values()].filter((n) => matches(n, words, $("odd").checked)).sort(byRank);
  const shown = everything ? nodes : nodes.slice(0, few);
  $("all").hidden = shown.length === nodes.length;
  $("all").textContent = `Show all ${nodes.length} nodes`;
  $("shown").textContent = nodes.length === view.nodes.size ? "" : `${nodes.length} of ${view.nodes.size} nodes`;
  const keep = new Set();
  let before = null;
  for (const n of shown) {
    const key = n.key ?? "";
    keep.add(key);
    let r = rows.get(key);
    if (!r) {
      rows.set(key, (r = { row: el("tr", { "data-key": key }), made: null }));
      r.row.dataset.key = key;
      r.row.tabIndex = -1;
    }
    if (r.made !== n) {
      r.row.replaceChildren(...cells(n));
      r.row.dataset.state = stateOf(n);
      r.made = n;
    }
    const place = before ? before.nextSibling : $("rows").firstChild;
    if (place !== r.row) {
      const focused = document.activeElement === r.row;
      $("rows").insertBefore(r.row, place);
      if (focused) r.row.focus();
    }
    before = r.row;
  }
  for (const [key, r] of rows) {
    if (!keep.has(key)) {
      r.row.remove();
      rows.delete(key);
    }
  }
  if (!rows.has(selected) && before) {
    selected = null;
    $("rows").firstElementChild.tabIndex = 0;
  }
}

function cells(n) {
  const s = n.summary, state = stateOf(n), lost = unreachable(n);
  const cell = (text, kind) => el("td", { class: kind }, text ?? "-");
  const count = (x) => cell(s ? x.lately : "-", "number");
  const notes = el("td");
  (n.findings ?? []).forEach((f, i) => {
    if (i) notes.append("; ");
    notes.append(el("span", { class: f.warning ? "" : "bad" }, f.text));
  });
  return [
    el("td", {}, n.name), cell(`${stateMark[state] ?? "▲"} ${state}`, stateClass[state] ?? "warn"), cell(s?.selvaged),
    cell(s?.backend), cell(encryption(n)), cell(fastPath(n)), cell(lost.text, lost.lost > 0 ? "bad" : ""),
    count(s?.repairs), count(s?.policy_drops), notes,
  ];
}
