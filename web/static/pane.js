// One radiograph on a canvas: window, zoom, place, turns, marks, and a heatmap over it.

import { loadHeat, loadPicture, loadValues } from "./grey.js";
import { drawMarks, measureText } from "./measure.js";

const MOST = 40; // screen pixels a pixel of the radiograph
const LENS = 110; // pixels, the magnifier's radius
const LARGER = 2.5; // times, in the magnifier
const ACROSS = 512; // pixels to drag for a window as wide as all values

export class Pane {
  // `viewer` has tool, active, heat, opacity, activate(pane), changed(pane, what).
  constructor(element, viewer) {
    Object.assign(this, { element, viewer, grey: null, heat: null, marks: [], pointers: new Map(), drag: null, lens: null });
    this.canvas = element.querySelector("canvas");
    this.note = element.querySelector(".note");
    this.corner = (name) => element.querySelector(`.corner.${name}`);
    this.start();
    this.listen();
    new ResizeObserver(() => this.resized()).observe(element);
    this.load();
  }

  start() { // how a radiograph is shown at first
    this.turn = 0; // quarters, clockwise
    this.mirrored = false;
    this.inverted = false;
    this.scale = 0; // screen pixels a pixel of the radiograph; 0 fits it
    this.shift = { x: 0, y: 0 }; // screen pixels from the middle
    this.window = { ...(this.grey?.about.windows[0] ?? { name: "", center: 128, width: 256 }) };
  }

  async load() {
    const { values, picture } = this.element.dataset;
    this.element.dataset.state = "loading";
    this.say("Reading the radiograph.");
    try {
      const grey = await (values ? loadValues(values) : loadPicture(picture));
      if (values !== this.element.dataset.values || picture !== this.element.dataset.picture) return; // another one by now
      this.grey = grey;
      this.start();
      this.say("");
      this.element.dataset.state = "shown";
      this.viewer.changed(this, "loaded");
    } catch (error) {
      this.element.dataset.state = "failed";
      this.say(`The radiograph cannot be shown: ${error.message}.`);
    }
    this.draw();
  }

  show(dataset) { // another radiograph in the same pane
    Object.assign(this.element.dataset, dataset);
    Object.assign(this, { grey: null, heat: null, heatOf: "", marks: [] });
    this.load();
    this.showHeat();
  }

  say(text) { this.note.textContent = text; }

  // The heatmap

  async showHeat() {
    const { heat } = this.element.dataset;
    const address = heat && this.viewer.heatAddress(heat);
    if (!this.viewer.heat || !address) { this.sayHeat(); this.draw(); return; }
    if (this.heatOf === address) { this.sayHeat(); this.draw(); return; }
    this.heatOf = address;
    this.say("Drawing the heatmap.");
    try {
      const drawn = await loadHeat(address);
      if (this.heatOf !== address) return;
      this.heat = drawn;
      this.say("");
      this.sayHeat();
    } catch (error) {
      this.heatOf = "";
      this.say(`The heatmap could not be drawn: ${error.message}.`);
    }
    this.draw();
  }

  sayHeat() {
    const { below } = this.element.dataset;
    if (this.viewer.heat && below && !this.viewer.below) this.say("Below the threshold: no heatmap.");
    else if (this.note.textContent.startsWith("Below")) this.say("");
  }

  // Geometry: the matrix from the radiograph's pixels to the screen's

  get size() { return { width: this.element.clientWidth || 1, height: this.element.clientHeight || 1 }; }

  get fitting() {
    if (!this.grey) return 1;
    const { width, height } = this.size;
    const [w, h] = this.turn % 2 ? [this.grey.height, this.grey.width] : [this.grey.width, this.grey.height];
    return Math.min(width / w, height / h);
  }

  get factor() { return this.scale || this.fitting; }

  matrix() {
    const { width, height } = this.size;
    const scale = this.factor;
    const matrix = new DOMMatrix([1, 0, 0, 1, width / 2 + this.shift.x, height / 2 + this.shift.y]);
    matrix.rotateSelf(90 * this.turn);
    matrix.scaleSelf(this.mirrored ? -scale : scale, scale);
    return matrix.translateSelf(-this.grey.width / 2, -this.grey.height / 2);
  }

  place(point) { // on the screen, of a point of the radiograph
    const { x, y } = this.matrix().transformPoint(new DOMPoint(point.x, point.y));
    return { x, y };
  }

  under(x, y) { // the point of the radiograph at a position in the pane
    const point = this.matrix().inverse().transformPoint(new DOMPoint(x, y));
    return { x: point.x, y: point.y };
  }

  zoom(factor, x = this.size.width / 2, y = this.size.height / 2) {
    if (!this.grey) return;
    const before = this.factor;
    const scale = Math.min(MOST, Math.max(this.fitting / 4, before * factor));
    const { width, height } = this.size;
    const from = { x: x - width / 2, y: y - height / 2 };
    this.shift = {
      x: from.x - ((from.x - this.shift.x) * scale) / before,
      y: from.y - ((from.y - this.shift.y) * scale) / before,
    };
    this.scale = scale;
    this.moved();
  }

