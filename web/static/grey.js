// Grey values with all their bits, and the one linear step from a value to a grey level.

export class Unreadable extends Error {}

async function fetched(url) {
  let reply;
  try { reply = await fetch(url, { headers: { "X-Fragment": "1" } }); } catch { throw new Unreadable("the server cannot be reached"); }
  if (reply.ok) return reply;
  try { throw new Unreadable((await reply.json()).error); } catch (error) {
    throw error instanceof Unreadable ? error : new Unreadable(`the server answered with status ${reply.status}`);
  }
}

// A view of the study: its values, and what the server says about them.
export async function loadValues(url) {
  const reply = await fetched(url);
  const about = JSON.parse(reply.headers.get("grey-values"));
  const buffer = await reply.arrayBuffer();
  const values = about.bytes === 2 ? new Uint16Array(buffer) : new Uint8Array(buffer);
  return new Grey(about.width, about.height, values, about);
}

// A picture of 8 bits, such as that of an indexed radiograph.
export async function loadPicture(url) {
  const bitmap = await createImageBitmap(await (await fetched(url)).blob(), { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height);
  for (let at = 0; at < values.length; at++) values[at] = (data[4 * at] + 2 * data[4 * at + 1] + data[4 * at + 2] + 2) >> 2;
  const about = { bits: 8, slope: 1, intercept: 0, inverted: false, windows: [{ name: "as read", center: 128, width: 256 }],
    spacing: null, part: "", view: "", laterality: "", colour: false };
  return new Grey(width, height, values, about);
}

export async function loadHeat(url) {
  return createImageBitmap(await (await fetched(url)).blob());
}

// DICOM's linear window (PS3.3, C.11.2.1.2.1): 0 is black and 1 is white.
export function level(output, { center, width }) {
  return Math.min(1, Math.max(0, (output - (center - 0.5)) / Math.max(width - 1, 1e-6) + 0.5));
}

export class Grey {
  constructor(width, height, values, about) {
    Object.assign(this, { width, height, about });
    this.levels = [{ width, height, values }]; // each half as wide as the one before
    let least = Infinity;
    let most = -Infinity;
    for (const value of values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    this.least = this.output(least);
    this.most = this.output(most);
    this.painted = { key: "" };
  }

  output(value) { return value * this.about.slope + this.about.intercept; }

  at(x, y) { return this.output(this.levels[0].values[Math.floor(y) * this.width + Math.floor(x)]); }

  // A canvas with the grey levels for a window, at most twice as fine as needed for `scale`.
  paint(window, inverted, scale) {
    const which = Math.max(0, Math.min(4, Math.floor(-Math.log2(scale) + 1e-9)));
    const { width, height, values } = this.level(which);
    const key = [which, window.center, window.width, inverted].join();
    if (this.painted.key === key) return this.painted.canvas;
    const canvas = this.painted.canvas?.width === width && this.painted.canvas.height === height
      ? this.painted.canvas : new OffscreenCanvas(width, height);
    const table = this.table(window, inverted);
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let at = 0; at < pixels.length; at++) pixels[at] = table[values[at]];
    canvas.getContext("2d").putImageData(image, 0, 0);
    this.painted = { key, canvas };
    return canvas;
  }

  table(window, inverted) {
    const size = this.levels[0].values.BYTES_PER_ELEMENT === 2 ? 65536 : 256;
    const table = new Uint32Array(size);
    for (let value = 0; value < size; value++) {
      const shown = level(this.output(value), window);
      const grey = Math.round(255 * (inverted !== this.about.inverted ? 1 - shown : shown));
      table[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    return table;
  }

  level(which) {
    while (this.levels.length <= which) this.levels.push(halved(this.levels.at(-1)));
    return this.levels[which];
  }
}

function halved({ width, height, values }) {
  const [w, h] = [Math.max(1, width >> 1), Math.max(1, height >> 1)];
  const half = new values.constructor(w * h);
  const [right, below] = [width > 1 ? 1 : 0, height > 1 ? width : 0];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = 2 * y * width + 2 * x;
      half[y * w + x] = (values[at] + values[at + right] + values[at + below] + values[at + right + below] + 2) >> 2;
    }
  }
  return { width: w, height: h, values: half };
}
