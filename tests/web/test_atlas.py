"""The atlas in a real browser: the map, the list beside it, a lasso, and a selection as the query."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import httpx
from playwright.sync_api import Page, expect

from retrieval.indexing.projection import project_index
from tests.web.browsing import CHROMIUM, PHONE, Open, ask, until

Serve = Callable[..., str]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture
def base(serve: Serve, place: Path) -> str:
    project_index(place, method="pca")
    return serve(place)


def opened(page: Page, count: int = 4) -> None:
    expect(page.locator("#studies li")).to_have_count(count)


def colours(page: Page) -> set[str]:
    """The colours of the canvas, without those at edges."""
    found: dict[str, int] = page.evaluate(
        """() => { const c = document.getElementById("map"), n = {};
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        for (let i = 0; i < d.length; i += 4) { const k = [d[i], d[i+1], d[i+2]].join(); n[k] = (n[k] || 0) + 1; }
        return n; }"""
    )
    return {colour for colour, count in found.items() if count >= 20}


def test_the_map_and_the_list_have_the_same_studies(base: str, open_page: Open) -> None:
    page = open_page(base, "/atlas")
    opened(page)
    expect(page.locator("#atlas-status")).to_have_text("4 studies")
    expect(page.locator("#legend label")).to_have_text([re.compile(r"abnormal \(2\)|normal \(2\)")] * 2)
    both = colours(page)
    assert len(both) == 3  # paper and two labels
    page.locator("#legend label", has_text="abnormal").click()
    opened(page, 2)
    assert len(colours(page)) == 2
    page.select_option("#colour-by", "part")
    opened(page)
    expect(page.locator("#legend label")).to_have_text(["finger (4)"])
    page.locator("#studies a").first.focus()
    expect(page.locator("#card")).to_be_visible()
    page.locator("#studies a").first.press("Enter")
    expect(page.locator("h1")).to_have_text("Study s1")


def test_keys_move_zoom_and_select(base: str, open_page: Open) -> None:
    page = open_page(base, "/atlas")
    opened(page)
    canvas = page.locator("#map")
    canvas.focus()
    page.keyboard.press("a")
    expect(page.locator("#list-title")).to_have_text("4 studies selected")
    page.keyboard.press("Escape")
    expect(page.locator("#list-title")).to_have_text("4 studies in sight")
    for _ in range(20):
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
    expect(page.locator("#list-title")).not_to_have_text("4 studies in sight")
    page.keyboard.press("0")
    opened(page)


def test_on_a_slow_machine_the_map_is_drawn_coarser_while_it_moves(base: str, open_page: Open) -> None:
    page = open_page(base, "/atlas")
    opened(page)
    canvas = page.locator("#map")
    drawn = "canvas => canvas.width / canvas.clientWidth"
    assert canvas.evaluate(drawn) == 1
    canvas.evaluate(
        """canvas => canvas.addEventListener("pointermove", () => {
        const end = performance.now() + 60; while (performance.now() < end); })"""
    )
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    least = 1.0
    for step in range(40):
        page.mouse.move(box["x"] + 20 + step, box["y"] + 20 + 10 * (step % 2))
        least = min(least, canvas.evaluate(drawn))
    page.mouse.up()
    assert least < 0.6
    until(lambda: canvas.evaluate(drawn) == 1)
    assert len(colours(page)) == 3


def test_a_lasso_selects_and_the_selection_is_saved_and_asked(base: str, open_page: Open, tmp_path: Path) -> None:
    page = open_page(base, "/atlas")
    opened(page)
    page.click("#lasso")
    box = page.locator("#map").bounding_box()
    assert box is not None
    x, y, right, bottom = box["x"] + 2, box["y"] + 2, box["x"] + box["width"] / 2, box["y"] + box["height"] - 2
    page.mouse.move(x, y)
    page.mouse.down()
    for point in ((right, y), (right, bottom), (x, bottom)):
        page.mouse.move(*point, steps=5)
    page.mouse.up()
    expect(page.locator("#list-title")).to_have_text("2 studies selected")
    with page.expect_download() as downloaded:
        page.click("#csv")
    lines = Path(downloaded.value.path()).read_text().splitlines()
    assert lines[0] == "study,case,label,part,view,split,agreement"
    labels = {line.split(",")[2] for line in lines[1:]}
    assert len(labels) == 1
    page.click("#ask-mean")
    expect(page.locator("#verdict-title")).to_be_visible()
    assert "/studies/" in page.url
    answer = httpx.get(f"{base}/api{page.url.removeprefix(base)}").json()
    assert answer["query"]["files"] == ["mean of 2 studies"]
    assert len(answer["query"]["excluded_patients"]) == 2
    assert {case["label"] for case in answer["cases"]} == {"normal", "abnormal"} - labels


def test_the_query_has_a_place_of_its_own(base: str, open_page: Open, square: Callable[..., Path]) -> None:
    page = open_page(base)
    ask(page, square("query.png", 214))
    page.get_by_role("link", name="Show on the atlas").click()
    expect(page.locator("#atlas-status")).to_have_text("The cross marks the study that you asked about")
    study = page.url.rpartition("=")[2]
    (place,) = httpx.get(f"{base}/api/atlas/place", params={"study": study}).json()["views"]
    document = httpx.get(f"{base}/api/atlas").json()
    at = dict(zip(document["studies"], document["x"], strict=True))
    assert abs(place["x"] - at["s3"]) < abs(place["x"] - at["s1"])


def test_a_click_on_a_point_opens_its_study(base: str, open_page: Open) -> None:
    page = open_page(base, "/atlas")
    opened(page)
    page.locator("#studies a").nth(2).hover()
    expect(page.locator("#card-words")).to_contain_text("s3: abnormal, finger")
    expect(page.locator("#card-words")).to_contain_text("classifier and vote: ")
    document = httpx.get(f"{base}/api/atlas").json()
    box = page.locator("#map").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"]) - 40
    number = document["studies"].index("s3")
    x = box["x"] + (box["width"] - side) / 2 + document["x"][number] * side
    y = box["y"] + (box["height"] - side) / 2 + (1 - document["y"][number]) * side
    page.mouse.click(x, y)
    expect(page.locator("h1")).to_have_text("Study s3")


def test_an_index_without_a_map_says_how_to_make_one(shared_server: str, open_page: Open) -> None:
    page = open_page(shared_server, "/atlas")
    expect(page.locator("main")).to_contain_text("mura-search index project")
    assert httpx.get(f"{shared_server}/api/atlas").status_code == 404


@pytest.mark.parametrize("cases", ["nonsense", "[1]", "[]", "{}"])
def test_a_selection_that_is_none_is_refused(shared_server: str, cases: str) -> None:
    assert httpx.post(f"{shared_server}/atlas/ask", data={"cases": cases, "mode": "mean"}).status_code == 422


def test_a_phone_has_map_and_list_without_scrolling_sideways(base: str, open_page: Open) -> None:
    page = open_page(base, "/atlas", **PHONE)
    opened(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#studies a").first.tap()
    expect(page.locator("h1")).to_contain_text("Study s")
