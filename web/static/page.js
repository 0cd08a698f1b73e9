// The page: views are dropped, pasted or chosen, sent, and the answer that the server has drawn is put in.
// Each answer has an address. What is on screen stays until something new can be shown.
// Without scripts, the form and the links work as plain pages.

import { makeComparison } from "./comparison.js";
import { makeViewer } from "./viewer.js";

const part = { "X-Fragment": "1", Accept: "text/html, application/json" };
const find = (id) => document.getElementById(id);
const [form, drop, preview, answer] = ["ask", "drop", "preview", "answer"].map(find);
const sent = new Map(); // by study: the files that this page has sent for it, to be sent again if it is forgotten
let shown = ""; // the study on screen, if the server remembers it
let sending = null;
let asked = []; // the files of the last question
let askedAbout = ""; // the study to which they were added
let onScreen = ""; // the address of what is on screen
let viewer = null;
let dropped = []; // files that wait for a choice

function say(text) { find("status").textContent = text; }
function spoken(title) { return title.textContent.replace(/^\W+/, ""); }
function whole(text) { // as a sentence; a file's name at its beginning stays as it is
  const first = /^[a-z]+[ ,]/.test(text) ? text[0].toUpperCase() : text[0];
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "plain";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

function complain(text, ...buttons) { find("problem").replaceChildren(text && whole(text), ...buttons); }

// What goes wrong on the way to the server. The screen stays as it is.

class Trouble extends Error {
  constructor(text, status = 0, kind = "") {
    super(text);
    Object.assign(this, { status, kind });
  }
}

function refused(text, status) {
  try {
    const { error, type } = JSON.parse(text);
    return new Trouble(error, status, type.split(":").pop());
  } catch { return new Trouble(`the server answered with status ${status}`, status); }
}

async function get(url, options = {}) {
  let reply;
  try { reply = await fetch(url, { headers: part, ...options }); } catch { throw new Trouble("the server cannot be reached"); }
  const text = await reply.text();
  if (!reply.ok) throw refused(text, reply.status);
  return text;
}

function warn(trouble, again) {
  const bar = find("trouble");
  const lines = [`${whole(trouble.message)} What is on screen stays.`];
  const buttons = [];
  if (trouble.status === 401) {
    lines[0] = "Your session has ended. What is on screen stays.";
    const login = document.createElement("a");
    Object.assign(login, { href: "/login", target: "_blank", rel: "noopener", textContent: "Log in (new tab)" });
    buttons.push(login);
  }
  if (trouble.status === 404 && sent.has(shown)) {
    buttons.push(button("Send it again", () => { bar.replaceChildren(); ask(sent.get(shown)); }));
  } else if (again) {
    buttons.push(button("Try again", () => { bar.replaceChildren(); again(); }));
  }
  bar.replaceChildren(...lines, ...buttons, button("Close", () => bar.replaceChildren()));
}

// Which views

function take(files, adding = false) {
  if (!files.length) return;
  const count = files.length + (adding ? preview.children.length : 0);
  const most = Number(form.dataset.views);
  const megabytes = Number(form.dataset.megabytes);
  const size = [...files].reduce((sum, file) => sum + file.size, 0);
  complain("");
  if (count > most) {
    complain(`at most ${most} radiographs of one study can be sent at once; these are ${count}`);
  } else if (size > megabytes * 2 ** 20) {
    complain(`these files are larger than ${megabytes} MiB together; send fewer or smaller ones`);
  } else {
    const waiting = adding && isBusy(); // more views of what is being asked
    ask(waiting ? [...asked, ...files] : [...files], waiting ? Boolean(askedAbout) : adding);
  }
}

function offer(files) { // a second drop may be another study, or more views of the one on screen
  if (!files.length) return;
  if (!shown && !isBusy()) { take(files); return; }
  dropped = files;
  find("dropped").textContent = files.length === 1 ? files[0].name : `${files.length} files`;
  find("choice").hidden = false;
  find("choice-new").focus();
}

async function filesOf(transfer) { // also of folders
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) files.push(await new Promise((done, failed) => entry.file(done, failed)));
    const reader = entry.isDirectory ? entry.createReader() : null;
    for (let more = reader; more;) { // a reader gives at most 100 at once
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      entries.push(...some);
      more = some.length;
    }
  }
  return readable(files).sort((one, other) => one.name.localeCompare(other.name));
}

