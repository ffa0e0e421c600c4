// Drawing on canvases: sizes, colours, and the marks of outcomes, states and paths, each with a shape of its own.

export function colours() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue("--" + name).trim();
  const names = ["ground", "panel", "ink", "quiet", "line", "faint", "accent", "good", "bad", "odd", "on-bad"];
  return Object.fromEntries(names.map((n) => [n, get(n)]));
}

// surface gives a canvas a size in CSS pixels, and returns what draws on it.
export function surface(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

export const font = (size, weight = "") => `${weight} ${size}px system-ui, sans-serif`;

function polygon(c, points) {
  c.beginPath();
  points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.closePath();
  c.fill();
}

function cross(c, x, y, r) {
  c.beginPath();
  c.moveTo(x - r, y - r);
  c.lineTo(x + r, y + r);
  c.moveTo(x + r, y - r);
  c.lineTo(x - r, y + r);
  c.stroke();
}

// outcome draws what probes say, in a square cell.
export function outcome(c, k, what, x, y, size) {
  const half = size / 2, middle = [x + half, y + half];
  switch (what) {
    case "unreachable":
      c.fillStyle = k.bad;
      c.fillRect(x, y, size, size);
      c.strokeStyle = k["on-bad"];
      c.lineWidth = Math.max(1, size / 9);
      if (size >= 8) cross(c, ...middle, size / 4);
      break;
    case "lossy":
      c.fillStyle = k.odd;
      polygon(c, [[x + half, y + size * 0.12], [x + size * 0.9, y + size * 0.85], [x + size * 0.1, y + size * 0.85]]);
      break;
    case "waiting":
      c.strokeStyle = k.quiet;
      c.lineWidth = 1;
      c.beginPath();
      c.arc(...middle, Math.max(1, size * 0.25), 0, 7);
      c.stroke();
      break;
    default:
      c.fillStyle = k.good;
      c.fillRect(x + size * 0.25, y + size * 0.25, Math.max(1, size / 2), Math.max(1, size / 2));
  }
}

// path draws the mark of a path: a square for vxlan, a circle for direct, a diamond for wireguard; with a line below it
// if established connections take the fast path.
export function path(c, k, name, x, y, size, fast) {
  if (fast) {
    c.fillStyle = k.ink;
    c.fillRect(x + size * 0.12, y + size * 0.88, size * 0.76, Math.max(1, size * 0.09));
  }
  const half = size / 2, r = size * 0.32;
  c.fillStyle = name === "wireguard" ? k.good : k.accent;
  if (name === "direct") {
    c.beginPath();
    c.arc(x + half, y + half, r, 0, 7);
    c.fill();
  } else if (name === "wireguard") {
    const [cx, cy, d] = [x + half, y + half, r * 1.25];
    polygon(c, [[cx, cy - d], [cx + d, cy], [cx, cy + d], [cx - d, cy]]);
  } else {
    c.fillRect(x + half - r, y + half - r, 2 * r, 2 * r);
  }
}

// state draws the mark of a node's state around a point.
export function state(c, k, name, x, y, r) {
  c.lineWidth = 2;
  switch (name) {
    case "ready":
      c.fillStyle = k.good;
      c.beginPath();
      c.arc(x, y, r, 0, 7);
      c.fill();
      break;
    case "degraded":
      c.fillStyle = k.bad;
      c.fillRect(x - r, y - r, 2 * r, 2 * r);
      break;
    case "starting":
      c.fillStyle = k.odd;
      polygon(c, [[x, y - r], [x + r, y + r], [x - r, y + r]]);
      break;
    default:
      c.strokeStyle = k.bad;
      cross(c, x, y, r);
  }
}

// swatch makes the picture of a legend's entry.
export function swatch(draw, size = 14) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  draw(surface(canvas, size, size), colours(), size);
  return canvas;
}
