// The view of the cluster as the events have brought it, and what follows from it.

export const view = { header: null, nodes: new Map(), grouping: "" };
let derived = null;

// apply takes in an event: of a whole view, or of what has changed.
export function apply(data, whole) {
  if (whole) view.nodes.clear();
  view.header = data.header;
  for (const n of data.nodes) view.nodes.set(n.key ?? "", n);
  derived = null;
}

const collator = new Intl.Collator("en", { numeric: true });
export const byName = (a, b) => collator.compare(a.name, b.name) || collator.compare(a.key ?? "", b.key ?? "");
export const byRank = (a, b) => a.rank - b.rank || byName(a, b);

export const stateOf = (n) => n.summary?.state ?? "missing";
export const stateClass = { ready: "good", degraded: "bad", starting: "warn", missing: "bad" };
export const stateMark = { ready: "●", degraded: "■", starting: "▲", missing: "✕" };

// What the probes of a path say, the best first.
export const outcomes = ["reachable", "waiting", "lossy", "unreachable"];
export function outcomeOf(p) {
  if (p.state === "unreachable") return "unreachable";
  if (p.state !== "reachable") return "waiting";
  return p.recent_lost > 0 ? "lossy" : "reachable";
}

// all returns the nodes by name, the links between them by both keys, and the families that are probed.
export function all() {
  if (derived) return derived;
  const nodes = [...view.nodes.values()].sort(byName);
  const links = [];
  const families = new Set();
  for (const from of nodes) {
    for (const probes of from.summary?.probes ?? []) {
      families.add(probes.family);
      for (const p of probes.peers ?? []) {
        const to = view.nodes.get(p.key);
        if (to) links.push({ from, to, family: probes.family, probe: p, outcome: outcomeOf(p) });
      }
    }
  }
  derived = { nodes, links, families: [...families].sort() };
  return derived;
}

// grouping returns the index and the groups of the way that is chosen to show many nodes; without groups, each node is
// shown.
export function grouping() {
  const all = view.header?.groupings ?? [];
  const index = Math.max(0, all.findIndex((g) => g.by === view.grouping));
  return { index, groups: all[index]?.groups ?? [] };
}

// plan returns the rows and columns of the matrix, and what is known of each pair. Many nodes are shown as groups,
// unless focus names one for the rows and one for the columns.
export function plan(focus, family) {
  const { nodes, links } = all();
  const { index, groups } = grouping();
  const groupOf = (n) => n.groups?.[index] ?? 0;
  const byGroup = groups.length > 0 && !focus;
  const unit = (n) => ({ name: n.name, node: n, nodes: [n] });
  let rows, columns;
  if (byGroup) {
    rows = columns = groups.map((name, group) => ({ name, group, nodes: [] }));
    for (const n of nodes) rows[groupOf(n)].nodes.push(n);
  } else if (focus) {
    rows = nodes.filter((n) => groupOf(n) === focus.row).map(unit);
    columns = nodes.filter((n) => groupOf(n) === focus.column).map(unit);
  } else {
    rows = columns = nodes.map(unit);
  }
  const place = (units) => new Map(units.flatMap((u, i) => u.nodes.map((n) => [n, i])));
  const row = place(rows), column = rows === columns ? row : place(columns);
  const pairs = new Map();
  for (const l of links) {
    const i = row.get(l.from), j = column.get(l.to);
    if (i === undefined || j === undefined || (family && l.family !== family)) continue;
    const at = i * columns.length + j;
    let pair = pairs.get(at);
    if (!pair) {
      pair = { links: [], outcome: "reachable", rtt: 0, recent: 0, lost: 0, paths: new Set(), fast: 0 };
      pairs.set(at, pair);
    }
    pair.links.push(l);
    if (outcomes.indexOf(l.outcome) > outcomes.indexOf(pair.outcome)) pair.outcome = l.outcome;
    pair.rtt = Math.max(pair.rtt, l.probe.rtt_ns ?? 0);
    pair.recent += l.probe.recent;
    pair.lost += l.probe.recent_lost;
    if (l.probe.path) pair.paths.add(l.probe.path);
    if (l.probe.fast_path === "in use") pair.fast++;
  }
  return { rows, columns, pairs, byGroup };
}

// worst returns the worst state of a unit's nodes.
export function worst(unit) {
  const states = ["ready", "starting", "degraded", "missing"];
  return unit.nodes.reduce((w, n) => (states.indexOf(stateOf(n)) > states.indexOf(w) ? stateOf(n) : w), "ready");
}

export function encryption(n) {
  const s = n.summary;
  if (!s?.backend) return "-";
  if (s.encrypted_peers === undefined) return "no";
  const peers = s.peers.programmed + s.peers.pending;
  return s.encrypted_peers >= peers ? "all" : `${s.encrypted_peers} of ${peers}`;
}

export function fastPath(n) {
  if (!n.summary) return "-";
  if (!n.summary.fast_path) return "off";
  return n.summary.fast_path.in_use ? "in use" : "not in use";
}

// unreachable returns how many of the probed peers do not answer, in the family in which most do not.
export function unreachable(n) {
  let text = "-", most = -1;
  for (const p of n.summary?.probes ?? []) {
    const peers = (p.peers ?? []).filter((x) => x.state !== "not probed");
    const lost = peers.filter((x) => x.state === "unreachable").length;
    if (peers.length > 0 && lost > most) {
      most = lost;
      text = `${lost} of ${peers.length}`;
    }
  }
  return { text, lost: most };
}

export function milliseconds(ns) {
  const ms = ns / 1e6;
  return ms >= 10 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2);
}

export const percent = (lost, recent) => (recent ? Math.round((100 * lost) / recent) : 0);

// probeText describes a link in words.
export function probeText(l) {
  const p = l.probe;
  const words = { lossy: "reachable, with losses", waiting: "no result yet" };
  const parts = [words[l.outcome] ?? l.outcome];
  if (p.rtt_ns && l.outcome !== "unreachable") parts.push(`${milliseconds(p.rtt_ns)} ms`);
  if (p.recent) parts.push(`${p.recent_lost} of the latest ${p.recent} probes lost`);
  if (p.path) parts.push(p.path === "wireguard" ? "path wireguard, encrypted" : `path ${p.path}`);
  if (p.fast_path) parts.push(`fast path ${p.fast_path}`);
  return `${l.family}: ${parts.join(", ")}`;
}
