// Says that the list on the server has changed. The page itself stays as it is until its reader asks for the new list.

for (const time of document.querySelectorAll("time")) { // as the reader's clock has it
  const moment = new Date(time.dateTime);
  const today = moment.toDateString() === new Date().toDateString();
  time.textContent = moment.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  time.title = moment.toString();
}

const EVERY = 5000; // milliseconds
const news = document.getElementById("news");

async function look() {
  if (document.hidden) return;
  const reply = await fetch("/worklist/changes").catch(() => null); // the server may come back
  if (reply && !reply.ok) clearInterval(timer); // the session has ended
  if (!reply?.ok || (await reply.json()).changes === Number(news.dataset.changes) || news.firstChild) return;
  const link = document.createElement("a");
  link.href = "/worklist";
  link.textContent = "Show it";
  news.append("The list has changed. ", link);
  clearInterval(timer);
}

const timer = setInterval(look, EVERY);
document.addEventListener("visibilitychange", look);
