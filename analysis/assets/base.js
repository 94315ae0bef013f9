// Small helpers: elements made of text only (so no name can become markup), numbers, colours.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key in node && key !== "style" && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

const byId = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => window.innerWidth <= 760;
const LETTER = 7; // pixels that one takes beside an axis
const longest = (labels) => Math.max(...labels.map((label) => label.length));

// plotly reads a little markup in its labels
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function short(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  if (digits !== undefined) return value.toFixed(digits);
  const size = Math.abs(Number(value.toPrecision(3))); // 99.96 is written with the digits of 100
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3);
}

function seconds(value) {
  if (!Number.isFinite(value)) return "-";
  const span = state.range[1] - state.range[0];
  const digits = span > 100 ? 1 : span > 5 ? 2 : span > 0.2 ? 4 : 6;
  return `${value.toFixed(digits)} s`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${short(value)} ${units[unit]}`;
}

function rgb(colour) {
  const hex = colour.replace("#", "");
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
const TICKS = ",.12~r"; // numbers on every axis: 0.05, 2,500, 10,000
const number = (value) => value.toLocaleString("en-US");
const mix = (one, other, part) => one.map((value, at) => Math.round(value + (other[at] - value) * part));
const word = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r; // little-endian RGBA, as canvas has it

const SHARES = ["live", "reserved", "internal", "rounding", "cached", "external", "free"];
const BLOCKED = ["", "memory", "seats", "budget", "order"];
const AWAITED = { memory: "memory", seats: "a seat", budget: "room in a step", order: "its turn" }; // by the head of the queue
const STATUSES = ["finished", "refused", "unfinished"];
const KINDS = ["preempt", "swap_out", "refuse", "evict"];

const facts = JSON.parse(byId("facts").textContent);
const state = { until: 0, range: [0, 0], cursor: null, request: null, shown: [], colour: "state", order: "arrival" };
