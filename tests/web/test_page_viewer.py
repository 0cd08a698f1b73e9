"""The viewer in a real browser: grey levels, tools, mouse and fingers, hanging, heatmaps, comparison."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import httpx
from playwright.sync_api import Page, expect

from tests.web.browsing import CHROMIUM, PHONE, Open, ask, corner, grey_at, read, until

Serve = Callable[..., str]
Square = Callable[..., Path]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
BARS = 16


def wedge(least: int, most: int) -> tuple[Any, np.ndarray[Any, Any]]:
    """Values of 16 bars from left to right, and a picture of them, 320 x 160 pixels."""
    values = np.rint(np.linspace(least, most, BARS)).astype(np.uint16)
    return values, np.repeat(np.repeat(values[None], 160, 0), 20, 1)


def shown(value: float, center: float, width: float, inverted: bool) -> float:
    """DICOM's linear window, 0 to 255."""
    grey = min(1.0, max(0.0, (value - (center - 0.5)) / max(width - 1, 1e-6) + 0.5))
    return 255 * (1 - grey if inverted else grey)


def window_of(page: Page) -> tuple[float, float]:
    found = re.findall(r"-?[\d.]+", corner(page, "window"))
    return float(found[1]), float(found[0])  # center, width


def bars(page: Page) -> list[int]:
    return [grey_at(page, (bar + 0.5) / BARS, 0.5) for bar in range(BARS)]


def drag(page: Page, dx: float, dy: float, steps: int = 5, button: Any = "left") -> None:
    box = page.locator(".main .pane").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button=button)
    page.mouse.move(x + dx, y + dy, steps=steps)
    page.mouse.up(button=button)


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_a_wedge_of_known_greys_is_shown_by_one_linear_step(
    serve: Serve, open_page: Open, tmp_path: Path, dicom_bytes: Callable[..., bytes], kind: str
) -> None:
    values, picture = wedge(1000, 3000) if kind == "dcm" else wedge(2000, 60000)
    file = tmp_path / f"wedge.{kind}"
    if kind == "dcm":
        header = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "WindowCenter": [2000, 1900]}
        file.write_bytes(
            dicom_bytes(picture, PhotometricInterpretation="MONOCHROME1", WindowWidth=[2200, 1900], **header)
        )
    else:
        cv2.imwrite(str(file), picture)
    page = open_page(serve())
    ask(page, file)
    read(page)
    inverted = kind == "dcm"
    presets = page.locator('[data-tool="preset"] option:not([hidden])').all_text_contents()
    wanted = ["bone", "soft tissue", "full range"]
    assert presets == (["file's window 1", "file's window 2", *wanted] if kind == "dcm" else ["as read", *wanted])
    for turn, name in enumerate([*presets, "own"]):
        if name == "own":
            page.locator(".main .pane").focus()
            page.keyboard.press("i")
            inverted = not inverted
            drag(page, 60, -25)
        else:
            page.locator('[data-tool="preset"]').select_option(name)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # it is painted
        center, width = window_of(page)
        expected = [shown(value, center, width, inverted) for value in values]
        # The window is shown in whole numbers, so a level may differ by what half of one makes.
        until(lambda expected=expected: bars(page) == pytest.approx(expected, abs=1.5))  # type: ignore[misc]
        if name in ("as read", "full range"):
            assert len(set(bars(page))) == BARS, turn
    assert corner(page, "size") == f"320 × 160 · {12 if kind == 'dcm' else 16} bits"


def test_dragging_counts_its_way_and_not_its_events(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200), square("other.png", 180, 5))
    read(page)
    windows = []
    for steps in (20, 200):
        page.locator(".main .pane").focus()
        page.keyboard.press("x")
        until(lambda: window_of(page) == (128, 256))
        drag(page, 100, 40, steps)
        windows.append(window_of(page))
    assert windows[0] == windows[1] != (128, 256)
    other = page.locator(".others .corner.window")
    expect(other).to_have_text("W 256 L 128")  # each view has its own


