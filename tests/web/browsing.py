"""What somebody does on the page in a browser, Debian's Chromium, and what can be seen of it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import ConsoleMessage, Page, expect

__all__ = ["CHROMIUM", "PHONE", "Open", "ask", "drawn", "inbox", "ranked", "serious", "style", "until"]

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


def drawn(page: Page) -> None:
    """Wait until there are heatmaps and all of them can be seen."""
    until(lambda: page.locator(".heat").count() > 0)
    until(lambda: page.evaluate("[...document.querySelectorAll('.heat')].every(i => i.complete && i.naturalWidth)"))


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
    until(lambda: page.reload() is not None and page.get_by_role("button", name="Rank again").count() == 1)
