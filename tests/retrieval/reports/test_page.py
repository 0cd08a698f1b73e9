"""A page: complete in itself, escaped, and usable without eyes or a mouse."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from retrieval.reports.page import (
    STYLE,
    Html,
    Section,
    figure,
    image,
    join,
    label_mark,
    page,
    paragraph,
    safe,
    table,
    terms,
    warnings,
)

EVIL = "<script>alert('&')</script>\""
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Sees to it that every element is closed in its turn; collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_whatever_is_no_markup_is_escaped_everywhere() -> None:
    blocks = join(
        EVIL,
        paragraph(EVIL, "quiet"),
        table(EVIL, [EVIL, EVIL], [[EVIL, EVIL]]),
        terms([(EVIL, EVIL)]),
        warnings([EVIL]),
        figure(image(b"\x89PNG", EVIL), EVIL, EVIL),
    )
    seen = Checker(page(EVIL, EVIL, [Section("one", EVIL, blocks)], EVIL))
    assert "script" not in {tag for tag, _ in seen.tags}
    assert seen.words.count("alert('&')") == 17  # 6 of the page's own, 11 of what is on it
    assert safe(safe("<")) == "&lt;"
    assert safe(Html("<b>")) == "<b>"


def test_a_page_loads_nothing_and_allows_nothing() -> None:
    text = page("t", "", [Section("one", "One", image(b"\xff\xd8", "a picture"))])
    seen = Checker(text)
    policy = next(at for tag, at in seen.tags if at.get("http-equiv") == "Content-Security-Policy")["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    # The one style there is is the one allowed.
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "form")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")


def test_links_lead_to_headed_sections_and_pictures_have_words() -> None:
    sections = [Section("one", "One", safe("1")), Section("two", "Two", image(b"\xff\xd8", "a wrist"))]
    seen = Checker(page("The title", "", sections))
    ids = {at["id"] for _, at in seen.tags if "id" in at}
    links = {(at["href"] or "")[1:] for tag, at in seen.tags if tag == "a"}
    assert {"main", "one", "two"} <= links <= ids
    labelled = {at["aria-labelledby"] for tag, at in seen.tags if tag == "section"}
    assert labelled <= ids
    assert [tag for tag, _ in seen.tags if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert [at["alt"] for tag, at in seen.tags if tag == "img"] == ["a wrist"]
    assert ("html", {"lang": "en"}) in seen.tags


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrasts_are_those_of_wcag_aa(theme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "soft", "link", "normal", "abnormal", "classifier", "vote", "mean"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert contrast(colours["ink"], colours["band"]) >= 4.5
    assert contrast(colours["warn"], colours["warn-ground"]) >= 4.5


def test_a_label_is_told_by_word_and_shape() -> None:
    assert Checker(label_mark("normal")).words == "\u25cf normal"
    assert Checker(label_mark("abnormal")).words == "\u25b2 abnormal"
    assert warnings([]) == ""
