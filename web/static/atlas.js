// The atlas: the map of the indexed studies on a canvas, drawn pixel by pixel, and a list of the same studies beside it.

const find = (id) => document.getElementById(id);
const canvas = find("map");
const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
const say = (text) => { find("atlas-status").textContent = text; };
const LISTED = 100;
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#7f5fbf"];
const REST = "#8a8f98"; // of values beyond the palette, and of empty ones
const MOST = 60; // times the fitting size
const REST_AFTER = 150; // ms without a movement
const SMOOTH = 20; // ms a frame while the map moves; on a slower machine it is drawn coarser until it rests
const COARSEST = 4; // pixels of the screen for one drawn

let atlas = null; // what the server gave
let chosen = null; // Uint8Array: whether a study is selected
let count = 0; // of the selected
let size = { width: 1, height: 1 }; // CSS pixels, as all lengths here
let view = { scale: 1, x: 0, y: 0 }; // the map's upper left corner, and its side over the fitting side
let colours = null; // Uint32Array by study, 0 for one that is not shown
let hidden = new Set(); // values of the legend that are not shown
let paper = 0; // the colour of the ground
let dim = 0; // the colour of studies that are not selected
let ink = "";
let cells = null; // studies by place, for what lies under the pointer
let pointed = -1; // the study under the pointer, or in focus in the list
let lassoing = false;
let path = []; // of the lasso
let query = []; // where the study asked about lies
let image = null;
let due = false; // whether the next frame draws
let ticking = false;
let resting = 0; // the timer that ends a movement, 0 at rest
let coarse = 1; // pixels of the screen for one drawn while the map moves
let pace = 0; // ms a frame, lately
let last = 0; // the time of the last frame that drew, 0 for none in this movement

// Colours

