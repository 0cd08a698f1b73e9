"""The pictures of the page in docs/web.md, taken anew in Chromium, and the recording of the terminal.

    mura-search demo --keep demo
    mura-search index project --index demo/index
    mura-search index regions --index demo/index
    python docs/page_pictures.py demo

Everything on them is synthetic. A study is filed in the index for one of them, and that is undone.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pictures import FRAME, answer_of, asked_files, recorded
from playwright.sync_api import Page, expect, sync_playwright
from rich.terminal_theme import MONOKAI

HERE = Path(__file__).parent / "page"
DESK, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
WAIT = 120_000  # ms
PACE = 0.08  # seconds a line of the recording
TYPING = 2.0  # seconds


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server on the index, which ranks the studies that are not indexed."""
    inbox = folder / "radiographs" / "valid"
    command = [sys.executable, "-m", "cli", "serve", "--index", folder / "index", "--port", "0", "--files"]
    with subprocess.Popen(
        [*command, "--allow-filing", "--worklist", inbox], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout
            address = next(filter(None, (re.search(r"http://\S+/", line) for line in server.stdout)))
            yield address.group()
        finally:
            server.terminate()


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # until pictures are drawn
    page.screenshot(path=HERE / f"{name}.jpg", type="jpeg", quality=72)


def ask(page: Page, files: list[str]) -> None:
    page.set_input_files("#files", files)
    expect(page.locator("#verdict-title")).to_be_visible(timeout=WAIT)
    page.wait_for_function("[...document.querySelectorAll('.pane')].every(p => p.dataset.state === 'shown')")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag in the large view; positions are parts of its sides."""
    box = page.locator(".main .pane").bounding_box()
    assert box
    first, last = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end))
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=8)
    page.mouse.up()


def tool(page: Page, name: str) -> None:
    page.locator(f"#viewer [data-tool={name}]").click()


def answers(page: Page, files: list[str]) -> str:
    """The states of an answer; gives its address."""
    ask(page, files)
    take(page, "answer")
    tool(page, "invert")
    tool(page, "length")
    drag(page, (0.44, 0.2), (0.44, 0.68))
    take(page, "tools")
    tool(page, "reset")
    page.locator("[data-heat-switch]").click()
    page.wait_for_function("[...document.querySelectorAll('.note')].every(n => !n.textContent.startsWith('Draw'))")
    take(page, "heatmap")
    tool(page, "heat")
    page.locator("[data-compare]").nth(1).click()
    expect(page.locator("#comparison-title")).to_be_visible(timeout=WAIT)
    take(page, "comparison")
    page.get_by_role("button", name="Close").click()
    if page.locator("#viewer [data-tool=region]").is_enabled():
        tool(page, "region")
        drag(page, (0.41, 0.45), (0.51, 0.65))
        expect(page.locator("#regions-title")).to_be_focused(timeout=WAIT)
        take(page, "region")
    return page.url


def others(page: Page, address: str, answer: str) -> None:
    page.goto(f"{address}atlas?study={answer.rpartition('/')[2]}")
    take(page, "atlas")
    page.goto(f"{address}worklist")
    take(page, "worklist")
    page.goto(f"{address}queue")
    take(page, "queue")
    page.goto(answer)
    page.locator("#file summary").click()
    page.locator("#file select").select_option("abnormal")
    page.locator("#file button").click()
    expect(page.locator(".done")).to_be_visible(timeout=WAIT)
    take(page, "filed")
    page.get_by_role("button", name="Undo").first.click()
    expect(page.locator(".done")).to_have_text("The change is undone.", timeout=WAIT)


def draw_page(folder: Path) -> None:
    """Ten states of the page."""
    HERE.mkdir(exist_ok=True)
    files = [str(file) for file in asked_files(folder / "radiographs")]
    with serving(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(viewport=DESK, bypass_csp=True).new_page()
        page.set_default_timeout(WAIT)
        page.goto(address)
        answer = answers(page, files)
        others(page, address, answer)
        phone = browser.new_context(viewport=PHONE, has_touch=True).new_page()
        phone.set_default_timeout(WAIT)
        phone.goto(address)
        phone.click("#theme")
        phone.goto(answer)
        take(phone, "phone")
        browser.close()


def draw_terminal(folder: Path) -> None:
    """A recording: the command is typed, then the answer comes line by line. It plays once."""
    files = asked_files(folder / "radiographs")
    console = recorded()
    console.print("$ mura-search " + " ".join(file.name for file in files))
    answer_of(files, folder / "index", console)
    text = console.export_svg(title="", theme=MONOKAI, code_format=FRAME)
    assert str(folder.resolve()) not in text, "give FOLDER relative to the current folder: the answer names it"

    def paced(match: re.Match[str]) -> str:
        line = int(match[1])
        if not line:
            return f'{match[0]} style="animation:type {TYPING}s steps(40) backwards"'
        return f'{match[0]} style="animation:show .01s {TYPING + 0.5 + PACE * line:.2f}s backwards"'

    # An unmoving viewer shows all lines: only before its time is a line hidden.
    motion = (
        "@keyframes show{from{opacity:0}to{opacity:1}} @keyframes type{from{clip-path:inset(0 100% 0 0)}"
        "to{clip-path:inset(0 0 0 0)}} "
        "@media (prefers-reduced-motion:reduce){text{animation:none!important}}"
    )
    text = re.sub(r'clip-path="url\(#[\w-]+-line-(\d+)\)"', paced, text).replace("<style>", f"<style>{motion} ", 1)
    (HERE.parent / "terminal.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw_terminal(Path(sys.argv[1]))
    draw_page(Path(sys.argv[1]))
