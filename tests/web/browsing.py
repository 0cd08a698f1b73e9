"""What somebody does on the page in a browser, Debian's Chromium, and what can be seen of it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import ConsoleMessage, Page, expect

__all__ = [
    "CHROMIUM", "PHONE", "Open", "ask", "corner", "grey_at", "inbox", "ranked", "read", "serious", "style", "until",
]  # fmt: skip

Open = Callable[..., Page]
CHROMIUM = shutil.which("chromium")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

expect.set_options(timeout=15_000)


def serious(message: ConsoleMessage) -> bool:
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def ask(page: Page, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    expect(page.locator("#verdict-title")).to_be_focused()


def until(met: Callable[[], bool]) -> None:
    """Wait for something that Playwright could only watch by evaluating text, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def read(page: Page, panes: str = ".pane") -> None:
    """Wait until the radiographs are on their canvases."""
    until(lambda: page.locator(panes).count() > 0)
    until(
        lambda: page.evaluate("s => [...document.querySelectorAll(s)].every(p => p.dataset.state === 'shown')", panes)
    )
    until(lambda: corner(page, "size") != "")


def corner(page: Page, name: str) -> str:
    """A text in a corner of the large view."""
    return page.locator(f".main .corner.{name}").first.text_content() or ""


def grey_at(page: Page, x: float, y: float) -> int:
    """The red on the large view's canvas where a fitting radiograph has x and y, parts of its width and height."""
    return int(
        page.locator(".main .pane canvas").first.evaluate(
            """(canvas, [x, y]) => {
            const size = canvas.parentElement.querySelector(".corner.size").textContent.split(" ").map(Number);
            const [width, height] = [size[0], size[2]];
            const turned = / · (90|270)°/.test(canvas.parentElement.querySelector(".corner.zoom").textContent);
            const [w, h] = turned ? [height, width] : [width, height];
            const scale = Math.min(canvas.width / w, canvas.height / h);
            const at = [canvas.width / 2 + (x - 0.5) * w * scale, canvas.height / 2 + (y - 0.5) * h * scale];
            const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, Math.floor(at[0]), Math.floor(at[1]), 1, 1, 0, 0, 1, 1);
            return copy.getImageData(0, 0, 1, 1).data[0];
        }""",
            [x, y],
        )
    )


def style(page: Page, selector: str, name: str) -> str:
    return str(page.locator(selector).first.evaluate(f"e => getComputedStyle(e)['{name}']"))


def inbox(square: Callable[..., Path]) -> Path:
    square("in/a-file-with-a-rather-long-name-that-does-not-break.png", 30)
    square("in/bright/lateral.png", 225)
    (square("in/bright/pa.png", 220).parents[1] / "bad.png").write_bytes(b"no picture")
    return square("in/bright/pa.png", 220).parents[1]


def ranked(page: Page) -> None:
    """Go to the worklist by its link, and wait until all of it is read."""
    page.get_by_role("link", name="Worklist").click()
    page.wait_for_url("**/worklist")
    until(lambda: page.reload() is not None and page.get_by_role("button", name="Rank again").count() == 1)