def test_tools_by_key_and_button(
    serve: Serve, open_page: Open, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    picture = np.zeros((64, 96), np.uint8)
    picture[:32, :48], picture[40:, 60:] = 250, 60
    file = tmp_path / "corners.dcm"
    file.write_bytes(
        dicom_bytes(picture, PixelSpacing=[0.5, 0.5], ImageLaterality="L", BodyPartExamined="HAND", ViewPosition="PA")
    )
    page = open_page(serve())
    ask(page, file)
    read(page)
    assert corner(page, "side") == "L · hand · pa"
    page.locator(".main .pane").focus()

    def corners() -> list[bool]:
        return [grey_at(page, x, y) > 150 for x, y in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9))]

    bright = [True, False, False, False]
    until(lambda: corners() == bright)
    for key, then in (
        ("i", [False, True, True, True]), ("i", bright), ("h", [False, True, False, False]), ("h", bright),
        ("v", [False, False, True, False]), ("v", bright), ("r", [False, True, False, False]), ("R", bright),
    ):  # fmt: skip
        page.keyboard.press(key)
        until(lambda then=then: corners() == then)  # type: ignore[misc]
    page.get_by_role("button", name="Invert").click()
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("1")
    until(lambda: corner(page, "zoom") == "100 %")
    page.keyboard.press("0")
    until(lambda: corner(page, "zoom") != "100 %")
    fitting = corner(page, "zoom")
    page.keyboard.press("+")
    until(lambda: corner(page, "zoom") != fitting)
    page.keyboard.press("1")
    page.keyboard.press("l")
    drag(page, 40, 0)
    expect(page.locator(".main .note")).to_have_text("Length: 20.0 mm")
    page.keyboard.press("a")
    drag(page, 30, 0)
    expect(page.locator(".main .note")).to_contain_text("other arm")
    drag(page, 30, 30)
    expect(page.locator(".main .note")).to_have_text("Angle: 90.0°")
    page.keyboard.press("f")
    until(lambda: page.evaluate("document.fullscreenElement?.id") == "viewer")
    page.keyboard.press("f")
    for button in page.locator(".tools button").all():
        assert re.search(r"\(.+\)$", button.get_attribute("title") or ""), "a tooltip with its key"


def test_buttons_and_wheel_of_the_mouse(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200))
    read(page)
    fitting = corner(page, "zoom")
    pane = page.locator(".main .pane")
    pane.hover()
    page.mouse.wheel(0, -300)  # the view is not active yet, so the page would scroll
    pane.click()
    assert corner(page, "zoom") == fitting
    page.mouse.wheel(0, -300)
    until(lambda: corner(page, "zoom") != fitting)
    page.keyboard.press("0")
    until(lambda: corner(page, "zoom") == fitting)
    drag(page, 0, 90, button="right")
    until(lambda: corner(page, "zoom") != fitting)
    page.keyboard.press("0")
    page.keyboard.press("l")
    drag(page, 40, 0)
    expect(page.locator(".main .note")).to_contain_text("px (no spacing known)")


