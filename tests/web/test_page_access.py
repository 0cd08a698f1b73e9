"""The page in a real browser: by keyboard alone, on a phone, without scripts, and as axe-core judges it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import FileChooser, Page, expect
from playwright.sync_api import TimeoutError as TooLate

from retrieval.indexing.projection import project_index
from tests.web.browsing import CHROMIUM, PHONE, Open, ask, corner, inbox, ranked, read, until

Serve = Callable[..., str]
Square = Callable[..., Path]
TOKEN, FILING = "correct horse battery staple", "staple of those who file"
AXE = Path(os.environ.get("MURA_SEARCH_AXE", Path(__file__).parents[2] / ".out" / "axe" / "package" / "axe.min.js"))
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def chosen(page: Page) -> FileChooser:
    """The file chooser that a key opens. Chromium on a busy machine drops a press now and then, so it has three."""
    for key in ("Enter", "Space", "Enter"):
        page.bring_to_front()
        try:
            with page.expect_file_chooser(timeout=5_000) as chooser:
                page.keyboard.press(key)
        except TooLate:
            continue
        return chooser.value
    raise AssertionError("no key opens the file chooser")


def test_everything_with_the_keyboard(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())

    def tab_to(selector: str, most: int = 40, key: str = "Tab") -> None:
        for _ in range(most):
            page.keyboard.press(key)
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"no way to {selector}")

    tab_to(".skip", 1)
    tab_to("#files", 4)
    chosen(page).set_files(str(square("query.png", 200)))
    expect(page.locator("#verdict-title")).to_be_focused()
    read(page)
    tab_to(".pane", key="Shift+Tab")
    fitting = corner(page, "zoom")
    page.keyboard.press("+")
    until(lambda: corner(page, "zoom") != fitting)
    page.keyboard.press("0")
    until(lambda: corner(page, "zoom") == fitting)
    page.keyboard.press("o")
    expect(page.get_by_role("button", name="Heatmap")).to_have_attribute("aria-pressed", "true")
    tab_to("#filter-label")
    page.keyboard.press("n")
    expect(page.locator(".gallery .card")).to_have_count(2)
    tab_to(".card")
    page.keyboard.press("Enter")
    expect(page.locator("#comparison-title")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_hidden()


def test_a_phone_needs_no_scrolling_sideways(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(), **PHONE)
    ask(page, square("query.png", 200), square("a-file-with-a-rather-long-name-that-does-not-break.png", 230, 4))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".card").first.tap()
    expect(page.locator("dialog")).to_be_visible()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360
    boxes = [button.bounding_box() for button in page.locator("button:visible").all()]
    assert len(boxes) > 4
    assert all(box is not None and box["height"] >= 24 for box in boxes)


def test_it_works_without_scripts(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(), java_script_enabled=False)
    page.set_input_files("#files", str(square("query.png", 200)))
    page.click("#submit")
    expect(page.locator(".score b")).to_have_count(2)
    page.locator(".card").first.click()
    expect(page.locator("#comparison-title")).to_contain_text("View 1 beside study")
    page.go_back()
    page.locator("#filter-label").select_option("normal")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".gallery .card")).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(serve: Serve, open_page: Open, square: Square, place: Path, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not there: npm pack axe-core, unpacked at {AXE}, or MURA_SEARCH_AXE")
    source = AXE.read_text(encoding="utf-8")

    def faults(page: Page) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })")
        return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found["violations"]]

    project_index(place, method="pca")
    for options in ({}, PHONE):
        base = serve(token=TOKEN, filing_token=FILING, worklist=inbox(square))
        page = open_page(base, bypass_csp=True, **options)
        page.evaluate("chosen => localStorage.setItem('theme', chosen)", scheme)
        page.reload()
        assert faults(page) == []
        page.get_by_label("Token").fill(FILING)
        page.keyboard.press("Enter")
        expect(page.locator("#drop")).to_be_visible()
        page.click("summary")
        assert faults(page) == []
        ask(page, square("query.png", 200), square("other.png", 230, 4))
        read(page)
        assert faults(page) == []
        page.locator(".card").first.click()
        expect(page.locator("dialog")).to_be_visible()
        read(page)
        assert faults(page) == []
        page.goto(base)
        ranked(page)
        assert faults(page) == []
        for path in ("queue", "filing", "atlas", "indexed?case=s1-1.png", "drift", "docs"):
            page.goto(f"{base}/{path}")
            assert faults(page) == [], path
