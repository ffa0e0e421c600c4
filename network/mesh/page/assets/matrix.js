// Who reaches whom, as a matrix: a row sends probes, a column answers.

import { $, el } from "./dom.js";
import { all, fastPath, grouping, plan, worst, milliseconds, percent, probeText, stateOf } from "./model.js";
import * as pen from "./draw.js";

const canvas = $("matrix-canvas");
let focus = null; // groups whose nodes are shown
let now = null; // what is drawn: the plan, and its geometry
let at = { row: 0, column: 0 };
let hover = null;
let opens = () => {};

export function start(open) {
  opens = open;
  for (const id of ["matrix-mode", "family"]) $(id).addEventListener("change", draw);
  $("up").addEventListener("click", up);
  canvas.addEventListener("keydown", keydown);
  canvas.addEventListener("focus", () => { hover = null; draw(); });
  canvas.addEventListener("mousemove", (e) => point(e));
  canvas.addEventListener("mouseleave", () => { hover = null; draw(); });
  canvas.addEventListener("click", (e) => {
    const cell = cellAt(e);
    if (!cell) return;
    at = cell;
    enter();
  });
}

// regroup shows other groups.
export function regroup() {
  focus = null;
  at = { row: 0, column: 0 };
}

// up returns to the groups. It is false if they are shown already.
export function up() {
  if (!focus) return false;
  at = { row: focus.row, column: focus.column };
  focus = null;
  draw();
  return true;
}

const inside = (i, length) => Math.max(0, Math.min(length - 1, i));

function keydown(e) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
  if (step) {
    at = { row: inside(at.row + step[0], now.rows.length), column: inside(at.column + step[1], now.columns.length) };
  } else if (e.key === "Home") {
    at.column = 0;
  } else if (e.key === "End") {
    at.column = now.columns.length - 1;
  } else if (e.key === "Enter") {
    enter();
  } else {
    return;
  }
  e.preventDefault();
  hover = null;
  draw();
}

function enter() {
  if (now.byGroup) {
    focus = { row: at.row, column: at.column };
    at = { row: 0, column: 0 };
    draw();
    return;
  }
  const row = now.rows[at.row];
  if (row) opens(row.node.key ?? "");
}

function cellAt(e) {
  if (!now) return null;
  const column = Math.floor((e.offsetX - now.left) / now.size), row = Math.floor((e.offsetY - now.top) / now.size);
  return row >= 0 && column >= 0 && row < now.rows.length && column < now.columns.length ? { row, column } : null;
}

function point(e) {
  const cell = cellAt(e);
  if (cell?.row === hover?.row && cell?.column === hover?.column) return;
  hover = cell;
  draw();
}

function measure(c, units) {
  c.font = pen.font(12);
  return Math.ceil(Math.min(170, Math.max(0, ...units.map((u) => c.measureText(u.name).width)))) + 10;
}

export function draw() {
  if ($("matrix").hidden) return;
  const families = all().families;
  choices(families);
  const next = plan(focus, families.includes($("family").value) ? $("family").value : "");
  const c = canvas.getContext("2d");
  const width = Math.max(320, $("matrix").clientWidth);
  let left = measure(c, next.rows), top = measure(c, next.columns);
  const fits = (margin) => Math.floor((width - margin - 2) / Math.max(1, next.columns.length));
  let size = Math.min(34, fits(left));
  if (size < 10) { // no room for names: those of the cell are below
    left = top = 6;
    size = Math.max(4, fits(left));
  }
  now = { ...next, left, top, size };
  at = { row: inside(at.row, now.rows.length), column: inside(at.column, now.columns.length) };
  paint(pen.surface(canvas, left + now.columns.length * size + 2, top + now.rows.length * size + 2), pen.colours());
  const cell = hover ?? at;
  $("matrix-text").textContent = describe(cell);
  canvas.dataset.outcome = pairAt(cell)?.outcome ?? "none";
  canvas.dataset.size = size;
  $("up").hidden = !focus;
}

const pairAt = (cell) => now.pairs.get(cell.row * now.columns.length + cell.column);

function paint(c, k) {
  const { rows, columns, left, top, size } = now, mode = $("matrix-mode").value;
  const labels = size >= 10, box = size - 1;
  const current = hover ?? at;
  c.fillStyle = k.faint;
  c.fillRect(left, top, columns.length * size - 1, rows.length * size - 1);
  c.fillStyle = k.ground; // lines between the cells
  for (let j = 1; j < columns.length; j++) c.fillRect(left + j * size - 1, top, 1, rows.length * size);
  for (let i = 1; i < rows.length; i++) c.fillRect(left, top + i * size - 1, columns.length * size, 1);
  c.fillStyle = k.line;
  rows.forEach((r, i) => {
    const j = rows === columns ? i : columns.findIndex((x) => x.node && x.node === r.node);
    if (j >= 0) c.fillRect(left + j * size, top + i * size, box, box);
  });
  c.strokeStyle = k.quiet;
  c.lineWidth = 1;
  rows.forEach((r, i) => {
    if (worst(r) !== "missing" || now.byGroup) return;
    const y = top + i * size + box / 2; // its probes are not known
    c.beginPath();
    c.moveTo(left, y);
    c.lineTo(left + columns.length * size - 1, y);
    c.stroke();
  });
  const pairs = [...now.pairs.entries()];
  const slowest = Math.max(1, ...pairs.map(([, p]) => p.rtt));
  for (const [n, p] of pairs) {
    const x = left + (n % columns.length) * size, y = top + Math.floor(n / columns.length) * size;
    cell(c, k, mode, p, x, y, box, slowest);
  }
  if (labels) {
    names(c, k, current);
  }
  c.strokeStyle = k.accent;
  c.lineWidth = 2;
  if (rows.length) c.strokeRect(left + current.column * size - 1, top + current.row * size - 1, size + 1, size + 1);
}

