// SPDX-License-Identifier: Apache-2.0
"use strict";
// Theme, choice of run, sorting of tables, values under the pointer of charts and costmaps.

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new Event("themechange"));
}

function chooseRun(index) {
  for (const part of document.querySelectorAll("[data-run]")) part.hidden = part.dataset.run !== index;
}

function sortTable(head) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentElement.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const x = key(a), y = key(b), numbers = x !== "" && y !== "" && !Number.isNaN(Number(x)) && !Number.isNaN(Number(y));
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1;  // What is unknown stays below.
    return (down ? -1 : 1) * (numbers ? Number(x) - Number(y) : x.localeCompare(y));
  };
  body.append(...[...body.rows].sort(compare));
}

function connectChart(chart) {
  const { left, width, series, unit, x_unit: xUnit } = JSON.parse(chart.querySelector("script").textContent);
  const svg = chart.querySelector("svg"), cursor = chart.querySelector(".cursor"), readout = chart.querySelector(".readout");
  const total = svg.viewBox.baseVal.width;
  const leave = () => { readout.hidden = true; cursor.style.visibility = "hidden"; };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * total;
    if (at < left || at > left + width) return leave();
    const values = series.map((one) => {
      let best = -1;
      one.x.forEach((x, i) => { if (one.y[i] !== null && (best < 0 || Math.abs(x - at) < Math.abs(one.x[best] - at))) best = i; });
      return [one, best];
    }).filter(([, i]) => i >= 0);
    if (!values.length) return leave();
    readout.replaceChildren(...values.flatMap(([one, i], row) => {
      const mark = document.createElement("span");
      mark.className = "swatch";
      mark.style.background = one.color;
      const before = row ? [document.createElement("br")] : [`${one.t[i]} ${xUnit}`, document.createElement("br")];
      return [...before, mark, `${one.name}: ${one.y[i]} ${unit}`];
    }));
    const x = values[0][0].x[values[0][1]];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    readout.hidden = false;
    const place = (x / total) * box.width;
    readout.style.left = `${place + (place > box.width / 2 ? -readout.offsetWidth - 10 : 10)}px`;
    readout.style.top = "8px";
  });
}

function connectCostmap(root) {
  const about = JSON.parse(root.querySelector("script").textContent), image = root.querySelector("img"), tip = root.querySelector(".tip");
  const canvas = document.createElement("canvas"), costs = new Map(about.colors.map((color, i) => [color.join(), i]));
  let pixels = null;
  root.addEventListener("pointerleave", () => { tip.hidden = true; });
  root.addEventListener("pointermove", (event) => {
    if (!pixels) {
      Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    }
    const box = image.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * pixels.width);
    const row = Math.floor(((event.clientY - box.top) / box.height) * pixels.height);
    tip.hidden = column < 0 || row < 0 || column >= pixels.width || row >= pixels.height;
    if (tip.hidden) return;
    const at = 4 * (row * pixels.width + column), cost = costs.get([...pixels.data.slice(at, at + 3)].join());
    const x = about.origin[0] + (column + 0.5) * about.cell, y = about.origin[1] + (pixels.height - row - 0.5) * about.cell;
    const words = { 0: "free (0)", 100: "lethal (100)", 101: "unknown" };
    tip.textContent = `${words[cost] ?? `cost ${cost}`} at (${x.toFixed(2)}, ${y.toFixed(2)}) m`;
    const left = event.clientX - box.left, width = tip.offsetWidth;
    tip.style.left = `${left + width + 14 > box.width ? left - width - 8 : left + 12}px`;
    tip.style.top = `${Math.max(0, event.clientY - box.top - 30)}px`;
  });
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
for (const button of document.querySelectorAll(".theme"))
  button.addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
for (const select of document.querySelectorAll("select.runs")) {
  select.addEventListener("change", () => chooseRun(select.value));
  chooseRun(select.value);
}
for (const head of document.querySelectorAll("th[aria-sort]")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sortTable(head));
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sortTable(head); });
}
// Paper is white, and nobody unfolds what is printed on it.
let before = null;
addEventListener("beforeprint", () => {
  if (before) return;  // Some browsers tell it twice.
  before = { theme: document.documentElement.dataset.theme, folded: [...document.querySelectorAll("details:not([open])")] };
  before.folded.forEach((part) => { part.open = true; });
  setTheme("light");
  for (const root of document.querySelectorAll(".octree")) root.panel?.toPaper();
});
addEventListener("afterprint", () => {
  if (!before) return;
  before.folded.forEach((part) => { part.open = false; });
  setTheme(before.theme);
  for (const root of document.querySelectorAll(".octree")) root.panel?.fromPaper();
  before = null;
});
document.querySelectorAll(".chart").forEach(connectChart);
document.querySelectorAll(".costmap").forEach(connectCostmap);
