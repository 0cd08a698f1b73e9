"""The page's pictures in a real browser: heatmap, zoom, window and level, the gallery, and two studies side by side."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import expect

from tests.web.browsing import CHROMIUM, PHONE, Open, ask, drawn, style, until

Serve = Callable[..., str]
Square = Callable[..., Path]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def test_a_heatmap_that_cannot_be_drawn_says_why(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(limits={"remembered_seconds": 0.0}))
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
