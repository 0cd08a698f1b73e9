"""The page as somebody meets it for the first time: by what is in sight, its names and its tooltips."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Locator, Page, expect

from retrieval.indexing.projection import project_index
from retrieval.search_by.region import add_regions
from tests.web.browsing import CHROMIUM, Open, ask, corner, grey_at, inbox, ranked, read, until

Serve = Callable[..., str]
Square = Callable[..., Path]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def box_of(element: Locator) -> tuple[float, float, float, float]:
    """The left, top, width and height of an element in the window."""
    box = element.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"], box["height"]


def overlap(one: Locator, other: Locator) -> bool:
    (x, y, width, height), (left, top, across, down) = box_of(one), box_of(other)
    return x < left + across - 1 and left < x + width - 1 and y < top + down - 1 and top < y + height - 1


def test_the_second_neighbour_is_numbered_and_compared(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 230))
    read(page)
    nearest = page.get_by_role("region", name="Most similar choose one to compare")
    expect(nearest.locator(".rank")).to_have_text(["1", "2", "3"])
    expect(page.locator(".gallery .rank")).to_have_text(["1", "2", "3", "4"])
    second = nearest.get_by_role("link").nth(1)
    expect(second).to_have_accessible_name(re.compile("^Compare with study "))
    second.click()
    expect(page.locator("dialog")).to_contain_text("2 of 4")
    page.get_by_role("button", name="Next study").click()
    expect(page.locator("dialog")).to_contain_text("3 of 4")


def test_why_an_answer_is_abnormal_is_said_below_that_heading(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 230))
    why = page.get_by_role("heading", name="Why abnormal")
    expect(why).to_be_in_viewport()
    scores = page.locator(".why + .scores")
    expect(scores).to_contain_text("Classifier")
    expect(scores).to_contain_text("Vote")
    page.get_by_role("button", name="Show where the classifier looks").click()
    expect(page.get_by_role("button", name="Hide where the classifier looks")).to_be_visible()
    ask(page, square("normal.png", 30))
    expect(page.get_by_role("heading", name="Why normal")).to_be_in_viewport()


def test_a_marked_region_finds_studies_that_can_be_asked_about(
    serve: Serve, open_page: Open, square: Square, place: Path
) -> None:
    add_regions(place)
    page = open_page(serve(place))
    ask(page, square("query.png", 220))
    read(page)
    tool = page.get_by_role("button", name="Region")
    expect(tool).to_have_attribute("title", re.compile("^Mark a rectangle, and find studies with a region like it"))
    tool.click()
    expect(page.locator(".main .note")).to_have_text("Drag a rectangle around what to search for.")
    x, y, width, height = box_of(page.locator(".main .pane"))
    page.mouse.move(x + 0.45 * width, y + 0.45 * height)
    page.mouse.down()
    page.mouse.move(x + 0.55 * width, y + 0.55 * height, steps=5)
    page.mouse.up()
    expect(page.locator("#regions-title")).to_be_focused()
    cards = page.locator("#regions li")
    expect(cards.first).to_contain_text("abnormal")
    expect(cards.first.locator("rect")).to_have_count(1)  # the frame around its region
    former = page.url
    cards.first.get_by_role("button", name="Ask about study").click()
    expect(page.locator("#verdict-title")).to_be_visible()
    assert page.url != former


def test_a_similar_study_is_asked_about_from_its_card(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("query.png", 230))
    page.locator(".gallery").get_by_role("button", name="Ask about study s4").click()
    expect(page.locator("#verdict")).to_contain_text("s4")
    expect(page.locator(".gallery .card", has_text="s4")).to_have_count(0)  # its own patient is left out


def test_the_middle_button_moves_the_wheel_scrolls_and_the_lens_magnifies(
    serve: Serve, open_page: Open, square: Square
) -> None:
    page = open_page(serve(), viewport={"width": 800, "height": 600})
    ask(page, square("query.png", 200))
    read(page)
    pane = page.locator(".main .pane")
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")
    pane.hover()
    page.mouse.wheel(0, 200)  # the view does not have the focus
    until(lambda: page.evaluate("scrollY") > 0)
    page.evaluate("scrollTo(0, 0)")
    fitting = corner(page, "zoom")
    pane.click()
    page.mouse.wheel(0, -200)
    until(lambda: corner(page, "zoom") != fitting)
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("x")
    until(lambda: corner(page, "zoom") == fitting)
    bright = grey_at(page, 0.05, 0.5)
    assert bright > 100
    x, y, width, height = box_of(pane)
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.down(button="middle")
    page.mouse.move(x + width / 2 + height, y + height / 2, steps=4)
    page.mouse.up(button="middle")
    until(lambda: grey_at(page, 0.05, 0.5) == 0)  # the radiograph has gone to the right
    page.keyboard.press("x")
    until(lambda: grey_at(page, 0.05, 0.5) == bright)
    page.keyboard.press("g")
    assert grey_at(page, 0.5, 0.5) < 250
    page.mouse.move(x + width / 2, y + height / 2 + 109)
    until(lambda: grey_at(page, 0.5, 0.5) == 255)  # the rim of the lens


@pytest.mark.parametrize("view", ["desk", "phone"])
def test_all_tools_are_in_sight_and_a_heatmap_moves_nothing(
    serve: Serve, open_page: Open, square: Square, view: str
) -> None:
    options = PHONE if view == "phone" else {"viewport": {"width": 1280, "height": 720}}
    page = open_page(serve(), **options)
    ask(page, square("pa.png", 220), square("lateral.png", 235, 5))
    read(page)
    tools = page.locator("#viewer .tools button.tool")
    for tool in tools.all():
        expect(tool).to_be_in_viewport(ratio=1)
        assert min(box_of(tool)[2:]) >= 24
    verdict = page.locator("#verdict-title")
    expect(verdict).to_be_in_viewport(ratio=1)
    pane = page.locator(".main .pane")
    before = box_of(pane)
    page.get_by_role("button", name="Heatmap").click()
    expect(page.get_by_text("no outline of a lesion").first).to_be_visible()
    assert box_of(pane) == before
    expect(page.get_by_label("Also below the threshold")).to_be_in_viewport(ratio=1)


def test_on_a_phone_nothing_lies_over_anything_else(serve: Serve, open_page: Open, square: Square, place: Path) -> None:
    page = open_page(serve(place), **PHONE)
    ask(page, square("pa.png", 220), square("lateral.png", 235, 5))
    read(page)
    parts = [page.locator(name) for name in (".top", "#viewer .tools", ".panes", "#nearest", ".verdict", ".scores")]
    for number, part in enumerate(parts):
        assert not any(overlap(part, other) for other in parts[number + 1 :])
    page.locator("#nearest a").nth(1).tap()
    read(page, "dialog .pane")
    dialog = page.locator("dialog")
    parts = [dialog.locator(name) for name in (".comparison-head", ".tools", ".panes", ".strips")]
    for number, part in enumerate(parts):
        assert not any(overlap(part, other) for other in parts[number + 1 :])
    assert not overlap(dialog.locator("h2"), dialog.get_by_role("button", name="Close"))
    for button in dialog.get_by_role("button").all():
        button.scroll_into_view_if_needed()
        expect(button).to_be_in_viewport(ratio=1)


def test_a_dropped_folder_is_a_study(serve: Serve, open_page: Open, square: Square) -> None:
    folder = square("in/pa.png", 200).parent
    square("in/deeper/lateral.png", 230, 5)
    (folder / "notes.txt").write_text("not a radiograph")
    page = open_page(serve())
    drop(page, folder)
    expect(page.locator("#preview li")).to_have_count(2)
    expect(page.locator("#verdict-title")).to_be_focused()


def drop(page: Page, path: Path) -> None:
    """Drop a file or folder as the desktop does."""
    x, y, width, height = box_of(page.locator("#drop"))
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": x + width / 2, "y": y + height / 2, "data": data}
        browser.send("Input.dispatchDragEvent", event)


def test_times_of_the_worklist_are_of_the_readers_clock(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(worklist=inbox(square)), timezone_id="Asia/Kolkata", locale="en-GB")
    ranked(page)
    time = page.locator("time").first
    moment = time.get_attribute("datetime") or ""
    hours, minutes = map(int, moment[11:16].split(":"))
    there = (60 * hours + minutes + 330) % 1440
    expect(time).to_have_text(re.compile(f"{there // 60:02d}:{there % 60:02d}$"))


def test_previews_of_dicom_files_show_the_picture(
    serve: Serve, open_page: Open, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    file = tmp_path / "radiograph.dcm"
    file.write_bytes(dicom_bytes(np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32), BitsStored=12, HighBit=11))
    page = open_page(serve())
    ask(page, file)
    until(lambda: page.locator("#preview img").evaluate_all("all => all.map(one => one.naturalWidth)") == [32])


def test_an_answered_study_is_filed_and_undone(serve: Serve, open_page: Open, square: Square, place: Path) -> None:
    page = open_page(serve(place, allow_filing=True))
    ask(page, square("query.png", 128))
    page.locator("#file summary").click()
    page.locator("#file select").select_option("abnormal")
    page.get_by_label("Note").fill("seen on CT")
    page.get_by_role("button", name="File it").click()
    expect(page.locator(".done")).to_contain_text("The study is filed.")
    expect(page.get_by_role("row", name="seen on CT")).to_contain_text("abnormal")
    expect(page.locator(".top")).to_contain_text("5 studies")
    page.get_by_role("link", name="Back to the answer").click()
    expect(page.locator("#verdict-title")).to_be_visible()
    page.get_by_role("link", name="Changes").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".done")).to_have_text("The change is undone.")
    expect(page.locator(".top")).to_contain_text("4 studies")


def test_no_page_is_wider_than_a_phone(serve: Serve, open_page: Open, square: Square, place: Path) -> None:
    project_index(place, method="pca")
    base = serve(place, allow_filing=True, worklist=inbox(square))
    page = open_page(base, **PHONE)
    ranked(page)
    for path in ("", "worklist", "queue", "filing", "atlas", "indexed?case=s1-1.png", "drift", "docs"):
        page.goto(f"{base}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        for link in page.locator(".top :is(a, button):visible").all():
            expect(link).to_be_in_viewport(ratio=1)
