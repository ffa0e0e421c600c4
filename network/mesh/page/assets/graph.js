// Who reaches whom, as a graph: the nodes, or groups of them, on a circle.

import { $, el } from "./dom.js";
import { plan, worst, outcomes, stateOf, probeText, milliseconds } from "./model.js";
import * as pen from "./draw.js";

const canvas = $("graph-canvas");
let now = null; // what is drawn: the plan, and where its nodes are
let selected = 0;
let opens = () => {};

export function start(open) {
  opens = open;
  canvas.addEventListener("keydown", (e) => {
    const count = now?.rows.length ?? 0;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (step && count) {
      selected = (selected + step + count) % count;
      draw();
    } else if (e.key === "Enter") {
      enter();
    } else {
      return;
    }
    e.preventDefault();
  });
  const nearest = (e) => now?.places.reduce((best, p, i) => {
    const d = Math.hypot(p.x - e.offsetX, p.y - e.offsetY);
    return d < best.d ? { d, i } : best;
  }, { d: 30, i: -1 }).i ?? -1;
  canvas.addEventListener("mousemove", (e) => {
    const i = nearest(e);
    if (i >= 0 && i !== selected) {
      selected = i;
      draw();
    }
  });
  canvas.addEventListener("click", (e) => {
    const i = nearest(e);
    if (i < 0) return;
    selected = i;
    draw();
    enter();
  });
}

function enter() {
  const unit = now?.rows[selected];
  if (unit?.node) opens(unit.node.key ?? "");
}

export function draw() {
  if ($("graph").hidden) return;
  const p = plan(null, "");
  const count = p.rows.length;
  selected = Math.min(selected, Math.max(0, count - 1));
  const labels = count <= 70, margin = labels ? 14 + width(p.rows) : 24;
  const side = Math.max(320, Math.min($("graph").clientWidth, window.innerHeight - 210, 820));
  const middle = side / 2, radius = middle - margin;
  const places = p.rows.map((_, i) => {
    const angle = (2 * Math.PI * i) / count - Math.PI / 2;
    return { x: middle + radius * Math.cos(angle), y: middle + radius * Math.sin(angle), angle };
  });
  now = { ...p, places };
  const c = pen.surface(canvas, side, side), k = pen.colours();
  // The worst last, above the others; those of the selected node above all others of their kind.
  const ends = ([n, pair]) => ({ i: Math.floor(n / count), j: n % count, pair });
  const edges = [...p.pairs.entries()].map(ends).filter((e) => e.i !== e.j);
  const weight = (e) => outcomes.indexOf(e.pair.outcome) * 2 + (e.i === selected || e.j === selected ? 1 : 0);
  edges.sort((a, b) => weight(a) - weight(b));
  for (const e of edges) edge(c, k, e, middle);
  p.rows.forEach((u, i) => {
    const at = places[i];
    c.fillStyle = k.ground;
    c.beginPath();
    c.arc(at.x, at.y, 9, 0, 7);
    if (count <= 70) c.fill();
    pen.state(c, k, worst(u), at.x, at.y, count > 100 ? 3 : 6);
    if (labels) label(c, k, u.name, at, i === selected);
  });
  const at = places[selected];
  if (at) {
    c.strokeStyle = k.accent;
    c.lineWidth = 2;
    c.beginPath();
    c.arc(at.x, at.y, 11, 0, 7);
    c.stroke();
  }
  $("graph-text").textContent = describe();
  legend();
}

// width returns the room that the names need beside the circle.
function width(units) {
  const c = canvas.getContext("2d");
  c.font = pen.font(12, "600");
  return 12 + Math.ceil(Math.min(100, Math.max(...units.map((u) => c.measureText(u.name).width), 0)));
}

// edge draws a link as a curve that bends to one side: the way back is on the other.
function edge(c, k, { i, j, pair }, middle) {
  const a = now.places[i], b = now.places[j];
  const near = i === selected || j === selected;
  const bend = 0.12, x = (a.x + b.x) / 2 + (b.y - a.y) * bend, y = (a.y + b.y) / 2 - (b.x - a.x) * bend;
  c.strokeStyle = { unreachable: k.bad, lossy: k.odd }[pair.outcome] ?? (near ? k.accent : k.line);
  c.lineWidth = pair.outcome === "unreachable" ? 2.5 : near ? 1.75 : 1;
  c.setLineDash({ unreachable: [7, 4], lossy: [2, 3], waiting: [1, 4] }[pair.outcome] ?? []);
  c.beginPath();
  c.moveTo(a.x, a.y);
  c.quadraticCurveTo(x, y, b.x, b.y);
  c.stroke();
  c.setLineDash([]);
  const small = now.rows.length <= 16;
  if (!small && !(near && now.rows.length <= 70)) return;
  const [mx, my] = [(a.x + 2 * x + b.x) / 4, (a.y + 2 * y + b.y) / 4];
  const size = 13;
  if (pair.outcome === "unreachable") pen.outcome(c, k, "unreachable", mx - size / 2, my - size / 2, size,
    pair.fast === pair.links.length);
  else if (pair.paths.size) pen.path(c, k, [...pair.paths].sort().at(-1), mx - size / 2, my - size / 2, size);
}

function label(c, k, name, at, is) {
  c.font = pen.font(12, is ? "600" : "");
  c.fillStyle = k.ink;
  c.textBaseline = "middle";
  const right = Math.cos(at.angle) >= -0.01;
  c.textAlign = right ? "left" : "right";
  c.save();
  c.translate(at.x, at.y);
  c.rotate(right ? at.angle : at.angle + Math.PI);
  c.fillText(name, right ? 15 : -15, 0, 100);
  c.restore();
}

function describe() {
  const unit = now.rows[selected];
  if (!unit) return "no nodes";
  const mine = [...now.pairs.entries()].filter(([n]) => Math.floor(n / now.columns.length) === selected);
  if (now.byGroup) {
    const bad = mine.reduce((sum, [, p]) => sum + p.links.filter((l) => l.outcome === "unreachable").length, 0);
    const slow = Math.max(0, ...mine.map(([, p]) => p.rtt));
    return `${unit.name}: ${unit.nodes.length} nodes, the worst is ${worst(unit)}\n` +
      `${bad} paths unreachable, at most ${milliseconds(slow)} ms`;
  }
  const lines = mine.flatMap(([, p]) => p.links.map((l) => `→ ${l.to.name} ${probeText(l)}`));
  return `${unit.name}: ${stateOf(unit.node)}\n${lines.join("\n")}`;
}

let drawn = false;
function legend() {
  if (drawn) return;
  drawn = true;
  const entry = (draw, text) => el("li", {}, pen.swatch(draw), text);
  const state = (name) => entry((c, k, s) => pen.state(c, k, name, s / 2, s / 2, s / 2 - 2), name);
  const path = (name, text) => entry((c, k, s) => pen.path(c, k, name, 0, 0, s), text);
  const states = ["ready", "degraded", "starting", "missing"].map(state);
  $("graph-legend").replaceChildren(...states, path("vxlan", "path vxlan"),
    path("direct", "path direct"), path("wireguard", "path wireguard: encrypted"),
    entry((c, k, s) => pen.outcome(c, k, "unreachable", 0, 0, s), "unreachable (dashed)"),
    entry((c, k, s) => pen.path(c, k, "vxlan", 0, 0, s, true), "underlined: fast path"),
    el("li", {}, "dotted: with losses"));
}

// redraw draws the legend again, too: the colours have changed.
export function redraw() {
  drawn = false;
  draw();
}
