"""The page in a real browser: studies asked about, what is told of them, downloads, the login and the worklist."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import httpx
from playwright.sync_api import Page, expect

from index.writer import IndexWriter
from tests.web.browsing import CHROMIUM, PHONE, Open, ask, inbox, ranked, read, until

Serve = Callable[..., str]
Square = Callable[..., Path]
TOKEN = "correct horse battery staple"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def scores(page: Page) -> list[str]:
    return page.locator(".score b").all_text_contents()


def test_one_view(serve: Serve, open_page: Open, square: Square) -> None:
    base, file = serve(), square("query.png", 200)
    page = open_page(base)
    ask(page, file)
    answer = httpx.post(f"{base}/api/search", files={"files": file.read_bytes()}).json()
    assert scores(page) == [f"{answer[by]['probability']:.2f}" for by in ("classifier", "knn")]
    expect(page.locator("#verdict-title")).to_contain_text("abnormal: classifier and vote agree")
    expect(page.locator("#verdict")).to_contain_text("The index has radiographs like this one")
    bars = page.locator(".bar")
    expect(bars).to_have_count(2)
    for number, by in enumerate(("classifier", "knn")):
        expect(bars.nth(number)).to_have_attribute("aria-label", re.compile(f"{answer[by]['probability']:.2f}.*above"))
    expect(page.locator("#preview img")).to_have_count(1)
    expect(page.locator(".gallery .card")).to_have_count(4)
    first = page.locator(".gallery .card").first
    for text in ("abnormal", "finger", "view", f"similarity {answer['cases'][0]['similarity']:.3f}"):
        expect(first).to_contain_text(text)
    read(page)
    expect(page.locator(".note")).to_have_text("")


@pytest.mark.parametrize(
    ("brightness", "headline", "text"),
    [
        (20, "normal: by the classifier alone", "a radiograph is familiar"),
        (250, "Unfamiliar: unlike the index", "Do not rely on this answer"),
    ],
)
def test_what_is_unfamiliar_is_said_first(
    serve: Serve, open_page: Open, square: Square, place: Path, brightness: int, headline: str, text: str
) -> None:
    with IndexWriter.open(place) as edit:
        edit.remove({"study": ["s3", "s4"]})  # which leaves the dark ones
    page = open_page(serve())
    ask(page, square("query.png", brightness))
    expect(page.locator("#verdict-title")).to_contain_text(headline)
    expect(page.locator("#verdict")).to_contain_text(text)


def test_two_views_and_another_one(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("pa.png", 200), square("lateral.png", 230, 5))
    expect(page.locator("tbody th")).to_have_text(["1 pa.png", "2 lateral.png"])
    expect(page.locator(".pane")).to_have_count(2)
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
    expect(page.locator("#verdict-title")).to_contain_text("normal: classifier and vote agree")
    expect(page.locator("#preview li")).to_have_text(["given.png"])


def test_what_cannot_be_answered_is_said_beside_the_form(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    page = open_page(serve(limits={"views": 2, "body": 1 << 20}))
    page.click("summary")
    page.click("#submit")
    expect(page.locator("#problem")).to_have_text("Choose a radiograph first, drop one here, or paste it.")
    note = tmp_path / "note.txt"
    note.write_text("no image")
    page.set_input_files("#files", str(note))
    expect(page.locator("#problem")).to_contain_text("note.txt is not an image that can be read")
    page.set_input_files("#files", [str(note)] * 3)
    expect(page.locator("#problem")).to_contain_text("at most 2 radiographs of one study", ignore_case=True)
    note.write_bytes(bytes(2 << 20))
    page.set_input_files("#files", str(note))
    expect(page.locator("#problem")).to_contain_text("larger than 1 MiB")


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
    read(page)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in - mura-search")


@pytest.mark.parametrize("scripts", [True, False])
def test_the_worklist_opens_studies(serve: Serve, open_page: Open, square: Square, scripts: bool) -> None:
    page = open_page(serve(worklist=inbox(square)), **PHONE, java_script_enabled=scripts)
    ranked(page)
    expect(page.locator(".list tbody tr")).to_have_count(2)
    expect(page.locator(".list tbody tr").first).to_contain_text("bright")
    expect(page.get_by_text("bad.png is not an image")).to_be_visible()
    if scripts:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        until(lambda: page.evaluate("document.querySelector('.list img').naturalWidth") == 32)
    page.get_by_role("link", name="bright", exact=True).click()
    expect(page.locator("#verdict-title")).to_contain_text("abnormal")
    expect(page.locator(".pane")).to_have_count(2)
    page.go_back()
    page.get_by_role("button", name="Rank again").click()
    expect(page.get_by_role("heading", name="Worklist of in")).to_be_visible()


def test_an_open_worklist_says_that_it_has_changed(
    serve: Serve, open_page: Open, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.1)
    page = open_page(serve(worklist=inbox(square)))
    ranked(page)
    rows = page.locator(".list tbody tr")
    expect(rows).to_have_count(2)
    square("in/white.png", 255)
    news = page.get_by_role("status")
    expect(news).to_have_text("The list has changed. Show it", timeout=15_000)
    expect(rows).to_have_count(2)  # nothing moves under the reader's hand
    news.get_by_role("link").click()
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("white.png")
    expect(page.get_by_role("status")).to_be_empty()
