// A viewer: panes with radiographs, and the toolbar that acts on the active one.
// It is an element with [data-viewer] that holds panes and a toolbar; with [data-linked] the panes move together.

import { Pane } from "./pane.js";

const STEP = 40; // pixels that an arrow key moves
const DRAGS = ["window", "pan", "zoom", "length", "angle", "magnifier", "region"];
const HINTS = {
  length: "Drag from one end to the other.",
  angle: "Drag along one arm, then click the end of the other.",
  region: "Drag a rectangle around what to search for.",
};
const ORDER = ["pa", "ap", "oblique", "lateral", "axial"]; // of views in a row; the patient's right hangs on the left
let typing = null; // the viewer whose keys work

class Viewer {
  constructor(element) {
    this.element = element;
    this.toolbar = element.querySelector(".tools");
    this.tool = "window";
    this.heat = false;
    this.below = false;
    this.linked = "linked" in element.dataset;
    this.opacity = Number(this.find("opacity")?.value ?? 60) / 100;
    this.panes = [];
    this.others = element.querySelector(".others");
    this.panes = [...element.querySelectorAll(".pane")].map((pane) => new Pane(pane, this));
    this.activate(this.panes.find((pane) => "main" in pane.element.dataset) ?? this.panes[0]);
    this.actions = this.makeActions();
    element.addEventListener("region", () => this.active?.say(""));
    this.toolbar.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-tool]");
      if (button) this.act(button.dataset.tool);
    });
    this.find("preset").addEventListener("change", ({ target }) => this.preset(Number(target.value)));
    this.find("opacity")?.addEventListener("input", ({ target }) => { this.opacity = target.value / 100; this.all("draw"); });
    this.find("below")?.addEventListener("change", ({ target }) => { this.below = target.checked; this.all("showHeat"); });
    this.mark();
  }

  find(tool) { return this.toolbar.querySelector(`[data-tool="${tool}"]`); }
  all(method) { for (const pane of this.panes) pane[method](); }

  heatAddress(address) {
    if (!this.find("below")) return address;
    const url = new URL(address, location.href);
    if (this.below) url.searchParams.set("below", "true");
    return url.pathname + url.search;
  }

  makeActions() {
    const now = (act) => () => this.active?.grey && act(this.active);
    return {
      ...Object.fromEntries(DRAGS.map((name) => [name, () => this.choose(name)])),
      invert: now((pane) => pane.invert()),
      rotate: now((pane) => pane.rotate(1)),
      unrotate: now((pane) => pane.rotate(-1)),
      flip: now((pane) => pane.flip()),
      flop: now((pane) => pane.flip(true)),
      fit: now((pane) => pane.fit()),
      real: now((pane) => pane.real()),
      in: now((pane) => pane.zoom(1.25)),
      out: now((pane) => pane.zoom(0.8)),
      sight: now((pane) => pane.searchSight()),
      clear: now((pane) => pane.clear()),
      reset: now((pane) => pane.reset()),
      former: now((pane) => this.step(pane, -1)),
      latter: now((pane) => this.step(pane, 1)),
      full: () => (document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen()),
      maximise: () => this.maximise(this.active),
      next: () => this.go(1),
      previous: () => this.go(-1),
      link: () => { this.linked = !this.linked; if (this.linked) this.changed(this.active, "place"); },
      heat: () => { this.heat = !this.heat; this.all("showHeat"); },
      keys: () => { const list = this.element.querySelector(".keys"); list.hidden = !list.hidden; },
    };
  }

  choose(tool) { // what dragging does
    this.tool = tool;
    this.all("draw");
    const said = this.active?.note.textContent;
    if (HINTS[tool] || Object.values(HINTS).includes(said)) this.active?.say(HINTS[tool] ?? "");
  }

  act(name) {
    if (!(name in this.actions) || (!this.find(name) && !["former", "latter", "unrotate", "next", "previous", "sight"].includes(name))) return;
    if (this.find(name)?.disabled || (name === "sight" && this.find("region")?.disabled)) return;
    this.actions[name]();
    this.mark();
  }

  mark() { // what is on, in the toolbar
    const on = { heat: this.heat, link: this.linked, invert: this.active?.inverted, maximise: this.element.classList.contains("maximised") };
    for (const button of this.toolbar.querySelectorAll("button[aria-pressed]")) {
      const { tool } = button.dataset;
      button.setAttribute("aria-pressed", String(Boolean(DRAGS.includes(tool) ? tool === this.tool : on[tool])));
    }
    this.element.classList.toggle("heated", this.heat);
    this.element.dataset.drag = this.tool;
  }

  // The panes

  activate(pane) {
    typing = this;
    if (this.active === pane) return;
    this.active?.element.classList.remove("active");
    this.active = pane;
    pane?.element.classList.add("active");
    this.presets();
    if (this.actions) this.mark();
  }

  main(pane) { // large; the others lie in a strip beside it, in the order in which they hang
    if (!this.others) return;
    const focused = document.activeElement;
    for (const other of this.panes) {
      const figure = other.element.closest("figure");
      figure.classList.toggle("main", other === pane);
      if (other === pane) this.others.before(figure);
      else this.others.append(figure);
    }
    if (this.element.contains(focused)) focused.focus({ preventScroll: true });
  }

  maximise(pane) {
    if (!pane) return;
    const figure = pane.element.closest("figure");
    if (figure.classList.contains("main") || this.panes.length < 3) this.element.classList.toggle("maximised");
    this.main(pane);
    this.activate(pane);
    this.mark();
  }

  go(by) {
    const at = this.panes.indexOf(this.active);
    this.panes.at((at + by) % this.panes.length).element.focus();
    if (this.element.classList.contains("maximised")) this.main(this.active);
  }

  hang() { // by view, then the patient's right before the left, once all say what they are
    if (this.linked || this.panes.some((pane) => !pane.grey)) return;
    const rank = ({ grey: { about } }) => {
      const at = ORDER.indexOf(about.view);
      return [at < 0 ? ORDER.length : at, { right: 0, left: 1 }[about.laterality] ?? 2];
    };
    const sorted = this.panes.toSorted((one, other) => {
      const [a, b] = [rank(one), rank(other)];
      return a[0] - b[0] || a[1] - b[1] || this.panes.indexOf(one) - this.panes.indexOf(other);
    });
    if (sorted.every((pane, number) => pane === this.panes[number])) return;
    this.panes = sorted;
    this.main(this.panes.find((pane) => pane.element.closest("figure").classList.contains("main")));
  }

  changed(pane, what) {
    if (what === "loaded") { this.hang(); if (pane === this.active) this.presets(); }
    if (what === "window" && pane === this.active) this.presets();
    if (what === "place" && this.linked && pane) for (const other of this.panes) if (other !== pane && other.grey) other.follow(pane.placement);
    if (this.actions) this.mark();
  }

  // Windows of the active pane

  presets() {
    const select = this.find("preset");
    const pane = this.active;
    const windows = pane?.grey?.about.windows ?? [];
    const chosen = windows.findIndex(({ center, width }) => center === pane.window.center && width === pane.window.width);
    const names = windows.map(({ name }) => name);
    if (select.dataset.names !== names.join("|")) {
      select.dataset.names = names.join("|");
      select.replaceChildren(...names.map((name, number) => new Option(name, number)), new Option("own", -1));
    }
    select.value = String(chosen);
    select.options[select.options.length - 1].hidden = chosen >= 0;
  }

  preset(number) {
    const window = this.active?.grey?.about.windows[number];
    if (window) this.active.setWindow(window);
  }

  step(pane, by) {
    const { windows } = pane.grey.about;
    const at = windows.findIndex(({ center, width }) => center === pane.window.center && width === pane.window.width);
    this.preset((at + by + windows.length) % windows.length);
  }

  // Keys

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    const { key } = event;
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    const inPane = event.target.closest(".pane");
    if (key in moves && inPane && this.active?.grey) this.active.pan(...moves[key]);
    else if (key === "Escape" && this.element.classList.contains("maximised")) this.maximise(this.active);
    else if (key === "Escape" && !this.element.querySelector(".keys").hidden) this.act("keys");
    else if (key === "Escape" && inPane && !event.target.closest("dialog")) inPane.blur();
    else if (key === "Enter" && inPane) this.maximise(this.active);
    else {
      const button = [...this.toolbar.querySelectorAll("[data-key]")].find(({ dataset }) => dataset.key.split(" ").includes(key));
      const unseen = { "[": "former", "]": "latter", R: "unrotate", n: "next", N: "previous", S: "sight" }[key];
      if (!button && !unseen) return;
      this.act(button?.dataset.tool ?? unseen);
    }
    event.preventDefault();
  }
}

// Keys work where a viewer, or nothing that takes keys, has the focus.
document.addEventListener("keydown", (event) => {
  if (!typing?.element.isConnected) return;
  const { target } = event;
  const dialog = document.querySelector("dialog[open]");
  if (target.matches("input, select, textarea") || (dialog && !dialog.contains(typing.element))) return;
  const idle = target === document.body || target.matches("h2[tabindex], dialog");
  if (typing.element.contains(target) ? !(target.matches("button, a") && [" ", "Enter"].includes(event.key)) : idle) typing.key(event);
});

export function makeViewer(element) {
  const viewer = new Viewer(element);
  typing = viewer;
  return viewer;
}