function readable(files) { // of a folder: what may be a radiograph by its name; DICOM often has no ending
  const endings = find("files").accept.split(",").filter((ending) => ending.startsWith("."));
  return [...files].filter(({ name }) => {
    const ending = /\.[a-z]\w*$/i.exec(name)?.[0].toLowerCase();
    return !name.startsWith(".") && name !== "DICOMDIR" && (!ending || endings.includes(ending));
  });
}

function list(items) { // of [name, picture, remove]
  for (const image of preview.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  preview.replaceChildren(...items.map(([name, picture, remove], number) => {
    const item = document.createElement("li");
    const image = document.createElement("img");
    image.alt = `Preview of view ${number + 1}`;
    image.src = picture;
    image.addEventListener("error", () => { // a kind that the server reads, and the browser does not
      const blank = document.createElement("span");
      blank.className = "blank";
      image.replaceWith(blank);
    });
    const words = document.createElement("span");
    words.className = "name";
    words.textContent = words.title = name;
    item.append(image, words);
    if (remove) {
      const away = button("×", remove);
      away.title = "Remove this view";
      away.setAttribute("aria-label", `Remove view ${number + 1}, ${name}`);
      item.append(away);
    }
    return item;
  }));
  find("again").hidden = !items.length;
}

function listStudy(study, files) { // as the server has read them, DICOM too
  list(files.map((name, number) => [
    name,
    `/api/studies/${study}/views/${number + 1}/image?small=true`,
    files.length > 1 && (() => remove(study, number + 1)),
  ]));
}

async function remove(study, number) {
  try {
    put(await get(`/studies/${study}/remove`, { method: "POST", body: new URLSearchParams({ view: number }) }));
  } catch (trouble) { warn(trouble, () => remove(study, number)); }
}

// Asking

function ask(files, adding = false) {
  sending?.abort();
  find("choice").hidden = true;
  const former = adding ? shown : "";
  asked = files;
  askedAbout = former;
  const data = new FormData(form);
  data.delete("files");
  for (const file of files) data.append("files", file);
  if (former) data.set("add_to", former);
  else list(files.map((file) => [file.name, URL.createObjectURL(file)]));
  const request = sending = new XMLHttpRequest(); // fetch does not say how much is sent
  const busy = (is) => { find("progress").hidden = !is; find("submit").disabled = is; answer.classList.toggle("busy", is); };
  const fail = (trouble) => {
    busy(false);
    say("");
    if (shown) listStudy(shown, viewsShown()); // what is on screen is still that study
    if ([0, 401, 503].includes(trouble.status) || trouble.status === 404) warn(trouble, () => ask(files, adding));
    else if (trouble.kind === "several-studies") {
      complain(trouble.message, button("They are one study", () => { find("one-study").checked = true; ask(files, adding); }));
    } else complain(trouble.message);
  };
  request.upload.addEventListener("progress", ({ loaded, total, lengthComputable }) => {
    if (lengthComputable) find("bar").value = (100 * loaded) / total;
  });
  request.upload.addEventListener("load", () => { find("bar").removeAttribute("value"); say("Reading and comparing."); });
  request.addEventListener("load", () => {
    if (request.status !== 200) { fail(refused(request.responseText, request.status)); return; }
    busy(false);
    put(request.responseText);
    if (shown) sent.set(shown, [...(former ? sent.get(former) ?? [] : []), ...files]);
  });
  request.addEventListener("abort", () => busy(false));
  request.addEventListener("error", () => fail(new Trouble("the server cannot be reached; is it still running?")));
  find("bar").value = 0;
  busy(true);
  complain("");
  find("trouble").replaceChildren();
  say("Sending.");
  request.open("POST", form.action);
  for (const [name, value] of Object.entries(part)) request.setRequestHeader(name, value);
  request.send(data);
}

function isBusy() { return !find("progress").hidden; }
function viewsShown() { return JSON.parse(find("verdict").dataset.files); }

function put(html, address = "") {
  answer.innerHTML = html; // the server's own, with every name in it escaped; scripts in it would not run
  present();
  if (shown && !address) history.pushState(null, "", `/studies/${shown}`);
  onScreen = current();
  const title = find("verdict-title");
  say(`Answered: ${spoken(title)}.`);
  title.focus();
}

function present() { // an answer that has been put in, or that came with the page
  const element = answer.querySelector("[data-viewer]");
  viewer = element && makeViewer(element);
  shown = find("verdict").dataset.study;
  if (shown) listStudy(shown, viewsShown());
}

function clear() {
  sending?.abort();
  shown = "";
  asked = [];
  list([]);
  answer.replaceChildren();
  find("choice").hidden = true;
  find("trouble").replaceChildren();
  complain("");
  say("");
}

function current() { return location.pathname + location.search; }

async function visit() { // after going back or forward
  const address = current();
  if (find("comparison").open) find("comparison").close(); // going back closes it
  if (address === onScreen) return;
  if (location.pathname === "/") { clear(); onScreen = address; return; }
  try {
    const html = await get(address);
    if (address === current()) put(html, address);
  } catch (trouble) { warn(trouble, visit); }
}

// Filters: verdict and gallery change, the pictures stay

async function filter(filters) {
  const chosen = document.activeElement?.id;
  const similar = find("similar");
  const address = `${filters.getAttribute("action")}?${new URLSearchParams(new FormData(filters))}`;
  similar.classList.add("busy");
  try {
    const fresh = new DOMParser().parseFromString(await get(address), "text/html");
    for (const id of ["verdict", "nearest", "similar", "sources"]) find(id).replaceWith(fresh.getElementById(id));
    history.pushState(null, "", address);
    onScreen = current();
    if (chosen) find(chosen)?.focus();
    say(`Filtered: ${spoken(find("verdict-title"))}.`);
  } catch (trouble) {
    similar.classList.remove("busy");
    warn(trouble, () => filter(filters));
  }
}

// Comparison

async function compare(link) {
  const dialog = find("comparison");
  try {
    find("comparison-content").innerHTML = await get(link.href);
    makeComparison(find("comparison-content"), compare);
    if (!dialog.open) {
      history.pushState({ comparison: true }, ""); // so that going back closes it
      dialog.showModal();
    }
    find("comparison-title").focus();
  } catch (trouble) { warn(trouble, () => compare(link)); }
}

// What happens to the page

find("options").append(find("asking")); // dropping and choosing ask by themselves

for (const [id, adding] of [["files", false], ["more", true]]) {
  find(id).addEventListener("change", ({ target }) => { take(target.files, adding); target.value = ""; });
}
find("folder").addEventListener("change", ({ target }) => { offer(readable(target.files)); target.value = ""; });
find("new").addEventListener("click", () => {
  clear();
  form.reset();
  if (location.pathname !== "/") history.pushState(null, "", "/");
  onScreen = current();
  find("files").focus();
});
find("forget").addEventListener("click", async () => {
  try { await get(`/api/studies/${shown}`, { method: "DELETE" }); } catch (trouble) { warn(trouble); return; }
  sent.delete(shown);
  clear();
  history.replaceState(null, "", "/");
  onScreen = current();
  say("Forgotten.");
});
find("choice-new").addEventListener("click", () => { find("choice").hidden = true; take(dropped); });
find("choice-more").addEventListener("click", () => { find("choice").hidden = true; take(dropped, true); });
find("choice-cancel").addEventListener("click", () => { find("choice").hidden = true; dropped = []; });
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const files = sent.get(shown) ?? asked;
  if (files.length) ask(files);
  else complain("choose a radiograph first, drop one here, or paste it");
});
document.addEventListener("paste", ({ clipboardData }) => offer([...clipboardData.files]));
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, async (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") offer(await filesOf(event.dataTransfer));
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
  if (event.target.closest("[data-heat-switch]")) viewer?.act("heat");
});
find("comparison").addEventListener("close", () => {
  find("comparison-content").replaceChildren();
  if (history.state?.comparison) history.back();
});
addEventListener("popstate", visit);
take(find("files").files, false); // chosen before this script ran
if (find("verdict")) present(); // an answer that came with the page
onScreen = current();
