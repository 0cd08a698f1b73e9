"""How soon the page is painted for the first time, in a Chromium whose cache is empty, beside the least page of all.

    python -m benchmarks.first_paint ADDRESS [--loads 8]

ADDRESS is that of a running `mura-search serve`. Each load has a context of its own; /healthz is loaded in between.
"""

import argparse
import os
import shutil

from playwright.sync_api import Browser, sync_playwright

from benchmarks._timing import machine, show

PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") done(entry.startTime / 1000);
}).observe({ type: "paint", buffered: true }))"""


def first_paint(browser: Browser, address: str) -> float:
    """Seconds from the start of the navigation to the first contentful paint."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.goto(address)
    seconds = float(page.evaluate(PAINT))
    context.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--loads", type=int, default=8)
    options = parser.parse_args()
    machine("fastapi", "uvicorn")
    address = options.address.rstrip("/")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages, least = [], []
        for _ in range(options.loads):
            pages.append(first_paint(browser, f"{address}/"))
            least.append(first_paint(browser, f"{address}/healthz"))
        browser.close()
    show("first contentful paint of the page", pages, "s")
    show("of /healthz", least, "s")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
