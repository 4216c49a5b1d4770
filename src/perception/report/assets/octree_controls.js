// SPDX-License-Identifier: Apache-2.0
"use strict";
// What stands around the canvas of an octree: choice of map, classes, slice of heights, label of the voxel pointed at.

function makeElement(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

class OctreePanel {
  constructor(root, maps) {
    this.root = root;
    this.maps = maps;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.canvas = this.part("canvas");
    this.view = new OctreeCanvas(this.canvas);
    this.cache = new Map();
    const choice = this.part("map");
    maps.forEach((map, i) => choice.append(makeElement("option", { value: String(i) }, map.name)));
    choice.closest("label").hidden = maps.length < 2;
    choice.addEventListener("change", () => this.choose(Number(choice.value)));
    this.part("color").addEventListener("change", (event) => this.colorBy(event.target.value === "height"));
    this.part("path").addEventListener("change", (event) => {
      this.view.showPath = event.target.checked;
      this.view.redraw();
    });
    this.part("reset").addEventListener("click", () => this.view.resetCamera());
    this.part("top").addEventListener("click", () => {
      this.view.resetCamera();
      Object.assign(this.view.camera, { azimuth: -Math.PI / 2, elevation: 1.5707, distance: 0 });
      this.view.fit();
    });
    this.part("turn").addEventListener("change", () => this.keepTurning());
    this.part("all").addEventListener("click", () => this.setAll(true));
    this.part("none").addEventListener("click", () => this.setAll(false));
    for (const name of ["low", "high"]) this.part(name).addEventListener("input", () => this.sliceChanged(name));
    this.listen();
    document.addEventListener("themechange", () => this.view.redraw());
  }

  async choose(index) {
    const map = this.maps[index];
    if (!this.cache.has(index)) this.cache.set(index, await unpackFaces(map.faces, map.counts.reduce((a, b) => a + b, 0)));
    this.view.show(map, this.cache.get(index));
    this.part("note").textContent = map.note;
    for (const [name, value] of [["low", map.heights[0]], ["high", map.cut ?? map.heights[1]]]) {
      const slider = this.part(name);
      Object.assign(slider, { min: map.heights[0], max: map.heights[1], step: map.size });
      slider.value = value;
    }
    this.part("path").closest("label").hidden = map.path.length < 6;
    this.fillLegend();
    this.colorBy(!map.labeled);
    this.part("color").value = map.labeled ? "class" : "height";
    this.part("color").closest("label").hidden = !map.labeled;
    this.sliceChanged("high");
    this.root.dataset.ready = String(index);
  }

  fillLegend() {
    const list = this.part("legend");
    list.replaceChildren();
    const { palette } = this.view.map, order = palette.map((_, i) => i).sort((a, b) => palette[b].voxels - palette[a].voxels);
    this.boxes = order.map((i) => {
      const entry = palette[i];
      const box = makeElement("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => this.toggle(i, box.checked));
      const swatch = makeElement("span", { className: "swatch" });
      swatch.style.background = `rgb(${entry.color.join(",")})`;
      const count = makeElement("span", { className: "count" }, entry.voxels.toLocaleString("en-US"));
      list.append(makeElement("li", {}, makeElement("label", {}, box, swatch, makeElement("span", {}, entry.name), count)));
      return box;
    });
  }

  toggle(index, on) {
    this.view.visible[index] = on;
    this.view.loadPalette();
  }

  setAll(on) {
    this.boxes.forEach((box) => { box.checked = on; });
    this.view.visible.fill(on);
    this.view.loadPalette();
  }

  colorBy(height) {
    const { map } = this.view;
    this.view.byHeight = height;
    this.part("heights").hidden = !height;
    this.part("bar").style.background = `linear-gradient(to right, ${map.height_scale.map((c) => `rgb(${c.join(",")})`).join(",")})`;
    this.part("lowest").textContent = `${map.color_heights[0].toFixed(2)} m`;
    this.part("highest").textContent = `${map.color_heights[1].toFixed(2)} m`;
    this.view.redraw();
  }

  sliceChanged(moved) {
    const low = this.part("low"), high = this.part("high");
    if (Number(low.value) > Number(high.value)) (moved === "low" ? high : low).value = (moved === "low" ? low : high).value;
    this.view.slice = [Number(low.value), Number(high.value)];
    this.part("from").textContent = `${Number(low.value).toFixed(2)} m`;
    this.part("to").textContent = `${Number(high.value).toFixed(2)} m`;
    this.view.redraw();
  }

  keepTurning() {
    let last = null;
    const step = (now) => {
      if (!this.part("turn").checked) return;
      if (last !== null) this.view.turn(-(now - last) * 3e-4, 0);
      last = now;
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // A canvas is printed as it was before the colors became those of paper, a picture as it is.
  toPaper() {
    this.view.draw();
    this.printed = makeElement("img", { src: this.canvas.toDataURL() });
    this.canvas.after(this.printed);
    this.canvas.hidden = true;
  }

  fromPaper() {
    this.printed?.remove();
    this.canvas.hidden = false;
    this.view.redraw();
  }

  listen() {
    const { canvas, view } = this, pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (event.pointerType !== "touch") canvas.focus({ preventScroll: true });
      this.hideLabel();
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return this.pointAt(event);
      const dx = event.clientX - before[0], dy = event.clientY - before[1];
      if (pointers.size === 2) this.pinch(pointers, event, before);
      else if (event.shiftKey || event.buttons & 6) view.move(dx, dy);
      else view.turn(dx * 0.008, dy * 0.008);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    const release = (event) => {
      if (pointers.delete(event.pointerId) && event.type === "pointerup") this.pointAt(event);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => this.hideLabel());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      // The page scrolls on under a canvas that nobody has clicked.
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      view.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.003));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  pinch(pointers, event, before) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const length = (x, y) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
    this.view.zoom(length(...before) / length(event.clientX, event.clientY));
    this.view.move((event.clientX - before[0]) / 2, (event.clientY - before[1]) / 2);
  }

  key(event) {
    const steps = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (steps[event.key]) this.view.turn(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") this.view.zoom(0.87);
    else if (event.key === "-") this.view.zoom(1.15);
    else return;
    event.preventDefault();
  }

  pointAt(event) {
    this.pointer = [event.offsetX, event.offsetY];
    if (this.asking) return;
    this.asking = true;
    requestAnimationFrame(() => {
      this.asking = false;
      if (this.pointer) this.showLabel(this.view.pick(...this.pointer));
    });
  }

  hideLabel() {
    this.pointer = null;
    this.part("label").hidden = true;
  }

  showLabel(found) {
    const label = this.part("label"), [x, y] = this.pointer;
    label.hidden = !found;
    if (!found) return;
    const entry = this.view.map.palette[found.palette], swatch = makeElement("span", { className: "swatch" });
    swatch.style.background = `rgb(${entry.color.join(",")})`;
    const place = found.position.map((value) => value.toFixed(2)).join(", ");
    label.replaceChildren(swatch, makeElement("b", {}, entry.name), makeElement("br"), `(${place}) m`);
    label.style.left = `${Math.min(x + 14, Math.max(0, this.canvas.clientWidth - label.offsetWidth - 4))}px`;
    label.style.top = `${Math.max(0, y - label.offsetHeight - 10)}px`;
  }
}

for (const root of document.querySelectorAll(".octree")) {
  const failed = (error) => {
    root.querySelector('[data-part="note"]').textContent = error.message;
    root.classList.add("failed");
  };
  try {
    const panel = new OctreePanel(root, JSON.parse(root.querySelector('script[type="application/json"]').textContent));
    root.panel = panel;
    panel.choose(0).catch(failed);
  } catch (error) {
    failed(error);
  }
}
