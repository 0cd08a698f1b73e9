"""Nothing is lost on the page: addresses, ended sessions, a server that is away, views added and removed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import httpx
from playwright.sync_api import Page, Route, expect

from tests.web.browsing import CHROMIUM, Open, ask, until

Serve = Callable[..., str]
Square = Callable[..., Path]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
STUDY = re.compile(r".*/studies/[\w-]{22}$")


def title(page: Page) -> str:
    return " ".join((page.locator("#verdict-title").text_content() or "").split())


def drop(page: Page, **files: bytes) -> None:
    page.evaluate(
        """(files) => {
            const data = new DataTransfer();
            for (const [name, bytes] of Object.entries(files)) {
                data.items.add(new File([new Uint8Array(bytes)], `${name}.png`, { type: "image/png" }));
            }
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        {name: list(data) for name, data in files.items()},
    )


def test_an_answer_survives_reload_back_and_forward(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("dark.png", 30))
    expect(page).to_have_url(STUDY)
    first, normal = page.url, title(page)
    page.reload()
    assert title(page) == normal
    expect(page.locator("#preview li")).to_contain_text(["dark.png"])
    ask(page, square("bright.png", 220))
    expect(page.locator("#verdict-title")).to_contain_text("abnormal")
    page.locator("#filter-label").select_option("normal")
    expect(page.locator(".gallery .card")).to_have_count(2)
    filtered = page.url
    page.reload()
    expect(page.locator(".gallery .card")).to_have_count(2)
    page.go_back()
    expect(page.locator(".gallery .card")).to_have_count(4)
    page.go_back()
    expect(page).to_have_url(first)
    expect(page.locator("#verdict-title")).to_have_text(normal)
    page.go_forward()
    page.go_forward()
    expect(page).to_have_url(filtered)
    expect(page.locator("#verdict-title")).to_contain_text("abnormal")


def test_a_server_that_is_away_keeps_the_screen_and_is_asked_again(
    serve: Serve, open_page: Open, square: Square
) -> None:
    page = open_page(serve())
    ask(page, square("dark.png", 30))
    normal = title(page)

    def away(route: Route) -> Any:
        return route.abort()

    page.route("**/studies/**", away)
    page.locator("#filter-label").select_option("normal")
    expect(page.locator("#trouble")).to_contain_text("The server cannot be reached. What is on screen stays.")
    assert title(page) == normal
    page.unroute("**/studies/**", away)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".gallery .card")).to_have_count(2)
    expect(page.locator("#trouble")).to_be_empty()


def test_a_forgotten_study_stays_on_screen_and_is_sent_again(serve: Serve, open_page: Open, square: Square) -> None:
    base = serve()
    page = open_page(base)
    ask(page, square("dark.png", 30))
    former = page.url
    httpx.delete(f"{base}/api{former.removeprefix(base)}")
    page.locator("#filter-label").select_option("normal")
    expect(page.locator("#trouble")).to_contain_text("no longer remembered")
    page.get_by_role("button", name="Send it again").click()
    expect(page).not_to_have_url(former)
    expect(page).to_have_url(STUDY)
    expect(page.locator("#trouble")).to_be_empty()


def test_a_session_that_ended_says_so(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve(token="correct horse battery staple"))
    page.get_by_label("Token").fill("correct horse battery staple")
    page.keyboard.press("Enter")
    ask(page, square("dark.png", 30))
    normal = title(page)
    page.context.clear_cookies()
    page.set_input_files("#files", str(square("bright.png", 220)))
    expect(page.locator("#trouble")).to_contain_text("Your session has ended. What is on screen stays.")
    assert title(page) == normal
    expect(page.locator("#preview li")).to_contain_text(["dark.png"])
    expect(page.locator("#trouble a")).to_have_attribute("href", "/login")


