// Elements, numbers as text, and scales. Text goes into the page as text, never as HTML.

const $ = (id) => document.getElementById(id);

/** A new element: element("p", {class: "muted"}, "text", child). */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

function setAttributes(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) target.setAttribute(name, value);
  }
}

/** 1234.5 as "1,234.5": as many digits as its size deserves; of tiny and huge ones as many as are wanted. */
function formatNumber(value, wanted = 3) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "-∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return Number(value.toPrecision(wanted)).toExponential().replace("e+", "e");
  const digits = Number.isInteger(value) || size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Numbers from 0 to 1 to numbers from a to b, and values from low to high to numbers from 0 to 1. */
const between = (a, b, share) => a + (b - a) * share;
const share = (low, high, value) => (high > low ? (value - low) / (high - low) : 0.5);

/** Round numbers from the value at or below low to the one at or above high, about as many as wanted. */
function roundMarks(low, high, wanted) {
  if (!(high > low)) return [low];
  const least = (high - low) / (wanted - 1);
  const size = 10 ** Math.floor(Math.log10(least));
  const step = size * [1, 2, 2.5, 5, 10].find((factor) => factor * size >= least * 0.999);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step + 0);
}

/** A label of a checkpoint as an axis shows it: 1000000 as "1M". */
function shortLabel(label) {
  if (!/^\d+$/.test(label)) return label;
  const steps = Number(label);
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (steps >= size) return `${Number((steps / size).toPrecision(4))}${letter}`;
  }
  return label;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
