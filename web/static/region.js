// Search by a region. A viewer sends the event "region" from a pane; its detail is the rectangle, in parts of the
// radiograph's width and height. The studies with a region like it are put below the viewer.

document.addEventListener("region", async ({ target, detail }) => {
  const base = /\/api(\/studies\/[^/]+\/views\/\d+)/.exec(target.dataset.values ?? target.dataset.image ?? "")?.[1];
  const result = document.getElementById("regions");
  if (!base || !result) return;
  const part = { "X-Fragment": "1", Accept: "text/html, application/json" };
  result.replaceChildren("Comparing the region.");
  try {
    const { x, y, width, height } = detail;
    const reply = await fetch(`${base}/regions?${new URLSearchParams({ x, y, width, height })}`, { headers: part });
    const text = await reply.text();
    if (!reply.ok) throw new Error(JSON.parse(text).error);
    result.innerHTML = text; // the server's own, with every name in it escaped
    document.getElementById("regions-title").focus();
  } catch (error) {
    result.replaceChildren(`The region could not be compared: ${error.message}.`);
  }
});