function names(c, k, current) {
  const { rows, columns, left, top, size } = now;
  c.textBaseline = "middle";
  const font = (is) => {
    c.font = pen.font(Math.min(12, size + 1), is ? "600" : "");
    c.fillStyle = is ? k.ink : k.quiet;
  };
  rows.forEach((r, i) => {
    const state = worst(r);
    font(i === current.row);
    if (state === "missing" || state === "degraded") c.fillStyle = k.bad;
    c.textAlign = "right";
    c.fillText(r.name, left - 6, top + i * size + size / 2, left - 8);
  });
  columns.forEach((r, j) => {
    font(j === current.column);
    c.save();
    c.translate(left + j * size + size / 2, top - 5);
    c.rotate(-Math.PI / 2);
    c.textAlign = "left";
    c.fillText(r.name, 0, 0, top - 8);
    c.restore();
  });
}

function cell(c, k, mode, p, x, y, box, slowest) {
  if (mode === "state" || p.outcome === "unreachable" || p.outcome === "waiting") {
    pen.outcome(c, k, p.outcome, x, y, box);
    return;
  }
  const text = (t) => {
    c.fillStyle = k.ink;
    c.font = pen.font(11);
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.fillText(t, x + box / 2, y + box / 2, box - 2);
  };
  if (mode === "path") {
    pen.path(c, k, [...p.paths].sort().at(-1), x, y, box, p.fast === p.links.length);
  } else if (box >= 24) {
    text(mode === "rtt" ? milliseconds(p.rtt) : `${percent(p.lost, p.recent)}%`);
  } else { // the larger, the slower, or the more losses
    const part = mode === "rtt" ? p.rtt / slowest : p.lost / Math.max(1, p.recent);
    const side = Math.max(1, box * (0.2 + 0.8 * Math.sqrt(part)));
    c.fillStyle = mode === "rtt" ? k.accent : k.odd;
    c.fillRect(x + (box - side) / 2, y + (box - side) / 2, side, side);
  }
}

// describe says in words what a cell shows.
function describe(cell) {
  const from = now.rows[cell.row], to = now.columns[cell.column], pair = pairAt(cell);
  if (!from || !to) return "no nodes";
  if (now.byGroup) {
    const of = (u) => `${u.name} (${u.nodes.length} nodes)`;
    const head = `${of(from)} → ${of(to)}`;
    if (!pair) return `${head}\nno node of the one probes a node of the other`;
    const count = (o) => pair.links.filter((l) => l.outcome === o).length;
    return `${head}\n${pair.links.length} probed paths: ${count("reachable")} reachable, ` +
      `${count("lossy")} with losses, ${count("unreachable")} unreachable; at most ${milliseconds(pair.rtt)} ms; ` +
      `${[...pair.paths].sort().join(", ")}${pair.fast ? `, ${pair.fast} by the fast path` : ""}. ` +
      "Enter shows the nodes.";
  }
  const head = `${from.name} → ${to.name}`;
  if (from.node === to.node) return `${head}\n${stateOf(from.node)}`;
  if (!from.node.summary) return `${head}\n${from.name} has not answered, so its probes are not known`;
  if (!pair) return `${head}\nnot probed: each node probes up to four others`;
  return [head, ...pair.links.map(probeText), ...fastPaths(from.node, to.node)].join("\n");
}

// fastPaths says which end of a path uses the fast path, if one of them could.
function fastPaths(from, to) {
  if (!from.summary?.fast_path && !to.summary?.fast_path) return [];
  return [`fast path: ${fastPath(from)} on ${from.name}, ${fastPath(to)} on ${to.name}`];
}

let offered = null;
function choices(families) {
  const key = families.join() + $("matrix-mode").value;
  if (key === offered) return;
  offered = key;
  const chosen = $("family").value;
  const option = (value, text) => el("option", { value }, text);
  $("family").replaceChildren(option("", "both"), ...families.map((f) => option(f, f)));
  $("family").value = families.includes(chosen) ? chosen : "";
  $("family-label").hidden = families.length < 2;
  const entry = (draw, text) => el("li", {}, pen.swatch(draw), text);
  const outcome = (what, text) => entry((c, k, s) => pen.outcome(c, k, what, 0, 0, s), text);
  const path = (name, text) => entry((c, k, s) => pen.path(c, k, name, 0, 0, s), text);
  const entries = {
    state: [outcome("reachable", "reachable"), outcome("lossy", "reachable, with losses")],
    path: [path("vxlan", "vxlan"), path("direct", "direct"), path("wireguard", "wireguard: encrypted"),
      entry((c, k, s) => pen.path(c, k, "vxlan", 0, 0, s, true), "underlined: by the fast path")],
    rtt: [el("li", {}, "ms of the latest answer; where there is no room: the larger, the slower")],
    loss: [el("li", {}, "losses among the latest 32 probes; where there is no room: the larger, the more")],
  }[$("matrix-mode").value];
  $("matrix-legend").replaceChildren(...entries, outcome("unreachable", "unreachable"),
    outcome("waiting", "no result yet"),
    el("li", {}, "— row of a node that has not answered"), el("li", {}, "empty: not probed"));
}

// redraw draws the legend again, too: the colours have changed.
export function redraw() {
  offered = null;
  draw();
}

export const reset = () => { if (focus && focus.row >= grouping().groups.length) focus = null; };
