// The detail of a node. The page's server requests it from the node only while it is open.

import { el, quiet, row, table, time } from "./dom.js";

let source = null;
let latest = null; // the latest answer
export let version = 0; // grows with each change

// follow asks for a node's detail, and calls changed after each change, until end.
export function follow(key, changed) {
  end();
  const mine = (source = new EventSource("detail?key=" + encodeURIComponent(key)));
  const take = (answer) => {
    if (source !== mine) return;
    latest = answer;
    version++;
    changed();
  };
  mine.addEventListener("detail", (e) => take(JSON.parse(e.data)));
  mine.addEventListener("error", () => {
    if (mine.readyState === EventSource.CLOSED) take({ text: "this page gets no details: too many are open" });
  });
}

export function end() {
  source?.close();
  source = latest = null;
  version++;
}

// repairs returns the latest repairs with keys and causes; undefined: the node has not told them.
export const repairs = () => latest?.detail?.repairs ?? undefined;

// doctor says what selvaged doctor has found on the node.
export function doctor() {
  const head = el("h3", {}, "What doctor finds");
  const says = (text) => [head, el("p", { class: "quiet", id: "doctor" }, text)];
  if (!latest) return says("asking the node");
  const d = latest.detail;
  if (!d) return says(latest.text || latest.code || "the node does not tell");
  const e = d.examination;
  if (d.examination_off) return says(`not examined: ${d.examination_off}`);
  if (!e) return says("the node examines itself");
  if (e.error) return says(`the examination failed: ${e.error}`);
  const items = (e.findings ?? []).map((f) => el("li", { class: f.level === "failure" ? "bad" : "warn" },
    `${f.level} ${f.check}: ${f.evidence}`, ...(f.advice ? [el("div", { class: "advice" }, f.advice)] : [])));
  const again = d.examining ? ", and examines itself again" : "";
  return [head, el("ul", { id: "doctor" }, ...items,
    el("li", { class: "quiet" }, `${e.passed} checks passed at ${time(e.at)}${again}; other nodes were not probed`))];
}

// named names an end of a packet: the pod, or the address.
const named = (e, port) => (e.pod || e.address) + (port ? `:${port}` : "");

// drops lists the latest packets that policies denied.
export function drops() {
  const d = latest?.detail;
  if (!d) return [];
  const title = "Latest denied packets";
  if (d.drops_off) return [el("h3", {}, title), quiet("no network policies are enforced here")];
  const rule = (x) => (x.rule === undefined ? "" : ` rule ${x.rule}`);
  const policy = (x) => (x.policy ? x.policy + rule(x) : (x.isolated ?? []).join(", ")) || x.cause;
  const rows = (d.drops ?? []).map((x) => row(time(x.at), named(x.source), named(x.destination, x.destination_port),
    x.protocol, `${x.direction}: ${policy(x)}`));
  const all = table(title, ["At", "From", "To", "Protocol", "Denied by"], rows);
  if (rows.length) all[1].id = "denied";
  return all;
}
