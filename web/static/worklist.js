// Says when the list on the server is no longer the one on this page; the page itself stays as it is until it is asked for anew.

const EVERY = 5000; // milliseconds
const news = document.getElementById("news");

async function look() {
  if (document.hidden) return;
  const reply = await fetch("/worklist/changes").catch(() => null); // a server that is away may come back
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