def test_a_second_drop_asks_what_it_is(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    drop(page, pa=square("pa.png", 200).read_bytes())
    expect(page.locator("#verdict-title")).to_be_focused()
    drop(page, lateral=square("lateral.png", 230, 5).read_bytes())
    expect(page.locator("#choice-title")).to_have_text("lateral.png: a new study, or more views of the one shown?")
    page.get_by_role("button", name="More views").click()
    expect(page.locator("#preview li")).to_contain_text(["pa.png", "lateral.png"])
    page.reload()  # the server has both, so views can still be added and removed
    drop(page, oblique=square("oblique.png", 180, 6).read_bytes())
    page.get_by_role("button", name="More views").click()
    expect(page.locator("tbody th")).to_have_text(["1 pa.png", "2 lateral.png", "3 oblique.png"])
    page.get_by_role("button", name="Remove view 2, lateral.png").click()
    expect(page.locator("tbody th")).to_have_text(["1 pa.png", "2 oblique.png"])
    drop(page, dark=square("dark.png", 30).read_bytes())
    page.locator("#choice-new").click()
    expect(page.locator("#preview li")).to_contain_text(["dark.png"])
    expect(page.locator("#verdict-title")).to_contain_text("normal")


def test_a_folder_is_a_study(serve: Serve, open_page: Open, square: Square) -> None:
    pa = square("in/pa.png", 200)
    square("in/deeper/lateral.png", 230, 5)
    (pa.parent / "notes.txt").write_text("not a radiograph")
    page = open_page(serve())
    page.set_input_files("#folder", str(pa.parent))
    expect(page.locator("#preview li")).to_have_count(2)
    expect(page.locator("#verdict-title")).to_be_focused()


def test_several_studies_are_one_on_request(serve: Serve, open_page: Open, square: Square, collection: Any) -> None:
    page = open_page(serve())
    page.set_input_files("#files", [collection.cases[number].path for number in (0, 2)])
    expect(page.locator("#problem")).to_contain_text("of 2 patients: ask about one study at a time")
    page.get_by_role("button", name="They are one study").click()
    expect(page.locator("#verdict-title")).to_be_focused()


def test_words_are_explained_to_pointer_keyboard_and_screen_reader(
    serve: Serve, open_page: Open, square: Square
) -> None:
    page = open_page(serve())
    ask(page, square("dark.png", 30))
    term, tip = page.locator(".term").first, page.locator(".tip").first
    expect(tip).to_be_hidden()
    term.hover()
    expect(tip).to_be_visible()
    expect(term).to_have_accessible_description(re.compile("of 100 studies at 0.30 about 30 are abnormal"))
    page.mouse.move(0, 0)
    page.locator(".term").nth(1).focus()
    expect(page.locator(".tip").nth(1)).to_be_visible()


def test_a_study_can_be_forgotten(serve: Serve, open_page: Open, square: Square) -> None:
    base = serve()
    page = open_page(base)
    ask(page, square("dark.png", 30))
    address = page.url
    page.get_by_role("button", name="Forget this study").click()
    expect(page.locator("#answer")).to_be_empty()
    assert httpx.get(address).status_code == 404


def test_going_back_closes_the_comparison_and_leaves_the_answer(serve: Serve, open_page: Open, square: Square) -> None:
    page = open_page(serve())
    ask(page, square("bright.png", 220))
    address, dialog = page.url, page.locator("dialog")
    page.get_by_role("button", name="Invert").click()
    for close in (page.go_back, page.get_by_role("button", name="Close").click):
        page.locator(".card").first.click()
        expect(page.locator("#comparison-title")).to_be_visible()
        close()
        expect(dialog).to_be_hidden()
        expect(page).to_have_url(address)
        until(lambda: page.evaluate("history.state === null"))
    inverted = page.get_by_role("button", name="Invert")
    expect(inverted).to_have_attribute("aria-pressed", "true")  # the answer was not drawn again
    page.go_back()
    expect(page.locator("#verdict-title")).to_have_count(0)
