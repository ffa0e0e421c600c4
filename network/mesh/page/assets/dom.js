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
  const known = entries.filter(([, value]) => value !== undefined && value !== "");
  return known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

export const quiet = (text) => el("p", { class: "quiet" }, text);
export const row = (...cells) => el("tr", {}, ...cells.map((c) => (c instanceof Node ? c : el("td", {}, c))));

// table returns a heading, and below it a table, or the word none.
export function table(title, heads, rows) {
  const head = el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)));
  const body = rows.length ? el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)) : quiet("none");
  return [el("h3", {}, title), body];
}

const two = (n) => String(n).padStart(2, "0");

// time formats a time by the browser's clock and time zone: of today without the date.
export function time(at) {
  const t = new Date(at), clock = [t.getHours(), t.getMinutes(), t.getSeconds()].map(two).join(":");
  if (t.toDateString() === new Date().toDateString()) return clock;
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${clock}`;
}
