"""The page in a real browser, Debian's Chromium: all that somebody can do on it, also by keyboard alone."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import httpx
from playwright.sync_api import Browser, ConsoleMessage, FileChooser, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as TooLate

from index.edit import IndexEdit

Serve = Callable[..., str]
Open = Callable[..., Page]
Square = Callable[..., Path]
TOKEN = "correct horse battery staple"
CHROMIUM = shutil.which("chromium")
AXE = Path(os.environ.get("MURA_SEARCH_AXE", Path(__file__).parents[2] / ".out" / "axe" / "package" / "axe.min.js"))
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens an address; fails the test where the page has an error or asks another server."""
    troubles: list[str] = []
    contexts = []

    def note(wrong: bool, text: str) -> None:
        if wrong:
            troubles.append(text)

    def go(base: str, path: str = "/", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: note(True, str(error)))
        page.on("request", lambda request: note(not request.url.startswith((base, "blob:")), request.url))
        page.on("console", lambda message: note(serious(message), message.text))
        page.goto(base + path)
        return page

    yield go
    for context in contexts:
        context.close()
    assert troubles == []


def serious(message: ConsoleMessage) -> bool:
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def ask(page: Page, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    expect(page.locator("#verdict-title")).to_be_focused()


def until(met: Callable[[], bool]) -> None:
    """Wait for something that Playwright could only watch by evaluating text, which the page's policy forbids."""
    end = time.monotonic() + 15
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def drawn(page: Page) -> None:
    until(lambda: page.evaluate("[...document.querySelectorAll('.heat')].every(i => i.complete && i.naturalWidth)"))


def style(page: Page, selector: str, name: str) -> str:
    return str(page.locator(selector).first.evaluate(f"e => getComputedStyle(e)['{name}']"))


def scores(page: Page) -> list[str]:
    return page.locator(".score b").all_text_contents()


def test_one_view(serve: Serve, open_page: Open, square: Square) -> None:
    base, file = serve(), square("query.png", 200)
    page = open_page(base)
    ask(page, file)
    answer = httpx.post(f"{base}/api/search", files={"files": file.read_bytes()}).json()
    assert scores(page) == [f"{answer[by]['probability']:.2f}" for by in ("classifier", "knn")]
    expect(page.locator("#verdict-title")).to_contain_text("abnormal: classifier and similar studies agree")
    expect(page.locator("#verdict")).to_contain_text("The index holds radiographs like this one")
    bars = page.locator(".bar")
    expect(bars).to_have_count(2)
    for number, by in enumerate(("classifier", "knn")):
        expect(bars.nth(number)).to_have_attribute("aria-label", re.compile(f"{answer[by]['probability']:.2f}.*above"))
    expect(page.locator("#preview img")).to_have_count(1)
    expect(page.locator(".gallery .card")).to_have_count(4)
    first = page.locator(".gallery .card").first
    for text in ("abnormal", "finger", "view", f"similarity {answer['cases'][0]['similarity']:.3f}"):
        expect(first).to_contain_text(text)
    drawn(page)
    expect(page.locator(".drawing")).to_have_text("")


@pytest.mark.parametrize(
    ("brightness", "headline", "told"),
    [
        (20, "normal: classifier and similar studies agree", "at least"),
        (250, "Unfamiliar: unlike what is indexed", "Do not rely on what follows"),
    ],
)
def test_what_is_unfamiliar_is_said_first(
    serve: Serve, open_page: Open, square: Square, place: Path, brightness: int, headline: str, told: str
) -> None:
    with IndexEdit.open(place) as edit:
        edit.remove({"study": ["s3", "s4"]})  # which leaves the dark ones
    page = open_page(serve())
    ask(page, square("query.png", brightness))
    expect(page.locator("#verdict-title")).to_contain_text(headline)
    expect(page.locator("#verdict")).to_contain_text(told)


def test_two_views_and_another_one(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("pa.png", 200), square("lateral.png", 230, 5))
    expect(page.locator("tbody th")).to_have_text(["1 pa.png", "2 lateral.png"])
    expect(page.locator(".stage")).to_have_count(2)
    page.set_input_files("#more", str(square("oblique.png", 180, 6)))
    expect(page.locator("tbody th")).to_have_count(3)
    page.set_input_files("#files", str(square("new.png", 30)))
    expect(page.locator("#verdict-title")).to_contain_text("normal")
    expect(page.locator("#preview li")).to_have_text(["new.png"])
    page.click("#new")
    expect(page.locator("#answer")).to_be_empty()
    expect(page.locator("#preview li")).to_have_count(0)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_dropped_and_pasted(serve: Serve, open_page: Open, square: Square, kind: str) -> None:
    page = open_page(serve())
    page.evaluate(
        """([kind, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
            const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.querySelector("#drop").dispatchEvent(event);
        }""",
        [kind, list(square("query.png", 40).read_bytes())],
    )
    expect(page.locator("#verdict-title")).to_contain_text("normal: classifier and similar studies agree")
    expect(page.locator("#preview li")).to_have_text(["given.png"])


def test_what_cannot_be_answered_is_said_beside_the_form(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    page = open_page(serve(limits={"views": 2, "body": 1 << 20}))
    page.click("summary")
    page.click("#submit")
    expect(page.locator("#problem")).to_have_text("Choose a radiograph first, drop one here, or paste it.")
    note = tmp_path / "note.txt"
    note.write_text("no image")
    page.set_input_files("#files", str(note))
    expect(page.locator("#problem")).to_contain_text("note.txt is no image that can be read")
    page.set_input_files("#files", [str(note)] * 3)
    expect(page.locator("#problem")).to_contain_text("at most 2 radiographs of one study", ignore_case=True)
    note.write_bytes(bytes(2 << 20))
    page.set_input_files("#files", str(note))
    expect(page.locator("#problem")).to_contain_text("larger than 1 MiB")


def test_a_heatmap_that_cannot_be_drawn_says_why(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(limits={"kept_time": 0.0}))
    ask(page, square("query.png", 200))
    expect(page.locator(".drawing")).to_contain_text("no longer remembered")
    page.locator("#filter-label").select_option("normal")
    expect(page.locator(".filters ~ .problem")).to_contain_text("This study is no longer remembered")


def test_heatmap_slider_and_toggle(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200))
    assert style(page, ".heat", "opacity") == "0.6"
    page.locator('[data-tool="opacity"]').fill("25")
    assert style(page, ".heat", "opacity") == "0.25"
    page.get_by_label("Heatmap", exact=True).uncheck()
    assert style(page, ".heat", "display") == "none"
    page.get_by_label("Heatmap", exact=True).check()
    assert style(page, ".heat", "display") != "none"
    page.locator('[data-tool="target"]').select_option("normal")
    drawn(page)
    assert page.locator(".heat").get_attribute("src").endswith("target=normal")  # type: ignore[union-attr]


def test_zoom_pan_window_and_level_by_mouse(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200))
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def transform() -> str:
        return style(page, ".layer", "transform")

    fitting = transform()
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    until(lambda: transform() != fitting)
    zoomed = transform()
    assert float(zoomed.split("(")[1].split(",")[0]) == pytest.approx(2.718, abs=0.01)  # e for 400 of the wheel

    def drag(dx: int, dy: int) -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + dx, y + dy, steps=4)
        page.mouse.up()

    drag(40, -30)
    moved = [float(part) for part in re.findall(r"-?[\d.]+", transform())]
    before = [float(part) for part in re.findall(r"-?[\d.]+", zoomed)]
    assert (moved[4] - before[4], moved[5] - before[5]) == pytest.approx((40, -30), abs=0.5)
    assert style(page, ".radiograph", "filter") == "brightness(1) contrast(1)"
    page.locator('[data-tool="drag"]').select_option("window")
    stage.scroll_into_view_if_needed()
    drag(int(box["width"] / 4), int(box["height"] / 4))
    assert float(page.locator('[data-tool="window"]').input_value()) == pytest.approx(125, abs=3)
    assert float(page.locator('[data-tool="level"]').input_value()) == pytest.approx(65, abs=3)
    found = re.findall(r"[\d.]+", style(page, ".radiograph", "filter"))
    brightness, contrast = float(found[0]), float(found[1])
    level = 1 / (2 * brightness)

    def shown(value: float) -> float:
        return (value * brightness - 0.5) * contrast + 0.5

    assert level == pytest.approx(0.65, abs=0.03)
    assert shown(level) == pytest.approx(0.5)
    assert shown(level + 1.25 / 2) - shown(level - 1.25 / 2) == pytest.approx(1, abs=0.03)  # a window wide
    page.get_by_role("button", name="Reset").click()
    assert (transform(), style(page, ".radiograph", "filter")) == (
        "matrix(1, 0, 0, 1, 0, 0)",
        "brightness(1) contrast(1)",
    )


