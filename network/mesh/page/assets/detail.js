// The detail of one node.

import { $, el, terms, time } from "./dom.js";
import { all, view, stateOf, stateClass, stateMark, encryption, fastPath, milliseconds, outcomeOf } from "./model.js";

const panel = $("detail");
let key = null; // of the node that is shown
let made = null; // of what
let back = null; // what had the focus

export const isOpen = () => key !== null;

// open shows a node, and moves the focus there.
export function open(k) {
  if (key === null) back = document.activeElement;
  key = k;
  made = null;
  draw();
  panel.focus();
}

// close hides the panel. It is false if it is hidden already.
export function close() {
  if (key === null) return false;
  key = made = null;
  panel.hidden = true;
  (back?.isConnected ? back : document.body).focus();
  return true;
}

export function draw() {
  if (key === null) return;
  const n = view.nodes.get(key);
  panel.hidden = false;
  if (n && n === made) return;
  const scroll = panel.scrollTop, inside = panel.contains(document.activeElement);
  made = n;
  panel.replaceChildren(...(n ? content(n) : [el("p", {}, "This node has no lease any more.")]));
  panel.dataset.state = n ? stateOf(n) : "gone";
  panel.scrollTop = scroll;
  if (inside) panel.focus();
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
  parts.push(el("dl", {}, ...terms(facts(n)).flatMap((d) => [...d.children])));
  if (!s) return parts;
  parts.push(...probes(n), ...entries(s), ...repairs(s));
  return parts;
}

function facts(n) {
  const s = n.summary;
  const list = [["Public IP", n.public_ip?.join(", ")], ["Lease", s?.lease ?? n.key]];
  if (s) {
    list.push(["Subnets", s.subnets?.join(", ")], ["Version", s.selvaged], ["Kernel", s.kernel], ["Started", time(s.started)],
      [`${s.state} since`, s.state === "starting" ? "" : time(s.since)], ["Config", s.config && s.config + (s.config_rejected ? ", and refuses a newer one" : "")],
      ["Backend", s.backend], ["Uplink MTU", s.mtu], ["Pod MTU", s.pod_mtu], ["Encrypted peers", encryption(n)], ["Fast path", fastPath(n) + (s.fast_path?.code ? `: ${s.fast_path.code}` : "")],
      ["Peers", peers(s.peers)], ["Repairs", `${s.repairs.lately} in 10 minutes, ${s.repairs.total} since the start`],
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

function table(heads, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows));
}

function probes(n) {
  const rows = all().links.filter((l) => l.from === n).map((l) => {
    const p = l.probe, outcome = outcomeOf(p);
    const kind = { unreachable: "bad", lossy: "warn" }[outcome] ?? "";
    return el("tr", {}, el("td", {}, l.to.name), el("td", {}, l.family), el("td", { class: kind }, outcome === "unreachable" ? "✕ unreachable" : p.state),
      el("td", {}, p.rtt_ns ? milliseconds(p.rtt_ns) + " ms" : "-"), el("td", {}, `${p.recent_lost} of ${p.recent}`), el("td", {}, p.path ?? "-"));
  });
  const off = (n.summary.probes ?? []).filter((p) => p.off).map((p) => el("p", { class: "quiet" }, `${p.family} is not probed: ${p.off}`));
  return [el("h3", {}, "Probes"), ...off, rows.length ? table(["To", "Family", "State", "Latency", "Lost", "Path"], rows) : el("p", { class: "quiet" }, "none")];
}

function entries(s) {
  const rows = (s.entries ?? []).map((e) => el("tr", {}, el("td", {}, e.kind), el("td", {}, e.desired), el("td", { class: e.pending ? "bad" : "" }, e.pending)));
  return [el("h3", {}, "Kernel entries"), rows.length ? table(["Kind", "Desired", "Out of sync"], rows) : el("p", { class: "quiet" }, "none")];
}

// repairs lists the latest repairs, those of one moment and kind as one.
function repairs(s) {
  const list = [];
  for (const r of s.last_repairs ?? []) {
    const last = list.at(-1), at = time(r.at);
    if (last && last.at === at && last.kind === r.kind && last.what === r.what) last.count++;
    else list.push({ at, kind: r.kind, what: r.what, count: 1, when: r.at });
  }
  return [el("h3", {}, "Latest repairs"), list.length
    ? el("ol", { class: "timeline", id: "repairs" }, ...list.map((r) => el("li", {}, el("time", { datetime: r.when }, r.at), `${r.kind} ${r.what}${r.count > 1 ? ` ×${r.count}` : ""}`)))
    : el("p", { class: "quiet" }, "none since the start")];
}
