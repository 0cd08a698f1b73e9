// A study of the index beside the one that was asked about: other radiographs of both, and the next and previous study.

import { makeViewer } from "./viewer.js";

// `content` has what comparison.html made; `go(link)` shows another study of the gallery.
export function makeComparison(content, go) {
  const viewer = makeViewer(content.querySelector("[data-viewer]"));
  const head = content.querySelector(".comparison-head");
  neighbours(head, go);
  for (const strip of content.querySelectorAll(".strip")) {
    const buttons = [...strip.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        show(viewer, head, button.dataset);
      });
    }
  }
  return viewer;
}

function neighbours(head, go) {
  const links = [...document.querySelectorAll(".gallery [data-compare]")];
  const at = links.findIndex((link) => new URL(link.href).searchParams.get("case") === head.dataset.case);
  head.querySelector("#comparison-rank").textContent = at < 0 ? "" : `${at + 1} of ${links.length}`;
  for (const button of head.querySelectorAll("[data-neighbour]")) {
    const link = at < 0 ? undefined : links[at + Number(button.dataset.neighbour)];
    button.hidden = !links.length;
    button.disabled = !link;
    button.addEventListener("click", () => go(link));
  }
}

// Another view of one's own (`own`, its number), or another radiograph of the neighbour (`show`, its name).
function show(viewer, head, { own, show: other, similar, picture, part, view }) {
  Object.assign(head.dataset, own ? { number: own } : { case: other, similar });
  const { base, number, case: name } = head.dataset;
  const heat = (where) => `${base}/${number}/likeness?${new URLSearchParams({ case: name, where })}`;
  const [mine, theirs] = viewer.panes;
  for (const [pane, where] of [[mine, "view"], [theirs, "case"]]) {
    Object.assign(pane, { heat: null, heatOf: "" }).element.dataset.heat = heat(where);
  }
  if (own) mine.show({ values: `${base}/${number}/values` });
  else theirs.show({ picture, part, view });
  const words = { number, similarity: head.dataset.similar.split(" ")[number - 1] };
  for (const said of head.querySelectorAll("[data-said]")) said.textContent = words[said.dataset.said];
  mine.corner("file").textContent = `View ${number}`;
  for (const named of [mine.element, mine.canvas]) {
    named.setAttribute("aria-label", named.getAttribute("aria-label").replace(/view \d+/, `view ${number}`));
  }
  viewer.all("showHeat");
}
