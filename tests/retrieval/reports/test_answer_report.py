"""The report of an answer: its figures are the answer's, its pictures have words, and it holds whatever names are."""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.answer import Answer
from retrieval.datasets.collection import Collection
from retrieval.decision.borderline import Borderline
from retrieval.errors import RadiographError
from retrieval.indexing.build import build_index
from retrieval.reports.answer_report import answer_report
from retrieval.reports.similar_studies import MOST
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]
Square = Callable[..., Path]
EVIL = '<img src=x onerror="alert(1)">&'
INDEXED = [
    ("ann", "s1", 0, [20, 25]),
    ("bob", "s2", 0, [40]),
    ("cid", "s3", 1, [215]),
    ("dee", "s4", 1, [235, 230]),
]


@pytest.fixture
def searcher(squares: Squares, model: Path, tmp_path: Path) -> Iterator[Searcher]:
    build_index(squares(INDEXED), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


class Seen(HTMLParser):
    """Tags with their attributes, and the words between them; every element is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input", "path", "rect", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"], ["title"]):
            self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pixels_of(image: dict[str, str | None]) -> tuple[int, ...]:
    """The shape of a picture on the page, decoded."""
    _, data = (image["src"] or "").split(",")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return tuple(np.asarray(decoded).shape)


def asked(searcher: Searcher, *files: Path, k: int = 5) -> tuple[Answer, str]:
    answer = searcher.search(list(files), k=k)
    return answer, answer_report(searcher, answer, list(files), datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


def test_its_figures_are_those_of_the_answer(searcher: Searcher, square: Square) -> None:
    answer, page = asked(searcher, square("a.png", 210), square("b.png", 190))
    words = Seen(page).words
    assert answer.knn.probability is not None
    assert answer.familiarity.similarity is not None
    for of in (answer.classifier, answer.knn):
        assert f"{of.probability:.3f}" in words
        assert f"{of.threshold:.3f}" in words
    assert f"a similarity of {answer.familiarity.similarity:.3f}; below {answer.familiarity.limit:.3f}" in words
    for view in answer.views:
        assert f"{Path(view.file).name}: classifier {view.classifier:.3f}, vote {view.knn:.3f}" in words
    for case in answer.cases:
        assert f"{case.rank}. {case.study}" in words
        assert f"{case.label}, similarity {case.similarity:.3f}, weight {case.weight:.0%}" in words
        assert case.path in words
    for told in (answer.model.sha256, answer.index.path, "6 radiographs of 4 studies", "2026-01-02 03:04 UTC"):
        assert told in words
    assert words.count("Not a medical device") == 2
    assert "classifier and vote agree" in words


def test_every_picture_has_its_heatmap_and_both_have_words(searcher: Searcher, square: Square) -> None:
    answer, page = asked(searcher, square("a.png", 210), square("b.png", 190))
    images = Seen(page).of("img")
    bases = [image for image in images if image["class"] == "base"]
    heats = [image for image in images if image["class"] == "heat"]
    assert len(bases) == len(heats) == 2 + 2 * len(answer.cases)
    for base, heat in zip(bases, heats, strict=True):
        assert (base["src"] or "").startswith("data:image/jpeg;base64,")
        assert (heat["src"] or "").startswith("data:image/png;base64,")
        assert pixels_of(base)[:2] == pixels_of(heat)[:2]
        assert pixels_of(heat)[2] == 4  # with transparency
    alts = [image["alt"] or "" for image in images]
    assert all(len(alt) > 10 for alt in alts)
    assert "query radiograph 2 of 2, b.png" in alts
    assert "nearest radiograph of study s3, labelled abnormal" in alts
    assert any(alt.startswith("heatmap: study s3 is most similar to the query in this region: ") for alt in alts)
    # The query's view beside a study is the one that is nearest to it.
    nearest = {"s3": "a.png", "s2": "b.png"}
    order = [alt.removeprefix("the query, ") for alt in alts if alt.startswith("the query, ")]
    assert {case.study: name for case, name in zip(answer.cases, order, strict=True)}.items() >= nearest.items()


def test_it_loads_nothing_and_runs_only_what_its_policy_names(searcher: Searcher, square: Square) -> None:
    _, page = asked(searcher, square("a.png", 210))
    seen = Seen(page)
    policy = next(at["content"] for at in seen.of("meta") if at.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for kind in ("style", "script"):
        codes = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        named = re.search(rf"{kind}-src ([^;]*)", policy)
        assert named is not None
        digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in codes]
        assert named[1].split() == [f"'sha256-{digest}'" for digest in digests]
    for tag, attributes in seen.tags:
        assert tag not in ("link", "iframe", "object", "form")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_controls_are_a_keyboard_s_and_have_names(searcher: Searcher, square: Square) -> None:
    _, page = asked(searcher, square("a.png", 210))
    controls = re.findall(r"<label[^>]*>(.*?)</label>", page, re.DOTALL)
    inputs = Seen(page).of("input")
    assert len(controls) == len(inputs) == 6  # each within a label of its own
    assert {at["type"] for at in inputs} == {"checkbox", "range", "radio"}
    # Hiding the heatmaps needs no script: a style sheet does it.
    assert ":root:has(#heat:not(:checked)) .heat { display: none; }" in page
    assert '<label id="fade" hidden>' in page  # and what needs one is not there without


def test_what_files_and_tables_are_called_stays_text(squares: Squares, model: Path, tmp_path: Path) -> None:
    made = squares(INDEXED)
    cases = [
        dataclasses.replace(case, study=EVIL + case.study, patient=EVIL + case.patient, part=EVIL, view=EVIL)
        for case in made.cases
    ]
    build_index(dataclasses.replace(made, cases=tuple(cases)), tmp_path / "index", model=model)
    query = tmp_path / '"><script>alert(1)<\u202egnp.png'.replace("/", "")
    query.write_bytes(Path(made.cases[0].path).read_bytes())
    with Searcher.open(tmp_path / "index") as searcher:
        _, page = asked(searcher, query)
    seen = Seen(page)
    assert len(seen.of("script")) == 1
    assert not [at for _, at in seen.tags if "onerror" in at]
    sources = [at["src"] or "" for at in seen.of("img")]
    assert len(sources) > 1
    assert all(source.startswith("data:") for source in sources)
    assert EVIL + "s3" in seen.words
    assert "\u202e" not in page  # which would turn what follows around
    assert "patient " + EVIL + "ann is left out" in seen.words


def test_without_its_file_a_case_is_shown_as_the_index_has_it(searcher: Searcher, square: Square) -> None:
    answer = searcher.search(square("a.png", 210))
    first, second = answer.cases[:2]
    Path(first.path).unlink()
    Path(second.path).write_bytes(square("other.png", 5).read_bytes())  # is another radiograph now
    page = answer_report(searcher, answer, square("a.png", 210))
    assert Seen(page).words.count("(small copy in the index)") == 2
    assert len(Seen(page).of("img")) == 2 + 4 * len(answer.cases)


def test_an_unfamiliar_query_says_so_first(searcher: Searcher, square: Square) -> None:
    searcher.rules = dataclasses.replace(searcher.rules, familiarity_limit=1.1)
    _, page = asked(searcher, square("a.png", 128))
    words = " ".join(Seen(page).words.split())
    assert words.index("UNFAMILIAR") < words.index("classifier")
    assert "This query is unfamiliar: nothing indexed is like it" in words


def test_a_borderline_prediction_is_marked_and_explained(searcher: Searcher, square: Square) -> None:
    searcher.rules = dataclasses.replace(searcher.rules, borderline=Borderline(1, 0, 0))
    _, page = asked(searcher, square("a.png", 210))
    assert page.count("<b>borderline</b>") == 1
    assert "the classifier is borderline" in Seen(page).words.lower()


def test_disagreement_and_a_vote_of_nobody(searcher: Searcher, square: Square) -> None:
    searcher.rules = dataclasses.replace(searcher.rules, vote_threshold=1.0)
    _, page = asked(searcher, square("a.png", 210))
    assert "Undecided: the classifier says \u25b2 abnormal, the vote says \u25cf normal" in Seen(page).words
    assert "Classifier and vote disagree." in page
    query = square("b.png", 210)
    answer = searcher.search(query, where={"part": ["wrist"]})
    seen = Seen(answer_report(searcher, answer, query))
    assert "by the classifier alone; no study could vote" in seen.words
    assert "No indexed study fits the filters." in seen.words
    assert len(seen.of("img")) == 2


def test_of_many_studies_the_first_have_pictures_and_the_table_has_all(
    squares: Squares, square: Square, model: Path, tmp_path: Path
) -> None:
    many = [(f"p{n}", f"s{n}", n % 2, [20 + 10 * n]) for n in range(MOST + 3)]
    build_index(squares(many), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        _, page = asked(searcher, square("a.png", 210), k=MOST + 3)
    assert page.count("<h3>") == MOST + 1
    assert f"The first {MOST} are shown in pictures." in page
    assert page.count("<tr>") == 1 + 2 + 1 + MOST + 3


def test_a_query_that_is_gone_or_other_than_it_was(searcher: Searcher, square: Square) -> None:
    files = [square("a.png", 210), square("b.png", 200)]
    answer = searcher.search(files)
    files[1].write_bytes(b"nothing")
    with pytest.raises(RadiographError, match="changed while it was read"):
        answer_report(searcher, answer, files)
    files[0].unlink()
    with pytest.raises(RadiographError, match="does not exist"):
        answer_report(searcher, answer, files)
