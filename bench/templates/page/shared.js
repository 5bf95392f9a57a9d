"use strict";
// What all parts of the page share: the data, which methods are hidden, and elements made without markup.

let data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const listeners = [];
const saved = {};

// An element with properties, attributes (names with a hyphen, role, for) and children; text never becomes markup.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for" || name === "scope") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

const column = name => data.columns.find(each => each.name === name);
const valueOf = (row, name) => column(name)?.values[row] ?? null;
const textOf = (row, name) => {
  const found = column(name);
  return found === undefined ? "" : String((found.texts ?? found.values)[row] ?? "");
};
const methodOf = name => data.methods.find(each => each.name === name);
const colorOf = name => `var(--m${methodOf(name).color})`;
const SYMBOLS = { circle: d3.symbolCircle, square: d3.symbolSquare, triangle: d3.symbolTriangle, diamond: d3.symbolDiamond,
  wye: d3.symbolWye, cross: d3.symbolCross, star: d3.symbolStar, times: d3.symbolTimes, asterisk: d3.symbolAsterisk,
  plus: d3.symbolPlus, hexagon: d3.symbolSquare2 };

// The mark of a method, as the charts draw it.
function swatch(name) {
  const method = methodOf(name), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "-6 -6 12 12");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", d3.symbol(SYMBOLS[method.symbol], 60)());
  path.setAttribute("fill", colorOf(name));
  path.setAttribute("stroke", colorOf(name));
  svg.append(path);
  return svg;
}

// Buttons that show and hide methods everywhere on the page.
function legend() {
  const box = element("div", { className: "legend", role: "group", "aria-label": "Methods" });
  for (const { name } of data.methods) {
    const button = element("button", { type: "button", className: "method", "aria-pressed": String(!hidden.has(name)) }, swatch(name), name);
    button.dataset.method = name;
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      changed();
    });
    box.append(button);
  }
  return box;
}

function changed() {
  for (const button of document.querySelectorAll(".legend button"))
    button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.method)));
  for (const listener of listeners) listener();
}

// A labelled choice; options are [value, text].
function choice(label, options, chosen, onChange) {
  const select = element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
  select.addEventListener("change", () => onChange(select.value));
  return element("label", {}, label, select);
}

// A number as an axis writes it: 2e12, 0.05.
function tick(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return d3.format(".3~e")(value).replace("e+", "e");
  return d3.format(".6~g")(value);
}

const capital = text => text.charAt(0).toUpperCase() + text.slice(1);
