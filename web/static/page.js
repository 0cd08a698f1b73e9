// The page: views are dropped, pasted or chosen, sent, and the answer that the server has drawn is put in.
// Without scripts, the form and the links work as plain pages.

import { makeViewer } from "./viewer.js";

const part = { "X-Fragment": "1", Accept: "text/html, application/json" };
const find = (id) => document.getElementById(id);
const [form, drop, preview, answer] = ["ask", "drop", "preview", "answer"].map(find);
let views = []; // the files of this study
let sending = null;

function say(text) { find("status").textContent = text; }
function complain(text) { find("problem").textContent = text && whole(text); }
function spoken(title) { return title.textContent.replace(/^\W+/, ""); }
function whole(text) { // as a sentence; a file's name at its beginning stays as it is
  const first = /^[a-z]+[ ,]/.test(text) ? text[0].toUpperCase() : text[0];
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

// Which views

function take(files, adding) {
  if (!files.length) return;
  const all = adding ? [...views, ...files] : [...files];
  const most = Number(form.dataset.views);
  const megabytes = Number(form.dataset.megabytes);
  complain("");
  if (all.length > most) {
    complain(`at most ${most} radiographs of one study can be sent at once; these are ${all.length}`);
  } else if (all.reduce((sum, file) => sum + file.size, 0) > megabytes * 2 ** 20) {
    complain(`these files are larger than ${megabytes} MiB together; send fewer or smaller ones`);
  } else {
    views = all;
    draw();
    ask();
  }
}

function draw() {
  for (const image of preview.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  preview.replaceChildren(...views.map((file, number) => {
    const item = document.createElement("li");
    const image = document.createElement("img");
    image.alt = `Preview of view ${number + 1}`;
    image.src = URL.createObjectURL(file);
    image.addEventListener("error", () => { // a kind that the server reads, and the browser does not
      const blank = document.createElement("span");
      blank.className = "blank";
      image.replaceWith(blank);
    });
    item.append(image, file.name);
    return item;
  }));
  find("again").hidden = !views.length;
}

// Asking

function ask() {
  sending?.abort();
  forget();
  const data = new FormData(form);
  data.delete("files");
  for (const file of views) data.append("files", file);
  const request = sending = new XMLHttpRequest(); // fetch does not say how much is sent
  const busy = (is) => { find("progress").hidden = !is; find("submit").disabled = is; answer.classList.toggle("busy", is); };
  const fail = (text) => { busy(false); say(""); answer.replaceChildren(); complain(text); };
  request.upload.addEventListener("progress", ({ loaded, total, lengthComputable }) => {
    if (lengthComputable) find("bar").value = (100 * loaded) / total;
  });
  request.upload.addEventListener("load", () => { find("bar").removeAttribute("value"); say("Reading and comparing."); });
  request.addEventListener("load", () => {
    if (request.status === 401) location.assign("/login");
    else if (request.status === 200) { busy(false); put(request.responseText); }
    else fail(sentence(request.responseText, request.status));
  });
  request.addEventListener("abort", () => busy(false));
  request.addEventListener("error", () => fail("the server cannot be reached; is it still running?"));
  find("bar").value = 0;
  busy(true);
  complain("");
  say("Sending.");
  request.open("POST", form.action);
  for (const [name, value] of Object.entries(part)) request.setRequestHeader(name, value);
  request.send(data);
}

function sentence(text, status) {
  try { return JSON.parse(text).error; } catch { return `the server answered with status ${status}`; }
}

function put(html) {
  answer.innerHTML = html; // the server's own, with every name in it escaped; scripts in it would not run
  const viewer = answer.querySelector("[data-viewer]");
  if (viewer) makeViewer(viewer, answer.querySelector(".tools"));
  const title = find("verdict-title");
  say(`Answered: ${spoken(title)}.`);
  title.focus();
}

function forget() { // the study that the server keeps for the heatmaps on this page
  const study = answer.querySelector(".filters")?.getAttribute("action").split("/").pop();
  if (study) fetch(`/api/studies/${study}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

// Filters: verdict and gallery change, the pictures stay

async function filter(filters) {
  const chosen = document.activeElement?.id;
  const similar = find("similar");
  similar.classList.add("busy");
  try {
    const reply = await fetch(`${filters.getAttribute("action")}?${new URLSearchParams(new FormData(filters))}`, { headers: part });
    const text = await reply.text();
    if (!reply.ok) throw new Error(sentence(text, reply.status));
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const id of ["verdict", "similar", "sources"]) find(id).replaceWith(fresh.getElementById(id));
    if (chosen) find(chosen)?.focus();
    say(`Filtered: ${spoken(find("verdict-title"))}.`);
  } catch (error) {
    similar.classList.remove("busy");
    beside(filters, error.message);
  }
}

function beside(element, text) {
  const problem = document.createElement("p");
  problem.className = "problem";
  problem.setAttribute("role", "alert");
  problem.textContent = whole(text);
  if (element.nextElementSibling?.classList.contains("problem")) element.nextElementSibling.remove();
  element.after(problem);
}

// Comparison

async function compare(link) {
  const dialog = find("comparison");
  try {
    const reply = await fetch(link.href, { headers: part });
    const text = await reply.text();
    if (!reply.ok) throw new Error(sentence(text, reply.status));
    find("comparison-content").innerHTML = text;
    makeViewer(dialog.querySelector("[data-viewer]"), dialog.querySelector(".tools"));
    dialog.showModal();
    find("comparison-title").focus();
  } catch (error) {
    beside(link, error.message);
  }
}

// What happens to the page

find("options").append(find("asking")); // dropping and choosing ask by themselves

for (const [id, adding] of [["files", false], ["more", true]]) {
  find(id).addEventListener("change", ({ target }) => { take(target.files, adding); target.value = ""; });
}
find("new").addEventListener("click", () => {
  sending?.abort();
  forget();
  views = [];
  draw();
  answer.replaceChildren();
  form.reset();
  complain("");
  say("");
  find("files").focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (views.length) ask();
  else complain("choose a radiograph first, drop one here, or paste it");
});
document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files, false));
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files, false);
  });
}
document.addEventListener("submit", (event) => {
  if (event.target.matches(".filters")) { event.preventDefault(); filter(event.target); }
});
document.addEventListener("change", (event) => {
  const filters = event.target.closest(".filters");
  if (filters) filter(filters);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-compare]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); compare(link); }
});
find("comparison").addEventListener("close", () => find("comparison-content").replaceChildren());
addEventListener("pagehide", () => { if (views.length) forget(); });
take(find("files").files, false); // chosen before this script ran
const first = answer.querySelector("[data-viewer]"); // of an answer that came with the page
if (first) makeViewer(first, answer.querySelector(".tools"));