function rgb(text) { return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16)); }
function packed(text) { const [r, g, b] = rgb(text); return (255 << 24 | b << 16 | g << 8 | r) >>> 0; } // little-endian RGBA
function theme(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function scheme() { // the values of the field that colours, each with its colour and number of studies
  const by = find("colour-by").value;
  const { names, values } = atlas.fields[by];
  const counts = new Array(names.length).fill(0);
  for (const value of values) counts[value] += 1;
  const fixed = { normal: theme("--normal"), abnormal: theme("--abnormal"), agree: theme("--normal"), disagree: theme("--abnormal") };
  const ranked = names.map((_, value) => value).sort((one, other) => counts[other] - counts[one]);
  const shades = new Map(ranked.filter((value) => names[value]).map((value, rank) => [value, fixed[names[value]] ?? PALETTE[rank] ?? REST]));
  return ranked.map((value) => ({ value, name: names[value] || "not named", count: counts[value], shade: shades.get(value) ?? REST }));
}

function tint() { // what each study is drawn with
  const { values } = atlas.fields[find("colour-by").value];
  const shades = new Uint32Array(scheme().length);
  for (const { value, shade: colour } of scheme()) shades[value] = hidden.has(value) ? 0 : packed(colour);
  colours = values.map((value) => shades[value]);
  [paper, dim, ink] = [packed(theme("--paper")), packed(theme("--line")), theme("--ink")];
  fresh();
}

function paint() {
  const entries = scheme();
  find("legend").replaceChildren(...entries.map(({ value, name, count: studies, shade }) => {
    const item = document.createElement("label");
    const box = document.createElement("input");
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    swatch.setAttribute("viewBox", "0 0 10 10");
    swatch.setAttribute("aria-hidden", "true");
    for (const [key, to] of [["cx", 5], ["cy", 5], ["r", 4.5], ["fill", shade]]) dot.setAttribute(key, to);
    swatch.append(dot);
    box.type = "checkbox";
    box.checked = !hidden.has(value);
    box.addEventListener("change", () => { if (box.checked) hidden.delete(value); else hidden.add(value); tint(); });
    item.append(box, swatch, `${name} (${studies.toLocaleString("en")})`);
    return item;
  }));
  tint();
}

function shown(study) { return colours[study] !== 0; }

// Places

function side() { return Math.max(1, Math.min(size.width, size.height) - 40); } // of the fitting map
function placeX(x) { return view.x + x * side() * view.scale; }
function placeY(y) { return view.y + (1 - y) * side() * view.scale; }

function fit() {
  view = { scale: 1, x: (size.width - side()) / 2, y: (size.height - side()) / 2 };
  fresh();
}

function zoom(factor, x = size.width / 2, y = size.height / 2) {
  const scale = Math.min(MOST, Math.max(0.5, view.scale * factor));
  const by = scale / view.scale;
  view = { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
  moved();
}

function pan(dx, dy) {
  view = { ...view, x: view.x + dx, y: view.y + dy };
  moved();
}

const SIDE = 128; // cells a side
function sortIntoCells() {
  const { x, y } = atlas;
  const at = (value) => Math.min(SIDE - 1, Math.floor(value * SIDE));
  const starts = new Uint32Array(SIDE * SIDE + 1);
  const own = Uint32Array.from(x, (value, study) => at(y[study]) * SIDE + at(value));
  for (const cell of own) starts[cell + 1] += 1;
  for (let cell = 0; cell < SIDE * SIDE; cell += 1) starts[cell + 1] += starts[cell];
  const studies = new Uint32Array(x.length);
  const next = starts.slice();
  own.forEach((cell, study) => { studies[next[cell]] = study; next[cell] += 1; });
  cells = { starts, studies };
}

function under(px, py, reach = 10) { // the nearest study that is shown, -1 for none
  const whole = side() * view.scale;
  const [cx, cy] = [(px - view.x) / whole, 1 - (py - view.y) / whole];
  const around = reach / whole;
  const low = (value) => Math.max(0, Math.floor((value - around) * SIDE));
  const high = (value) => Math.min(SIDE - 1, Math.floor((value + around) * SIDE));
  let best = -1;
  let least = reach * reach;
  for (let row = low(cy); row <= high(cy); row += 1) {
    for (let cell = row * SIDE + low(cx); cell <= row * SIDE + high(cx); cell += 1) {
      for (let at = cells.starts[cell]; at < cells.starts[cell + 1]; at += 1) {
        const study = cells.studies[at];
        const distance = (placeX(atlas.x[study]) - px) ** 2 + (placeY(atlas.y[study]) - py) ** 2;
        if (distance < least && shown(study)) [best, least] = [study, distance];
      }
    }
  }
  return best;
}

// Drawing

function disc(radius) { // the rows of a disc: from, to
  const rows = [];
  for (let dy = -radius; dy <= radius; dy += 1) rows.push(Math.round(Math.sqrt(radius * radius + radius - dy * dy)));
  return rows;
}

function moved() { // until it rests, the map may be drawn coarser
  clearTimeout(resting);
  resting = setTimeout(() => { resting = 0; fresh(false); list(); }, REST_AFTER);
  fresh(false);
}

function fresh(listed = true) {
  due = Boolean(atlas);
  if (due && !ticking) { ticking = true; requestAnimationFrame(tick); }
  if (listed) { clearTimeout(listing); listing = setTimeout(list, REST_AFTER); }
}

function tick(now) { // a frame; while the map moves, frames go on, so that their pace is known
  if (last) pace = 0.8 * pace + 0.2 * Math.min(now - last, 3 * SMOOTH); // one long frame says little
  last = due && resting ? now : 0;
  if (pace > SMOOTH && coarse < COARSEST) [coarse, pace] = [coarse + 1, 0];
  if (due) draw();
  due = false;
  ticking = Boolean(resting);
  if (ticking) requestAnimationFrame(tick);
}

function draw() {
  const grain = devicePixelRatio / (resting ? coarse : 1); // pixels drawn for one of CSS
  const [width, height] = [size.width, size.height].map((length) => Math.max(1, Math.round(length * grain)));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  if (image?.width !== width || image.height !== height) image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill(paper);
  const crowd = Math.sqrt(atlas.x.length) / 40;
  const radius = Math.min(8, Math.max(1, (4 * Math.sqrt(view.scale)) / Math.max(1, crowd)));
  dots(pixels, width, height, grain, Math.round(radius * grain - 0.25));
  context.putImageData(image, 0, 0);
  context.setTransform(grain, 0, 0, grain, 0, 0);
  mark(radius);
}

function dots(pixels, width, height, grain, radius) { // a disc for each study
  const rows = disc(radius);
  const { x, y } = atlas;
  const whole = side() * view.scale * grain;
  const [left, top] = [view.x * grain, view.y * grain + whole];
  const [right, bottom] = [width - radius, height - radius];
  for (let study = 0; study < x.length; study += 1) {
    const px = Math.round(left + x[study] * whole);
    const py = Math.round(top - y[study] * whole);
    if (px < radius || py < radius || px >= right || py >= bottom || !colours[study]) continue;
    const colour = count && !chosen[study] ? dim : colours[study];
    for (let dy = -radius; dy <= radius; dy += 1) {
      const half = rows[dy + radius];
      const from = (py + dy) * width + px - half;
      for (let at = from; at <= from + 2 * half; at += 1) pixels[at] = colour;
    }
  }
}

function ring(x, y, radius, line = 2) {
  context.lineWidth = line;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.stroke();
}

function mark(radius) { // what is under the pointer, the query, the lasso
  context.strokeStyle = ink;
  if (pointed >= 0) ring(placeX(atlas.x[pointed]), placeY(atlas.y[pointed]), radius + 4);
  for (const { x, y } of query) {
    const [px, py, arm] = [placeX(x), placeY(y), 14];
    ring(px, py, 9, 3);
    context.beginPath();
    for (const [dx, dy] of [[arm, 0], [-arm, 0], [0, arm], [0, -arm]]) {
      context.moveTo(px + dx / 2, py + dy / 2);
      context.lineTo(px + dx, py + dy);
    }
    context.stroke();
  }
  if (path.length > 1) {
    context.lineWidth = 2;
    context.beginPath();
    for (const [x, y] of path) context.lineTo(x, y);
    context.closePath();
    context.stroke();
  }
}

let listing = 0;

function resize() {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (size.width === width && size.height === height) return;
  size = { width, height };
  coarse = 1;
  if (atlas) fit();
}

// The list: the selected studies, else those in sight

function inSight(study) {
  const [px, py] = [placeX(atlas.x[study]), placeY(atlas.y[study])];
  return px >= 0 && py >= 0 && px < size.width && py < size.height && shown(study);
}

function field(name, study) { const { names, values } = atlas.fields[name]; return names[values[study]]; }
function picture(study) { return `/api/cases/${encodeURIComponent(atlas.cases[study])}/image?small=true`; }
function address(study) { return `/indexed?${new URLSearchParams({ case: atlas.cases[study] })}`; }
function words(study) { return ["label", "part", "view"].map((name) => field(name, study)).filter(Boolean).join(", "); }

function listed() { return Array.from(atlas.x.keys()).filter(count ? (study) => chosen[study] : inSight); }

function list() {
  const studies = listed();
  const focused = document.activeElement?.dataset?.study;
  find("list-title").textContent = `${studies.length.toLocaleString("en")} studies ${count ? "selected" : "in sight"}`;
  find("studies").replaceChildren(...studies.slice(0, LISTED).map((study) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = address(study);
    link.dataset.study = study;
    link.append(atlas.studies[study]);
    const about = document.createElement("span");
    about.className = "quiet";
    about.textContent = ` ${words(study)}`;
    link.append(about);
    for (const kind of ["focus", "mouseenter"]) link.addEventListener(kind, () => point(study));
    item.append(link);
    return item;
  }));
  find("studies-more").textContent = studies.length > LISTED ? `The first ${LISTED} are listed. Zoom in or select fewer to see others; the CSV file has all.` : "";
  for (const id of ["csv", "ask-mean", "ask-each", "unselect"]) find(id).disabled = !count;
  find("ask-each").disabled = !count || count > Number(find("ask-each").dataset.most);
  if (focused) find("studies").querySelector(`[data-study="${CSS.escape(focused)}"]`)?.focus();
}

function point(study) {
  if (study === pointed) return;
  pointed = study;
  const card = find("card");
  card.hidden = study < 0;
  if (study >= 0) {
    const [px, py] = [placeX(atlas.x[study]), placeY(atlas.y[study])];
    find("card-picture").src = picture(study);
    find("card-words").textContent = `${atlas.studies[study]}: ${words(study)}; classifier and vote: ${field("agreement", study)}`;
    card.style.left = `${Math.max(0, Math.min(px + 14, size.width - 190))}px`;
    card.style.top = `${Math.max(0, Math.min(py + 14, size.height - 240))}px`;
  }
  fresh(false);
}

// Selecting

function inside(x, y) { // whether a point lies within the lasso: an odd number of its edges to the right
  let odd = false;
  for (let at = 0, last = path.length - 1; at < path.length; last = at, at += 1) {
    const [[ax, ay], [bx, by]] = [path[at], path[last]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

function select(test) {
  chosen.fill(0);
  count = 0;
  if (test) {
    for (let study = 0; study < chosen.length; study += 1) {
      if (shown(study) && test(study)) { chosen[study] = 1; count += 1; }
    }
  }
  say(count ? `${count.toLocaleString("en")} studies selected` : "Nothing is selected");
  fresh();
}

function close() { // the lasso
  if (path.length > 2) select((study) => inside(placeX(atlas.x[study]), placeY(atlas.y[study])));
  path = [];
  fresh();
}

function lasso(on) {
  lassoing = on;
  find("lasso").setAttribute("aria-pressed", String(on));
  canvas.classList.toggle("lassoing", on);
}

function safe(text) { // a cell that no spreadsheet takes for a formula
  const apart = /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(apart) ? `"${apart.replaceAll('"', '""')}"` : apart;
}

function save() {
  const names = ["label", "part", "view", "split", "agreement"];
  const lines = listed().map((study) => [atlas.studies[study], atlas.cases[study], ...names.map((name) => field(name, study))].map(safe).join(","));
  const file = new Blob([`${["study", "case", ...names].join(",")}\n${lines.join("\n")}\n`], { type: "text/csv" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "selection.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function ask(mode) {
  find("selected-cases").value = JSON.stringify(listed().map((study) => atlas.cases[study]));
  find("selected-mode").value = mode;
  find("selection").submit();
}

// Pointer and keys

const pointers = new Map();
function at(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

let dragged = false;
canvas.addEventListener("pointerdown", (event) => {
  if (!atlas || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  dragged = false;
  path = lassoing || event.shiftKey ? [at(event)] : [];
});
canvas.addEventListener("pointermove", (event) => {
  if (!atlas) return;
  const [x, y] = at(event);
  const before = pointers.get(event.pointerId);
  if (!before) { point(under(x, y)); return; }
  if (Math.hypot(x - before[0], y - before[1]) < 3 && !dragged) return;
  dragged = true;
  pointers.set(event.pointerId, [x, y]);
  if (path.length) {
    path.push([x, y]);
    fresh(false);
  } else if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const span = ([px, py]) => Math.hypot(px - other[0], py - other[1]) || 1;
    zoom(span([x, y]) / span(before), (x + other[0]) / 2, (y + other[1]) / 2);
  } else {
    point(-1);
    pan(x - before[0], y - before[1]);
  }
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId) || !atlas) return;
    if (path.length) { close(); lasso(false); return; }
    const study = under(...at(event));
    if (kind === "pointerup" && !dragged && study >= 0) location.assign(address(study));
  });
}
canvas.addEventListener("pointerleave", () => { if (!pointers.size) point(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...at(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !atlas) return;
  const step = size.width / 12;
  const keys = {
    ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0), ArrowUp: () => pan(0, step), ArrowDown: () => pan(0, -step),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
    l: () => lasso(!lassoing), a: () => select(inSight), Escape: () => { lasso(false); path = []; select(null); },
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

for (const [id, act] of [
  ["lasso", () => lasso(!lassoing)], ["select-sight", () => select(inSight)], ["unselect", () => select(null)], ["fit", fit],
  ["in", () => zoom(1.25)], ["out", () => zoom(0.8)], ["csv", save], ["ask-mean", () => ask("mean")], ["ask-each", () => ask("each")],
]) find(id).addEventListener("click", () => { if (atlas) act(); });
find("colour-by").addEventListener("change", () => { hidden = new Set(); paint(); });
new ResizeObserver(resize).observe(canvas.parentElement);
new MutationObserver(() => { if (atlas) paint(); }).observe(document.documentElement, { attributes: true });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (atlas) paint(); });

// Start

async function json(url) {
  const reply = await fetch(url, { headers: { "X-Fragment": "1" } });
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

try {
  atlas = await json("/api/atlas");
  atlas.x = Float32Array.from(atlas.x);
  atlas.y = Float32Array.from(atlas.y);
  for (const coded of Object.values(atlas.fields)) coded.values = Uint32Array.from(coded.values);
  chosen = new Uint8Array(atlas.x.length);
  sortIntoCells();
  resize();
  fit();
  paint();
  say(`${atlas.x.length.toLocaleString("en")} studies`);
  const study = canvas.dataset.query;
  if (study) {
    ({ views: query } = await json(`/api/atlas/place?${new URLSearchParams({ study })}`));
    say(query.length > 1 ? "The crosses mark the views that you asked about" : "The cross marks the study that you asked about");
    fresh();
  }
} catch (error) {
  say(`The atlas cannot be shown: ${error.message}`);
}