def test_a_pinch_zooms(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(), **PHONE)
    ask(page, square("query.png", 200))
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 30), ("touchMove", 40), ("touchMove", 60), ("touchEnd", 0)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if apart else []})
    scale = float(style(page, ".layer", "transform").split("(")[1].split(",")[0])
    assert scale == pytest.approx(3, abs=0.3)


def test_filters_change_the_gallery_and_leave_the_pictures(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200))
    page.locator(".stage .heat").first.evaluate("e => { e.dataset.mark = 'same' }")
    page.locator("#filter-label").focus()
    page.locator("#filter-label").select_option("normal")
    expect(page.locator(".gallery .card")).to_have_count(2)
    expect(page.locator(".gallery .is-abnormal")).to_have_count(0)
    expect(page.locator("#filter-label")).to_be_focused()
    expect(page.locator(".stage .heat").first).to_have_attribute("data-mark", "same")
    page.locator("#filter-view").select_option("view 2")
    expect(page.locator(".gallery .card")).to_have_count(1)
    page.locator("#filter-label").select_option("")
    expect(page.locator(".gallery .card")).to_have_count(2)


def test_a_comparison_moves_together(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(files=True))
    ask(page, square("one.png", 30), square("two.png", 230, 3))
    page.locator(".card", has_text="s4").click()
    dialog = page.locator("dialog")
    expect(page.locator("#comparison-title")).to_have_text("View 2 beside study s4")
    drawn(page)
    expect(dialog.locator(".stage")).to_have_count(2)
    dialog.get_by_role("button", name="Zoom in").click()
    dialog.locator(".stage").nth(1).press("ArrowRight")
    layers = [style(page, f"dialog figure:nth-child({n}) .layer", "transform") for n in (1, 2)]
    assert layers[0] == layers[1] != "none"
    dialog.locator('[data-tool="opacity"]').fill("10")
    assert style(page, "dialog .heat", "opacity") == "0.1"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".card", has_text="s4")).to_be_focused()


