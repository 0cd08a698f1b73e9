// Radiographs to look at: zoom, pan, window and level, and the heatmap over them.
// A viewer is an element with [data-viewer] that holds stages; with [data-linked] they move together.

const MOST = 12; // times its fitting size

class Stage {
  constructor(element, moved) {
    this.element = element;
    this.layer = element.querySelector(".layer");
    this.radiograph = element.querySelector(".radiograph");
    this.heat = element.querySelector(".heat");
    this.note = element.querySelector(".drawing");
    this.moved = moved;
    this.drag = "pan";
    this.view = { x: 0, y: 0, scale: 1 }; // x, y in parts of the stage's width and height
    this.pointers = new Map();
    this.listen();
    this.follow(this.heat, "Drawing the heatmap.", "The heatmap could not be drawn: ");
    this.radiograph.addEventListener("error", () => this.explain(this.radiograph, "The picture cannot be shown: "));
  }

  listen() {
    const stage = this.element;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...this.position(event));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    stage.addEventListener("pointermove", (event) => this.pointer(event));
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    stage.addEventListener("dblclick", (event) => this.zoom(2, ...this.position(event)));
    stage.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = 0.1;
    const keys = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.reset(),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }

  pointer(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    this.pointers.set(event.pointerId, event);
    const box = this.element.getBoundingClientRect();
    const dx = (event.clientX - before.clientX) / box.width;
    const dy = (event.clientY - before.clientY) / box.height;
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const span = (point) => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY) || 1;
      const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      this.zoom(span(event) / span(before), ...this.position(middle));
      this.pan(dx / 2, dy / 2);
    } else if (this.drag === "window") {
      this.element.dispatchEvent(new CustomEvent("window", { bubbles: true, detail: { dx, dy } }));
    } else {
      this.pan(dx, dy);
    }
  }

  position(event) {
    const box = this.element.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  zoom(factor, x = 0.5, y = 0.5) {
    const before = this.view.scale;
    const scale = Math.min(MOST, Math.max(1, before * factor));
    this.move({ x: x - ((x - this.view.x) * scale) / before, y: y - ((y - this.view.y) * scale) / before, scale });
  }

  pan(dx, dy) {
    this.move({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  reset() {
    this.move({ x: 0, y: 0, scale: 1 });
  }

  move(view) {
    this.show(view);
    this.moved(this);
  }

  show({ x, y, scale }) { // the picture always fills the stage
    const within = (value) => Math.min(0, Math.max(1 - scale, value));
    this.view = { x: within(x), y: within(y), scale };
    const { width, height } = this.element.getBoundingClientRect();
    this.layer.style.transform = `translate(${this.view.x * width}px, ${this.view.y * height}px) scale(${scale})`;
    this.hold();
  }

  hold() { // a finger on a fitting picture scrolls the page
    this.element.classList.toggle("held", this.view.scale > 1 || this.drag === "window");
  }

  follow(image, waiting, failed) {
    const done = () => { this.note.textContent = ""; };
    if (image.complete && image.naturalWidth) done();
    image.addEventListener("load", done);
    image.addEventListener("error", () => this.explain(image, failed));
    this.waiting = waiting;
  }

  async explain(image, failed) { // an image's error has no text; asking its URL again has
    let why = "the server cannot be reached";
    try {
      const reply = await fetch(image.src, { headers: { "X-Fragment": "1" } });
      if (reply.ok) return;
      why = (await reply.json()).error;
    } catch { /* the server cannot be reached */ }
    this.note.textContent = `${failed}${why}.`;
  }
}

export function makeViewer(viewer, tools) {
  const linked = "linked" in viewer.dataset;
  const stages = [...viewer.querySelectorAll(".stage")].map((element) => new Stage(element, (moved) => {
    if (linked) for (const other of stages) if (other !== moved) other.show(moved.view);
  }));
  const tool = (name) => tools.querySelector(`[data-tool="${name}"]`);
  const show = () => {
    const width = tool("window").value / 100;
    const level = tool("level").value / 100;
    for (const stage of stages) { // as filters: first multiplied by 1 / (2 level), then spread around one half
      stage.radiograph.style.filter = `brightness(${1 / (2 * level)}) contrast(${(2 * level) / width})`;
      stage.heat.style.opacity = tool("opacity").value / 100;
      stage.drag = tool("drag").value;
      stage.hold();
    }
    viewer.classList.toggle("unheated", !tool("show").checked);
  };
  const each = (act) => () => { for (const stage of linked ? stages.slice(0, 1) : stages) act(stage); };
  for (const name of ["show", "opacity", "window", "level", "drag"]) tool(name).addEventListener("input", show);
  tool("in").addEventListener("click", each((stage) => stage.zoom(1.25)));
  tool("out").addEventListener("click", each((stage) => stage.zoom(0.8)));
  tool("reset").addEventListener("click", () => {
    tool("window").value = 100;
    tool("level").value = 50;
    each((stage) => stage.reset())();
    show();
  });
  tool("target")?.addEventListener("change", () => {
    for (const stage of stages) {
      stage.note.textContent = stage.waiting;
      const address = new URL(stage.heat.src);
      address.searchParams.set("target", tool("target").value);
      stage.heat.src = address;
    }
  });
  viewer.addEventListener("window", ({ detail }) => { // across is the window, up is darker, as workstations have it
    tool("window").value = Number(tool("window").value) + 100 * detail.dx;
    tool("level").value = Number(tool("level").value) + 60 * detail.dy;
    show();
  });
  show();
}
