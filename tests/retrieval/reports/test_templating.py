"""Templates: a report is complete in itself, escaped, and usable without eyes or a mouse."""

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from retrieval.evaluation.metrics import Estimate
from retrieval.reports.pictures import Layers, Picture
from retrieval.reports.templating import render, static

EVIL = "<script>alert('&')</script>\"\u202e"
SHOWN = EVIL.replace("\u202e", "\ufffd")
VOID = {"meta", "img", "br"}
REPORT = """
{% extends "base.html" %}
{% from "macros.html" import chart, gallery, headline, image, stack, table, terms, warnings %}
{% block head %}{{ evil }}{{ warnings([evil]) }}{{ headline(evil) }}{% endblock %}
{% block part_one %}
{{ table(evil, [evil, evil], [[evil, evil]], evil) }}{{ terms([(evil, evil)]) }}
{{ chart("<svg></svg>" | safe, evil, evil) }}
{{ gallery([picture]) }}{{ stack(layers) }}{{ image(none, evil) }}
{% endblock %}
{% block two %}{{ image(data, "a wrist") }}{% endblock %}
"""


class Checker(HTMLParser):
    """Checks that every element is closed in its turn; collects tags, attributes and text."""

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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def report(tmp_path: Path) -> str:
    (tmp_path / "report.html").write_text(REPORT, encoding="utf-8")
    sections = [("part-one", EVIL), ("two", "Two")]
    picture = Picture(b"\x89PNG", EVIL, (EVIL, EVIL), "normal")
    layers = Layers(b"\xff\xd8", EVIL, EVIL, b"\x89PNG", EVIL)
    values = {"evil": EVIL, "picture": picture, "layers": layers, "data": b"\xff\xd8"}
    return render("report.html", (tmp_path,), title=EVIL, sections=sections, **values)


def test_all_text_is_escaped_and_printable(report: str) -> None:
    seen = Checker(report)
    assert "script" not in {tag for tag, _ in seen.tags}
    assert "\u202e" not in report
    # Title twice, link and heading, head, warning, verdict, caption, two headings, two cells, name and value, the
    # caption of the chart, two lines of the gallery, the caption of the stack.
    assert seen.words.count(SHOWN) == 18
    alts = [at["alt"] for tag, at in seen.tags if tag == "img"]
    assert alts == [SHOWN, SHOWN, SHOWN, "a wrist"]
    assert [at["aria-label"] for _, at in seen.tags if at.get("class") == "blank"] == [SHOWN]


def test_a_report_loads_nothing_and_allows_nothing(report: str) -> None:
    seen = Checker(report)
    policy = next(at for _, at in seen.tags if at.get("http-equiv") == "Content-Security-Policy")["content"] or ""
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "script-src" not in policy
    (style,) = re.findall(r"<style>(.*?)</style>", report, re.DOTALL)  # the only style is the one that is allowed
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in policy
    assert "url(" not in style
    assert "@import" not in style
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "form")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")


def test_links_lead_to_headed_sections(report: str) -> None:
    seen = Checker(report)
    ids = {at["id"] for _, at in seen.tags if "id" in at}
    links = {(at["href"] or "")[1:] for tag, at in seen.tags if tag == "a"}
    assert {"main", "part-one", "two"} == links
    labelled = {at["aria-labelledby"] for tag, at in seen.tags if tag == "section"}
    assert links | labelled <= ids
    assert [tag for tag, _ in seen.tags if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert ("html", {"lang": "en"}) in seen.tags


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("{{ unknown }}", encoding="utf-8")
    with pytest.raises(UndefinedError):
        render("report.html", (tmp_path,))


def macro(call: str, folder: Path, **values: object) -> str:
    (folder / "macro.html").write_text(f'{{% import "macros.html" as page %}}{{{{ page.{call} }}}}', encoding="utf-8")
    return render("macro.html", (folder,), **values)


@pytest.mark.parametrize(
    ("figure", "sign", "words"),
    [
        (Estimate(0.5, 0.25, 0.75), "", "0.500 0.250 to 0.750"),
        (Estimate(0.5, -0.25, 0.75), "+", "+0.500 -0.250 to +0.750"),
        (Estimate(0.5, reason="one patient gives no interval"), "", "0.500*"),
        (Estimate(None, reason="needs both labels"), "", "needs both labels"),
    ],
)
def test_an_estimate_has_its_interval_or_its_reason(figure: Estimate, sign: str, words: str, tmp_path: Path) -> None:
    assert Checker(macro("estimate(figure, sign)", tmp_path, figure=figure, sign=sign)).words == words


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("normal: classifier and vote agree", "\u25cf normal: classifier and vote agree"),
        (
            "undecided: the classifier says abnormal, the vote says normal",
            "Undecided: the classifier says \u25b2 abnormal, the vote says \u25cf normal",
        ),
    ],
)
def test_labels_have_a_word_and_a_shape(verdict: str, words: str, tmp_path: Path) -> None:
    assert Checker(macro("headline(verdict)", tmp_path, verdict=verdict)).words.strip() == words


def test_markup_is_not_escaped_again(tmp_path: Path) -> None:
    assert "<b>1</b>" in macro("terms([('one', value)])", tmp_path, value=Markup("<b>1</b>"))
    assert macro("warnings([])", tmp_path).strip() == ""


def test_jinja_is_imported_when_a_report_is_made() -> None:
    code = "import retrieval.reports.answer_report, sys; assert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


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
    block = re.findall(r":root \{(.*?)\}", static("theme.css"), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "soft", "link", "normal", "abnormal", "classifier", "vote", "mean"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert contrast(colours["ink"], colours["band"]) >= 4.5
    assert contrast(colours["warn"], colours["warn-ground"]) >= 4.5