def test_downloads(serve: Serve, open_page: Open, square: Square) -> None:
    def report(_searcher: Any, study: Any, answer: Any) -> str:
        return f"<!doctype html><title>{len(study.views)} view, {answer.cases[0].study}</title>"

    page = open_page(serve(report=report))
    ask(page, square("query.png", 200))
    page.locator("#filter-label").select_option("normal")
    expect(page.locator(".gallery .card")).to_have_count(2)
    with page.expect_download() as got:
        page.get_by_text("Answer (JSON)").click()
    answer = json.loads(got.value.path().read_text())
    assert (answer["schema"], len(answer["cases"])) == ("mura-search/answer/1", 2)
    with page.expect_download() as got:
        page.get_by_text("Report (HTML)").click()
    assert got.value.path().read_text() == f"<!doctype html><title>1 view, {answer['cases'][0]['study']}</title>"
    other = open_page(serve())
    ask(other, square("query.png", 200))
    expect(other.get_by_text("Report (HTML)")).to_have_count(0)


def test_log_in_and_out(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(token=TOKEN))
    expect(page).to_have_title("Log in - mura-search")
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_have_text("That is not the token of this server.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    ask(page, square("query.png", 200))
    drawn(page)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in - mura-search")


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

    def tab_to(selector: str, most: int = 40) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"no way to {selector}")

    tab_to(".skip", 1)
    tab_to("#files", 4)
    chosen(page).set_files(str(square("query.png", 200)))
    expect(page.locator("#verdict-title")).to_be_focused()
    tab_to(".stage")
    page.keyboard.press("+")
    assert style(page, ".layer", "transform").startswith("matrix(1.25")
    page.keyboard.press("0")
    assert style(page, ".layer", "transform").startswith("matrix(1,")
    tab_to('[data-tool="opacity"]')
    page.keyboard.press("ArrowRight")
    assert style(page, ".heat", "opacity") == "0.61"
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
    assert all(box is not None and box["height"] >= 24 for box in map(bounding, page.locator("button:visible").all()))


def bounding(element: Any) -> Any:
    return element.bounding_box()


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


def inbox(square: Square) -> Path:
    square("in/a-file-with-a-rather-long-name-that-does-not-break.png", 30)
    square("in/bright/lateral.png", 225)
    (square("in/bright/pa.png", 220).parents[1] / "bad.png").write_bytes(b"no picture")
    return square("in/bright/pa.png", 220).parents[1]


def ranked(page: Page) -> None:
    """Go to the worklist by its link, and wait until all of it is read."""
    page.get_by_role("link", name="Worklist").click()
    until(lambda: page.reload() is not None and page.get_by_role("button", name="Rank again").count() == 1)


@pytest.mark.parametrize("scripts", [True, False])
def test_the_worklist_opens_studies(serve: Serve, open_page: Open, square: Square, scripts: bool) -> None:
    page = open_page(serve(worklist=inbox(square)), **PHONE, java_script_enabled=scripts)
    ranked(page)
    expect(page.locator(".list tbody tr")).to_have_count(2)
    expect(page.locator(".list tbody tr").first).to_contain_text("bright")
    expect(page.get_by_text("bad.png is no image")).to_be_visible()
    if scripts:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("document.querySelector('.list img').naturalWidth") == 32
    page.get_by_role("button", name="Open study bright").click()
    expect(page.locator("#verdict-title")).to_contain_text("abnormal")
    expect(page.locator(".stage")).to_have_count(2)
    page.go_back()
    page.get_by_role("button", name="Rank again").click()
    expect(page.get_by_role("heading", name="Worklist of in")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(serve: Serve, open_page: Open, square: Square, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not there: npm pack axe-core, unpacked at {AXE}, or MURA_SEARCH_AXE")
    source = AXE.read_text(encoding="utf-8")

    def faults(page: Page) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })")
        return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found["violations"]]

    for options in ({}, PHONE):
        base = serve(token=TOKEN, worklist=inbox(square))
        page = open_page(base, color_scheme=scheme, bypass_csp=True, **options)
        assert faults(page) == []
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#drop")).to_be_visible()
        page.click("summary")
        assert faults(page) == []
        ask(page, square("query.png", 200), square("other.png", 230, 4))
        drawn(page)
        assert faults(page) == []
        page.locator(".card").first.click()
        expect(page.locator("dialog")).to_be_visible()
        drawn(page)
        assert faults(page) == []
        page.goto(base)
        ranked(page)
        assert faults(page) == []
