// The detail of one node.

import { $, el, quiet, row, table, terms, time } from "./dom.js";
import * as told from "./told.js";
import {
  all, byName, encryption, fastPath, milliseconds, outcomeOf, stateClass, stateMark, stateOf, view,
} from "./model.js";

const panel = $("detail");
let key = null; // of the node that is shown
let made = null; // of what
let drawn = 0; // told.version that is shown
let back = null; // what had the focus

export const isOpen = () => key !== null;

// open shows a node, and moves the focus there.
export function open(k) {
  if (key === null) back = document.activeElement;
  key = k;
  made = null;
  told.follow(k, draw);
  draw();
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
}

// close hides the panel. It is false if it is hidden already.
export function close() {
  if (key === null) return false;
  key = made = null;
  told.end();
  panel.hidden = true;
  (back?.isConnected ? back : document.body).focus();
  return true;
}

export function draw() {
  if (key === null) return;
  const n = view.nodes.get(key);
  panel.hidden = false;
  if (n && n === made && told.version === drawn) return;
  const scroll = panel.scrollTop, inside = panel.contains(document.activeElement);
  made = n;
  drawn = told.version;
  panel.replaceChildren(...(n ? content(n) : [el("p", {}, "This node has no lease any more.")]));
  panel.dataset.state = n ? stateOf(n) : "gone";
  panel.scrollTop = scroll;
  if (inside) panel.focus({ preventScroll: true });
}

function content(n) {
  const s = n.summary, state = stateOf(n);
  const shut = el("button", { class: "close" }, "Close");
  shut.addEventListener("click", close);
  const parts = [el("header", {}, el("h2", { id: "detail-name" }, n.name), shut),
    el("p", { class: stateClass[state] ?? "warn" }, `${stateMark[state] ?? "▲"} ${state}`)];
  if (n.findings) {
    parts.push(el("h3", {}, "What is odd"), el("ul", { id: "findings" },
      ...n.findings.map((f) => el("li", { class: f.warning ? "" : "bad" }, f.text))));
  }
  if (s) parts.push(...told.doctor(), ...probes(n), ...repairs(s), ...drops(s), ...told.drops());
  parts.push(el("h3", {}, "The node"), el("dl", {}, ...terms(facts(n)).flatMap((d) => [...d.children])));
  if (s) parts.push(...entries(s));
  return parts;
}

function facts(n) {
  const s = n.summary;
  const list = [["Public IP", n.public_ip?.join(", ")], ["Lease", s?.lease ?? n.key]];
  if (s) {
    const config = s.config && s.config + (s.config_rejected ? ", and refuses a newer one" : "");
    const code = s.fast_path?.code ? `: ${s.fast_path.code}` : "";
    list.push(["Subnets", s.subnets?.join(", ")], ["Version", s.selvaged], ["Kernel", s.kernel],
      ["Started", time(s.started)], [`${s.state} since`, s.state === "starting" ? "" : time(s.since)],
      ["Config", config], ["Backend", s.backend], ["Uplink MTU", s.mtu], ["Pod MTU", s.pod_mtu],
      ["Zone", s.zone], ["Encrypted peers", encryption(n)], ["Fast path", fastPath(n) + code],
      ["Peers", peers(s.peers)],
      ["Repairs", `${s.repairs.lately} in 10 minutes, ${s.repairs.total} since the start`],
      ["Policy drops", `${s.policy_drops.lately} in 10 minutes, ${s.policy_drops.total} since the start`]);
  }
  if (n.certificate_ends) list.push(["Certificate until", time(n.certificate_ends)]);
  return list;
}

function peers(p) {
  const parts = [`${p.programmed} programmed`];
  for (const [name, text] of [["pending", "pending"], ["grace", "in grace period"], ["quarantined", "rejected"]]) {
    if (p[name]) parts.push(`${p[name]} ${text}`);
  }
  return parts.join(", ");
}

function probes(n) {
  const links = all().links.filter((l) => l.from === n).sort((a, b) => byName(a.to, b.to));
  const rows = links.map((l) => {
    const p = l.probe, outcome = outcomeOf(p);
    const kind = { unreachable: "bad", lossy: "warn" }[outcome] ?? "";
    const state = el("td", { class: kind }, outcome === "unreachable" ? "✕ unreachable" : p.state);
    const latency = p.rtt_ns && outcome !== "unreachable" ? milliseconds(p.rtt_ns) + " ms" : "-";
    return row(l.to.name, l.family, state, latency,
      `${p.recent_lost} of ${p.recent}`, (p.path ?? "-") + (p.fast_path === "in use" ? ", fast" : ""));
  });
  const off = (n.summary.probes ?? []).filter((p) => p.off).map((p) => quiet(`${p.family} is not probed: ${p.off}`));
  return [...table("Probes", ["To", "Family", "State", "Latency", "Lost", "Path"], rows), ...off];
}

function entries(s) {
  const pending = (e) => el("td", { class: e.pending ? "bad" : "" }, e.pending);
  const rows = (s.entries ?? []).map((e) => row(e.kind, e.desired, pending(e)));
  return table("Kernel entries", ["Kind", "Desired", "Out of sync"], rows);
}

// drops lists what policies denied, the most first.
function drops(s) {
  if (!s.drops_by) return [];
  const rows = s.drops_by.map((d) => row(d.policy ?? "-", d.direction, d.cause ?? "-", d.lately));
  return table("Policy drops in 10 minutes", ["Policy", "Direction", "Cause", "Packets"], rows);
}

// repairs lists the latest repairs: those of one moment and kind as one, until the node has told what they were.
function repairs(s) {
  const list = [];
  for (const r of told.repairs() ?? s.last_repairs ?? []) {
    const last = list.at(-1), at = time(r.at);
    if (last && last.at === at && last.kind === r.kind && last.what === r.what && last.key === r.key) last.count++;
    else list.push({ at, kind: r.kind, what: r.what, key: r.key, by: r.by, count: 1, when: r.at });
  }
  const text = (r) => [r.kind, r.key, r.what].filter(Boolean).join(" ") + (r.count > 1 ? ` ×${r.count}` : "") +
    (r.by ? `, by ${r.by}` : "");
  const item = (r) => el("li", {}, el("time", { datetime: r.when }, r.at), text(r));
  const timeline = () => el("ol", { class: "timeline", id: "repairs" }, ...list.map(item));
  return [el("h3", {}, "Latest repairs"), list.length ? timeline() : quiet("none since the start")];
}
