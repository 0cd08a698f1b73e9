// A study of the index beside the one that was asked about: its other radiographs, and the next and previous study.

import { makeViewer } from "./viewer.js";

// `content` has what comparison.html made; `go(link)` shows another study of the gallery.
export function makeComparison(content, go) {
  const viewer = makeViewer(content.querySelector("[data-viewer]"));
  const head = content.querySelector(".comparison-head");
  neighbours(head, go);
  const buttons = [...content.querySelectorAll("[data-show]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      show(viewer, button.dataset);
    });
  }
  return viewer;
}

function neighbours(head, go) {
  const links = [...document.querySelectorAll("[data-compare]")];
  const at = links.findIndex((link) => new URL(link.href).searchParams.get("case") === head.dataset.case);
  for (const button of head.querySelectorAll("[data-neighbour]")) {
    const link = at < 0 ? undefined : links[at + Number(button.dataset.neighbour)];
    button.hidden = !links.length;
    button.disabled = !link;
    button.addEventListener("click", () => go(link));
  }
}

function show(viewer, { show: name, picture, part, view }) {
  for (const pane of viewer.panes) {
    const heat = new URL(pane.element.dataset.heat, location.href);
    heat.searchParams.set("case", name);
    const address = heat.pathname + heat.search;
    if (pane.element.dataset.side === "case") pane.show({ picture, part, view, heat: address });
    else Object.assign(pane, { heat: null, heatOf: "" }).element.dataset.heat = address;
  }
  viewer.all("showHeat");
}