def test_fingers_window_and_zoom(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(), **PHONE)
    ask(page, square("query.png", 200))
    read(page)
    box = page.locator(".main .pane").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def gesture(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": a, "y": b, "id": number} for number, (a, b) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    gesture("touchStart", (x, y))
    gesture("touchMove", (x + 30, y + 10))
    gesture("touchMove", (x + 60, y + 20))
    gesture("touchEnd")
    until(lambda: corner(page, "window") != "W 256 L 128")
    before = int(corner(page, "zoom").split()[0])
    gesture("touchStart", (x - 20, y), (x + 20, y))
    gesture("touchMove", (x - 30, y), (x + 30, y))
    gesture("touchMove", (x - 60, y), (x + 60, y))
    gesture("touchEnd")
    until(lambda: int(corner(page, "zoom").split()[0]) == pytest.approx(3 * before, rel=0.1))


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_radiograph_verdict_and_similar_studies_are_in_sight_with_20_views(
    serve: Serve, open_page: Open, square: Square, size: tuple[int, int]
) -> None:
    width, height = size
    page = open_page(serve(limits={"views": 24}), viewport={"width": width, "height": height})
    files = [square(f"view-{number}.png", 30 + 3 * number, number) for number in range(19)]
    ask(page, *files, square("loud.png", 240, 30))
    read(page)
    expect(page.locator(".main .corner.file")).to_have_text("20/20 loud.png")  # the view that speaks loudest
    similar = page.locator("#nearest li")
    expect(similar).to_have_count(3)
    for seen in (*(page.locator(name) for name in (".main .pane", "#verdict-title", ".tools")), *similar.all()):
        box = seen.bounding_box()
        assert box is not None
        assert 0 <= box["y"] < box["y"] + min(box["height"], 60) <= height
        assert 0 <= box["x"] < box["x"] + min(box["width"], 60) <= width
    expect(similar.locator("img").first).to_be_visible()
    if width > 1000:
        assert page.evaluate("document.documentElement.scrollHeight") == height
        others = page.locator(".others .pane")
        others.nth(18).scroll_into_view_if_needed()
        before = page.locator(".tools").bounding_box()
        others.nth(18).dblclick()
        expect(page.locator(".main .corner.file")).to_have_text("19/20 view-18.png")
        page.locator(".main .pane").dblclick()
        expect(page.locator(".others")).to_be_hidden()
        assert page.locator(".tools").bounding_box() == before
        page.keyboard.press("Escape")
        expect(page.locator(".others")).to_be_visible()


def test_views_hang_by_projection_and_side(
    serve: Serve, open_page: Open, tmp_path: Path, dicom_bytes: Callable[..., bytes], square: Square
) -> None:
    def view(name: str, level: int, position: str, side: str) -> Path:
        pixels = cv2.imread(str(square(f"{name}.png", level, level)), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        (tmp_path / name).write_bytes(dicom_bytes(pixels, ViewPosition=position, ImageLaterality=side))
        return tmp_path / name

    files = [
        view("a.dcm", 30, "LATERAL", "R"),
        view("b.dcm", 35, "PA", "L"),
        view("c.dcm", 40, "PA", "R"),
        view("d.dcm", 240, "LATERAL", "L"),
    ]
    page = open_page(serve())
    ask(page, *files)
    read(page)
    expect(page.locator(".main .corner.side")).to_have_text("L · lateral")
    until(lambda: page.locator(".others .corner.side").all_text_contents() == ["R · pa", "L · pa", "R · lateral"])


def test_heatmaps_are_off_until_asked_for_and_none_is_below_the_threshold(
    serve: Serve, open_page: Open, square: Square
) -> None:
    asked: list[str] = []
    page = open_page(serve())
    page.on("request", lambda request: asked.append(request.url) if "heatmap" in request.url else None)
    ask(page, square("bright.png", 230), square("dark.png", 30, 5))
    read(page)
    assert asked == []
    plain = grey_at(page, 0.3, 0.3)
    page.keyboard.press("o")
    until(lambda: len(asked) == 2)
    expect(page.get_by_role("button", name="Heatmap")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".others .note")).to_have_text("Below the threshold: no heatmap.")
    page.keyboard.press("o")
    expect(page.locator(".others .note")).to_have_text("")
    page.keyboard.press("o")
    expect(page.locator(".others .note")).to_have_text("Below the threshold: no heatmap.")
    expect(page.locator(".main .note")).to_have_text("")
    until(lambda: grey_at(page, 0.3, 0.3) != plain)
    page.get_by_label("Also below the threshold").check()
    expect(page.locator(".others .note")).to_have_text("")
    page.keyboard.press("Escape")
    page.locator(".main .pane").focus()
    page.keyboard.press("o")
    until(lambda: grey_at(page, 0.3, 0.3) == plain)


def test_what_cannot_be_shown_says_why(serve: Serve, open_page: Open, square: Square) -> None:
    base = serve()
    page = open_page(base)
    ask(page, square("query.png", 200))
    read(page)
    httpx.delete(f"{base}/api/studies/{page.locator('#verdict').get_attribute('data-study')}").raise_for_status()
    page.keyboard.press("o")
    expect(page.locator(".main .note")).to_contain_text("The heatmap could not be drawn: this study is no longer")


def test_the_page_is_dark_until_light_is_chosen(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), color_scheme="light")

    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert ground() == "rgb(13, 17, 23)"
    page.get_by_role("button", name="Light page").click()
    assert ground() == "rgb(255, 255, 255)"
    page.reload()
    assert ground() == "rgb(255, 255, 255)"


