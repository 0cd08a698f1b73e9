// Says that the list on the server has changed. The page itself stays as it is until its reader asks for the new list.

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
