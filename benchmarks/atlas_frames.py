"""How many frames a second the atlas draws of many studies, in a Chromium without a graphics card.

    python -m benchmarks.atlas_frames ADDRESS [--studies 40000] [--seconds 4]

ADDRESS is that of a running `mura-search serve` whose index has a map. Drawn places, in 60 groups, replace its own. The
map is dragged; printed are the frames a second, their median and 95th percentile, and the machine's load.
"""

import argparse
import json
import os
import shutil

import numpy as np
from playwright.sync_api import sync_playwright

SIZES = ((1600, 1000), (2560, 1440))
DRAG = """async (seconds) => {
  const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect(), times = [];
  const send = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind,
    { pointerId: 1, button: 0, bubbles: true, clientX: box.left + x, clientY: box.top + y }));
  canvas.setPointerCapture = () => {};
  send("pointerdown", 300, 300);
  await new Promise((done) => {
    const step = (now) => {
      times.push(now);
      const past = (now - times[0]) / 1000;
      send("pointermove", 300 + 150 * Math.sin(3 * past), 300 + 100 * Math.cos(2 * past));
      if (past < seconds) requestAnimationFrame(step); else done();
    };
    requestAnimationFrame(step);
  });
  send("pointercancel", 300, 300);
  return times;
}"""


def document(count: int) -> str:
    """The map of `count` drawn studies, as GET /api/atlas gives it."""
    rng = np.random.default_rng(0)
    centres, group = rng.random((60, 2)), rng.integers(0, 60, count)
    places = np.clip(centres[group] + rng.normal(0, 0.03, (count, 2)), 0, 1).round(5)

    def field(*names: str) -> dict[str, list[str] | list[int]]:
        return {"names": list(names), "values": rng.integers(0, len(names), count).tolist()}

    content = {
        "generation": 1,
        "unplaced": 0,
        "studies": [f"study{number}" for number in range(count)],
        "cases": [f"study{number}/1.png" for number in range(count)],
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "fields": {
            "label": field("abnormal", "normal"),
            "part": field("elbow", "finger", "wrist"),
            "view": field(""),
            "split": field(""),
            "agreement": field("agree", "disagree"),
        },
    }
    return json.dumps(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--studies", type=int, default=40_000)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    body = document(options.studies)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        page.set_default_timeout(120_000)
        page.route("**/api/atlas", lambda route: route.fulfill(body=body, content_type="application/json"))
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{options.address.rstrip('/')}/atlas")
            page.wait_for_selector("#studies li")
            times = np.array(page.evaluate(DRAG, options.seconds))
            frames = np.diff(times)
            print(
                f"{options.studies:,} studies, window {width} x {height}: {1000 / frames.mean():.0f} frames a second; "
                f"median {np.median(frames):.1f} ms, 95 % below {np.quantile(frames, 0.95):.1f} ms; "
                f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
            )
        chromium.close()


if __name__ == "__main__":
    main()
