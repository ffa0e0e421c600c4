// The page: it follows the events, and draws the view that is chosen.

import { $, el, terms, time } from "./dom.js";
import { apply, view } from "./model.js";
import * as nodes from "./nodes.js";
import * as matrix from "./matrix.js";
import * as graph from "./graph.js";
import * as detail from "./detail.js";

const words = { zone: "zones", prefix: "prefixes of the public IPs" };
const views = { nodes, matrix, graph };
let chosen = "nodes";
let received = 0; // when the last event came
let drawing = false;

// draw draws once for however much has changed before the browser's next frame.
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    overall();
    views[chosen].draw();
    detail.draw();
    document.body.dataset.drawn = view.header?.at ?? "";
  });
}

function choose(name, focus) {
  chosen = name;
  for (const other of Object.keys(views)) {
    $(other).hidden = other !== name;
    $("tab-" + other).setAttribute("aria-selected", other === name);
    $("tab-" + other).tabIndex = other === name ? 0 : -1;
  }
  history.replaceState(null, "", "#" + name);
  views[name].draw();
  if (focus) (name === "nodes" ? nodes.focus : () => $(name + "-canvas").focus({ preventScroll: true }))();
}

function overall() {
  const h = view.header;
  if (!h) return;
  const c = h.counts;
  const count = (n, text, kind) => (n ? [el("li", { class: kind }, `${n} ${text}`)] : []);
  $("counts").replaceChildren(...count(c.nodes, c.nodes === 1 ? "node" : "nodes", ""),
    ...count(c.ready, "ready", "good"), ...count(c.degraded, "degraded", "bad"),
    ...count(c.starting, "starting", "warn"), ...count(c.missing, "missing", "bad"));
  const tally = (all) => (all ?? []).map((t) => `${t.value} on ${t.nodes}`).join(", ");
  const refused = [...view.nodes.values()].filter((n) => n.summary?.config_rejected).map((n) => n.name);
  const more = refused.length > 8 ? ` and ${refused.length - 8} more` : "";
  $("cluster").replaceChildren(...terms([["Networks", (h.networks ?? []).join(", ")], ["Config", tally(h.configs)],
    ["Versions", tally(h.versions)], ["Refused by", refused.slice(0, 8).join(", ") + more]]));
  $("problem").hidden = !h.error;
  $("problem").textContent = h.error ? `The nodes could not be asked; what follows is older. ${h.error}` : "";
  offer(h.groupings ?? []);
  document.title = c.nodes && c.ready < c.nodes ? `(${c.nodes - c.ready}) selvage mesh` : "selvage mesh";
}

// offer lets the user choose between several ways to show many nodes.
let offered = "";
function offer(groupings) {
  const key = groupings.map((g) => g.by).join();
  if (key === offered) return;
  offered = key;
  $("grouping").replaceChildren(...groupings.map((g) => el("option", { value: g.by }, words[g.by] ?? g.by)));
  $("grouping-label").hidden = groupings.length < 2;
  view.grouping = $("grouping").value;
}

// live says how old the view is.
function live() {
  const h = view.header;
  const late = received && Date.now() - received > 2 * ((h?.rest_ms ?? 0) + (h?.took_ms ?? 0)) + 30000;
  const lost = source.readyState !== EventSource.OPEN || late;
  $("live").classList.toggle("lost", Boolean(lost));
  const at = h && !h.at.startsWith("0001") ? `as of ${time(h.at)}` : "asking the nodes";
  $("live").textContent = lost ? `not connected, retrying; ${at}` : `live, ${at}`;
}

let source;
function follow() {
  source = new EventSource("events");
  const take = (whole) => (e) => {
    received = Date.now();
    apply(JSON.parse(e.data), whole);
    matrix.reset();
    live();
    draw();
  };
  source.addEventListener("view", take(true));
  source.addEventListener("change", take(false));
  source.addEventListener("open", live);
  source.addEventListener("error", () => {
    live();
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000); // refused: too many pages
  });
}

for (const name of Object.keys(views)) {
  const tab = $("tab-" + name);
  tab.addEventListener("click", () => choose(name));
  tab.addEventListener("keydown", (e) => {
    const names = Object.keys(views), step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const next = names[(names.indexOf(name) + step + names.length) % names.length];
    choose(next);
    $("tab-" + next).focus();
  });
  views[name].start(detail.open);
}
$("grouping").addEventListener("change", () => {
  view.grouping = $("grouping").value;
  matrix.regroup();
  draw();
});
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey) return;
  if (e.key === "Escape") {
    if (!detail.close() && chosen === "matrix") matrix.up();
    return;
  }
  if (e.target instanceof HTMLInputElement || e.target instanceof HTMLSelectElement) return;
  const name = { 1: "nodes", 2: "matrix", 3: "graph" }[e.key];
  if (name) choose(name, true);
  if (e.key === "/") {
    choose("nodes");
    $("filter").focus();
    e.preventDefault();
  }
});
const again = () => { matrix.redraw(); graph.redraw(); };
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
choose(location.hash.slice(1) in views ? location.hash.slice(1) : "nodes");
follow();
setInterval(live, 1000);