  pan(dx, dy) {
    this.shift = { x: this.shift.x + dx, y: this.shift.y + dy };
    this.moved();
  }

  fit() { Object.assign(this, { scale: 0, shift: { x: 0, y: 0 } }); this.moved(); }
  real() { Object.assign(this, { scale: 1 / devicePixelRatio, shift: { x: 0, y: 0 } }); this.moved(); }
  rotate(quarters) { this.turn = (this.turn + quarters + 4) % 4; this.moved(); }
  flip(down) { this.mirrored = !this.mirrored; if (down) this.turn = (this.turn + 2) % 4; this.moved(); }
  invert() { this.inverted = !this.inverted; this.draw(); this.viewer.changed(this, "window"); }
  reset() { this.start(); this.marks = []; this.moved(); this.viewer.changed(this, "window"); }
  clear() { this.marks.pop(); this.draw(); }

  moved() { this.draw(); this.viewer.changed(this, "place"); }

  // Where it is looked at, in parts of the fitting size, so that radiographs of other sizes can follow

  get placement() {
    return { zoom: this.factor / this.fitting, x: this.shift.x / this.size.width, y: this.shift.y / this.size.height };
  }

  follow({ zoom, x, y }) {
    this.scale = zoom === 1 ? 0 : zoom * this.fitting;
    this.shift = { x: x * this.size.width, y: y * this.size.height };
    this.draw();
  }

  setWindow(window) {
    this.window = { ...window };
    this.draw();
    this.viewer.changed(this, "window");
  }

  // Drawing