def test_filters_change_the_gallery_and_leave_the_pictures(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 200))
    page.locator(".main .pane").evaluate("e => { e.dataset.mark = 'same' }")
    page.locator("#filter-label").focus()
    page.locator("#filter-label").select_option("normal")
    expect(page.locator(".gallery .card")).to_have_count(2)
    expect(page.locator(":is(.gallery, #nearest) .is-abnormal")).to_have_count(0)
    expect(page.locator("#nearest li")).to_have_count(2)
    expect(page.locator("#filter-label")).to_be_focused()
    expect(page.locator(".main .pane")).to_have_attribute("data-mark", "same")


def test_a_comparison(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(files=True))
    ask(page, square("one.png", 30), square("two.png", 230, 3))
    page.locator(".card", has_text="s4").first.click()
    dialog = page.locator("dialog#comparison")
    expect(page.locator("#comparison-title")).to_have_text("View 2 beside study s4")
    read(page, "dialog .pane")
    places = dialog.locator(".corner.zoom")
    before = places.all_text_contents()
    dialog.get_by_role("button", name="Larger").click()
    until(lambda: all(now != was for now, was in zip(places.all_text_contents(), before, strict=True)))
    dialog.get_by_role("button", name="Link zoom").click()
    linked = places.all_text_contents()
    dialog.get_by_role("button", name="Larger").click()
    until(lambda: places.all_text_contents()[0] != linked[0])
    assert places.all_text_contents()[1] == linked[1]
    expect(dialog.get_by_text("Unreliable.")).to_be_hidden()
    dialog.get_by_role("button", name="Similarity map").click()
    expect(dialog.get_by_text("Unreliable.")).to_be_visible()
    similarity = dialog.locator("[data-said=similarity]")
    before = similarity.all_text_contents()
    own = dialog.locator("[data-own]")
    expect(own).to_have_count(2)  # and all of one's own
    own.first.click()
    expect(page.locator("#comparison-title")).to_have_text("View 1 beside study s4")
    read(page, "dialog .pane")
    expect(dialog.locator(".corner.file").first).to_have_text("View 1")
    expect(dialog.locator("canvas").first).to_have_accessible_name("Your radiograph, view 1")
    assert float(similarity.all_text_contents()[0]) < float(before[0])
    assert all(
        "/views/1/likeness?case=s4" in at
        for at in dialog.locator(".pane").evaluate_all("panes => panes.map(pane => pane.dataset.heat)")
    )
    strip = dialog.locator("[data-show]")
    expect(strip).to_have_count(2)  # all radiographs of the study
    strip.nth(1).click()
    expect(strip.nth(1)).to_have_attribute("aria-pressed", "true")
    read(page, "dialog .pane")
    dialog.get_by_role("button", name="Next study").click()
    expect(page.locator("#comparison-title")).not_to_contain_text("s4")
    dialog.get_by_role("button", name="Previous study").click()
    expect(page.locator("#comparison-title")).to_contain_text("s4")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
