// How the scripts make elements. Text is set as text only: what nodes say is never taken for HTML.

export const $ = (id) => document.getElementById(id);

// el makes an element with attributes, and with children: elements, or texts.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== "") e.setAttribute(name, value);
  }
  e.append(...children.map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

// terms returns the groups of a description list.
export function terms(entries) {
  return entries.filter(([, value]) => value !== undefined && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

export function time(at) {
  const t = new Date(at);
  const today = t.toDateString() === new Date().toDateString();
  return today ? t.toLocaleTimeString() : t.toLocaleString();
}