  resized() {
    const ratio = devicePixelRatio;
    const { width, height } = this.size;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.paint();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    const ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.grey) {
      const matrix = new DOMMatrix([ratio, 0, 0, ratio, 0, 0]).multiply(this.matrix());
      this.layers(context, matrix, this.factor * ratio);
      drawMarks(context, this.marks, (point) => this.place(point), this.grey.about.spacing, ratio);
      if (this.lens) this.magnify(context, ratio);
    }
    this.label();
  }

  layers(context, matrix, scale) {
    const { width, height } = this.grey;
    context.setTransform(matrix);
    context.imageSmoothingEnabled = scale < 4;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.grey.paint(this.window, this.inverted, Math.min(1, scale)), 0, 0, width, height);
    if (!this.viewer.heat || !this.heat) return;
    context.globalAlpha = this.viewer.opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(this.heat, 0, 0, width, height);
    context.globalAlpha = 1;
  }

  magnify(context, ratio) {
    const { x, y } = this.lens;
    context.save();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.beginPath();
    context.arc(x, y, LENS, 0, 7);
    context.clip();
    context.fillStyle = "#000";
    context.fillRect(x - LENS, y - LENS, 2 * LENS, 2 * LENS);
    const around = new DOMMatrix([ratio, 0, 0, ratio, 0, 0]).translate(x, y).scale(LARGER).translate(-x, -y);
    this.layers(context, around.multiply(this.matrix()), this.factor * ratio * LARGER);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.beginPath();
    context.arc(x, y, LENS - 1, 0, 7);
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.stroke();
    context.restore();
  }

  label() {
    if (!this.grey) return;
    const { about, width, height } = this.grey;
    const side = { left: "L", right: "R", both: "L and R" }[about.laterality] ?? "";
    const letter = document.createElement("b"); // as a marker on the film; part and view are plain
    letter.textContent = side;
    const rest = [about.part || this.element.dataset.part, about.view || this.element.dataset.view].filter(Boolean).join(" · ");
    this.corner("side").replaceChildren(letter, side && rest ? ` · ${rest}` : rest);
    const digits = Math.abs(this.window.width) < 20 ? 2 : 0;
    this.corner("window").textContent =
      `W ${this.window.width.toFixed(digits)} L ${this.window.center.toFixed(digits)}${this.inverted ? " inverted" : ""}`;
    const percent = Math.round(100 * this.factor * devicePixelRatio);
    const turned = this.turn ? ` · ${90 * this.turn}°` : "";
    this.corner("zoom").textContent = `${percent} %${turned}${this.mirrored ? " · mirrored" : ""}`;
    const bits = about.colour ? "colours as grey" : `${about.bits} bits`;
    this.corner("size").textContent = `${width} × ${height} · ${bits}`;
  }

  // The mouse, fingers and the wheel

  listen() {
    const { element } = this;
    element.addEventListener("wheel", (event) => {
      if (this.viewer.active !== this || !element.contains(document.activeElement)) return; // the page scrolls
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...this.position(event));
    }, { passive: false });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, (event) => this.release(event));
    element.addEventListener("pointerleave", () => { this.lens = null; this.draw(); });
    element.addEventListener("focus", () => this.viewer.activate(this));
    element.addEventListener("dblclick", () => { if (!["length", "angle", "region"].includes(this.viewer.tool)) this.viewer.maximise(this); });
  }

  position(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    const was = this.viewer.active === this;
    this.viewer.activate(this);
    this.element.focus({ preventScroll: true });
    if (!this.grey || (event.pointerType === "touch" && !was && this.viewer.panes.length > 1)) return; // the first touch chooses
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    const [x, y] = this.position(event);
    this.pointers.set(event.pointerId, { x, y });
    const tool = event.pointerType === "mouse" ? { 0: this.viewer.tool, 1: "pan", 2: "zoom" }[event.button] : this.viewer.tool;
    if (!tool) return;
    this.drag = { tool, x, y, window: { ...this.window }, shift: { ...this.shift }, scale: this.factor };
    if (this.pointers.size === 2) this.drag = { tool: "pinch", ...this.pinch(), shift: { ...this.shift }, scale: this.factor };
    if (tool === "length") this.marks.push({ kind: "length", points: [this.under(x, y)] });
    if (tool === "angle") {
      const open = this.marks.at(-1);
      if (open?.kind === "angle" && open.points.length === 2) open.points.push(this.under(x, y));
      else this.marks.push({ kind: "angle", points: [this.under(x, y)] });
      this.drag.mark = this.marks.at(-1);
      this.drag.at = this.drag.mark.points.length === 3 ? 2 : 1;
    }
    if (tool === "region") this.marks = [...this.marks.filter(({ kind }) => kind !== "region"), { kind: "region", points: [this.under(x, y)] }];
    if (tool === "length" || tool === "region") Object.assign(this.drag, { mark: this.marks.at(-1), at: 1 });
    if (tool === "magnifier") { this.lens = { x, y }; this.draw(); }
  }

  pinch() {
    const [a, b] = [...this.pointers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, span: Math.hypot(a.x - b.x, a.y - b.y) || 1 };
  }

  move(event) {
    const [x, y] = this.position(event);
    if (this.viewer.tool === "magnifier" && event.pointerType === "mouse" && this.grey) { this.lens = { x, y }; this.draw(); }
    if (!this.pointers.has(event.pointerId) || !this.drag) return;
    this.pointers.set(event.pointerId, { x, y });
    const { drag } = this;
    const [dx, dy] = [x - drag.x, y - drag.y]; // all the way from the start, however often the mouse reports
    if (drag.tool === "pinch") {
      if (this.pointers.size < 2) return;
      const now = this.pinch();
      this.scale = drag.scale;
      this.shift = { x: drag.shift.x + now.x - drag.x, y: drag.shift.y + now.y - drag.y };
      this.zoom(now.span / drag.span, now.x, now.y);
    } else if (drag.tool === "pan") {
      this.shift = { x: drag.shift.x + dx, y: drag.shift.y + dy };
      this.moved();
    } else if (drag.tool === "zoom") {
      Object.assign(this, { scale: drag.scale, shift: drag.shift });
      this.zoom(Math.exp(dy / 200), drag.x, drag.y);
    } else if (drag.tool === "window") {
      const step = Math.max(this.grey.most - this.grey.least, 1e-6) / ACROSS;
      const width = Math.max(1 + step / 4, drag.window.width + dx * step);
      this.setWindow({ name: "", center: drag.window.center + dy * step, width });
    } else if (drag.tool === "magnifier") {
      this.lens = { x, y };
      this.draw();
    } else if (drag.mark) {
      drag.mark.points[drag.at] = this.under(x, y);
      this.draw();
    }
  }

  search([a, b]) { // a rectangle, in parts of the radiograph's sides; region.js asks for what it shows
    const { width, height } = this.grey;
    const part = (value, whole) => Math.min(1, Math.max(0, value / whole));
    const [left, right] = [a.x, b.x].map((x) => part(x, width)).sort((one, other) => one - other);
    const [top, bottom] = [a.y, b.y].map((y) => part(y, height)).sort((one, other) => one - other);
    const detail = { x: left, y: top, width: right - left, height: bottom - top };
    if (detail.width > 0 && detail.height > 0) this.element.dispatchEvent(new CustomEvent("region", { bubbles: true, detail }));
  }

  searchSight() { // the part of the radiograph that is in sight, for those who use keys
    const { width, height } = this.size;
    this.search([this.under(0, 0), this.under(width, height)]);
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    const mark = this.drag?.mark;
    if (event.pointerType !== "mouse") this.lens = null;
    if (!this.pointers.size || this.drag?.tool === "pinch") this.drag = null;
    if (!mark) { this.draw(); return; }
    if (mark.points.length < 2) this.marks.pop(); // a click, not a line
    else if (mark.kind === "region") this.search(mark.points);
    const text = measureText(mark, this.grey.about.spacing);
    if (text) this.say(`${mark.kind === "length" ? "Length" : "Angle"}: ${text}`);
    else if (mark.kind === "angle" && mark.points.length === 2) this.say("Now the end of the other arm.");
    this.draw();
  }
}
