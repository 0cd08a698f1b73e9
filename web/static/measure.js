// Lengths and angles on a radiograph, in its own pixels.

export function lengthText([a, b], spacing) {
  const pixels = Math.hypot(b.x - a.x, b.y - a.y);
  if (!spacing) return `${pixels.toFixed(0)} px (no spacing known)`;
  return `${(pixels * spacing.millimetres).toFixed(1)} mm${spacing.where ? ` ${spacing.where}` : ""}`;
}

export function angleText([a, corner, b]) {
  const turn = Math.atan2(a.y - corner.y, a.x - corner.x) - Math.atan2(b.y - corner.y, b.x - corner.x);
  const degrees = Math.abs(((turn * 180) / Math.PI + 540) % 360 - 180);
  return `${degrees.toFixed(1)}°`;
}

export function measureText(mark, spacing) {
  if (mark.kind === "length") return mark.points.length === 2 ? lengthText(mark.points, spacing) : "";
  return mark.points.length === 3 ? angleText(mark.points) : "";
}

function corners([a, b]) { // of a rectangle, back to the first
  return b ? [a, { x: b.x, y: a.y }, b, { x: a.x, y: b.y }, a] : [a];
}

// Draws marks; `place` gives the position on the canvas of a point in the radiograph.
export function drawMarks(context, marks, place, spacing, ratio) {
  context.save();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "600 13px system-ui, sans-serif";
  context.lineJoin = "round";
  for (const mark of marks) {
    const points = (mark.kind === "region" ? corners(mark.points) : mark.points).map(place);
    for (const [colour, width] of [["#000", 4], ["#ffe14d", 1.75]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      points.forEach(({ x, y }, number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
      for (const { x, y } of points) { context.moveTo(x + 3, y); context.arc(x, y, 3, 0, 7); }
      context.stroke();
    }
    const text = measureText(mark, spacing);
    const last = points.at(-1);
    if (!text || !last) continue;
    context.lineWidth = 4;
    context.strokeStyle = "#000";
    context.fillStyle = "#ffe14d";
    context.strokeText(text, last.x + 8, last.y - 8);
    context.fillText(text, last.x + 8, last.y - 8);
  }
  context.restore();
}
