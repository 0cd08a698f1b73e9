// Dark unless the reader has chosen light. Loaded before the page is drawn, so that it does not flash.
{
  const root = document.documentElement;
  let chosen = "dark";
  try { chosen = localStorage.getItem("theme") === "light" ? "light" : "dark"; } catch { /* storage is blocked */ }
  root.dataset.theme = chosen;
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const other = () => (root.dataset.theme === "dark" ? "light" : "dark");
    const show = () => { button.textContent = other() === "light" ? "Light page" : "Dark page"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it lasts until the page is left */ }
      show();
    });
    show();
  });
}
