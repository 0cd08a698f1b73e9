"""The report of an evaluation: its figures are those of the JSON, and it holds whatever the collection is like."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from index.case import Case
from retrieval.datasets.collection import Collection
from retrieval.evaluation.evaluate import evaluate
from retrieval.indexing.build import build_index
from retrieval.reports.evaluation_report import MOST, evaluation_report, wrong_predictions
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]
INDEXED = [(f"p{n}", f"s{n}", int(n > 5), [20 + 19 * n]) for n in range(12)]
UNSEEN = [
    ("eve", "<b>t1</b>", 0, [30, 35]),
    ("fay", "t2", 0, [225]),  # a bright one that is normal: an error
    ("gus", "t3", 1, [210, 240]),
    ("hal", "t4", 1, [40, 45, 50, 55, 60, 65]),  # a dark one that is not
    ("ida", "t5", 0, [65]),
]


@pytest.fixture
def searcher(squares: Squares, model: Path, tmp_path: Path) -> Iterator[Searcher]:
    build_index(squares(INDEXED), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


def unseen(squares: Squares) -> Collection:
    made = squares([(patient, f"t{n}", label, views) for n, (patient, _, label, views) in enumerate(UNSEEN)], "unseen")
    names = {f"t{n}": study for n, (_, study, _, _) in enumerate(UNSEEN)}
    cases: list[Case] = [dataclasses.replace(case, study=names[case.study]) for case in made.cases]
    parts = ["hand" if case.patient in ("eve", "hal", "gus") else "wrist" for case in cases]
    return dataclasses.replace(
        made, cases=tuple(dataclasses.replace(case, part=part) for case, part in zip(cases, parts, strict=True))
    )


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def test_its_figures_are_those_of_the_evaluation(searcher: Searcher, squares: Squares) -> None:
    found = evaluate(searcher, unseen(squares), rounds=50)
    page = evaluation_report(found, searcher)
    seen = Text(page)
    words = " ".join(seen.words)
    assert "5 studies (2 abnormal) with 12 radiographs of 5 patients" in words
    for level in (found.study, found.image):
        for name in ("classifier", "knn"):
            for estimate in level[name].values():
                assert estimate.value is None or f"{estimate.value:.3f}" in words
    assert f"{found.retrieval['map_at_r'].value:.3f}" in words
    assert f"{found.retrieval['map_at_r'].chance:.3f}" in words
    test = found.agreement.mcnemar
    assert (
        f"only the vote predicts right: {test.knn_only}; only the classifier: {test.classifier_only}; p = {test.p:.3g}"
        in words
    )
    assert [at["id"] for tag, at in seen.tags if tag == "section"] == [
        "by-study", "by-image", "by-part", "curves", "agreement", "worklist", "retrieval", "sweep", "map", "errors",
        "method",
    ]  # fmt: skip
    charts = [at["aria-label"] or "" for tag, at in seen.tags if tag == "svg"]
    assert [label.split()[0] for label in charts] == [
        "Cohen's", "ROC", "Precision-recall", "Calibration", "Calibration", "The", "Map"
    ]  # fmt: skip
    assert len(found.parts) == 2
    for part, of in found.parts.items():
        kappa = of.study["knn"]["kappa"].value
        assert f"{part} ({of.studies}): " in charts[0]
        assert ("undefined" if kappa is None else f"{kappa:.3f}") in charts[0]
    assert "nan" not in page
    assert set(found.worklist) == {"classifier", "knn", "mean"}
    for told in found.worklist.values():
        assert all(f"{of.value:.3f}" in words for of in (told.position, told.area, told.normalised))


def test_the_worst_errors_are_shown_with_their_neighbours(searcher: Searcher, squares: Squares) -> None:
    found = evaluate(searcher, unseen(squares), rounds=5)
    wrong = wrong_predictions(found.predictions)
    assert {reading.study for reading in wrong} == {"t2", "t4"}
    assert abs(wrong[0].mean - wrong[0].label) >= abs(wrong[1].mean - wrong[1].label)
    seen = Text(evaluation_report(found, searcher))
    pictures = [at for tag, at in seen.tags if tag == "img"]
    # One radiograph of t2 and four of t4's six, and five neighbours each.
    assert len(pictures) == 1 + 4 + 2 * 5
    assert all((at["src"] or "").startswith("data:image/jpeg;base64,/9j/") for at in pictures)
    alts = [at["alt"] or "" for at in pictures]
    assert sum("of study t4" in alt for alt in alts) == 4
    nearest = wrong[0].neighbours[0].case
    assert f"nearest radiograph of study {nearest.study}, labelled {nearest.label_name}" in alts
    assert any("Radiographs not shown: 2." in words for words in seen.words)


def test_what_a_table_names_stays_text(searcher: Searcher, squares: Squares) -> None:
    evil = '<img src=x onerror="alert(1)">&'
    collection = squares([("eve", "t1", 0, [220])], "unseen")
    (case,) = collection.cases
    case = dataclasses.replace(case, study=evil, part=evil, view=evil, patient=evil)
    found = evaluate(searcher, dataclasses.replace(collection, cases=(case,)), rounds=5)
    page = evaluation_report(found, searcher)
    seen = Text(page)
    assert {tag for tag, at in seen.tags if "onerror" in at} == set()
    sources = [at["src"] or "" for tag, at in seen.tags if tag == "img"]
    assert len(sources) > 1
    assert all(source.startswith("data:") for source in sources)
    assert evil in seen.words
    assert re.search(r"<h3>&lt;img src=x", page)


def test_one_label_has_no_curves_and_says_so(searcher: Searcher, squares: Squares) -> None:
    found = evaluate(searcher, squares([("eve", "t1", 0, [30]), ("fay", "t2", 0, [35])], "unseen"), rounds=5)
    seen = Text(evaluation_report(found, searcher))
    assert "Curves need both normal and abnormal studies." in seen.words
    assert "Classifier and vote predict every study right." in seen.words
    assert not [tag for tag, _ in seen.tags if tag == "img"]


def test_a_radiograph_that_is_gone_leaves_a_space(searcher: Searcher, squares: Squares) -> None:
    collection = unseen(squares)
    found = evaluate(searcher, collection, rounds=5)
    for case in collection.cases:
        Path(case.path).unlink()
    seen = Text(evaluation_report(found, searcher))
    blank = [at["aria-label"] or "" for tag, at in seen.tags if at.get("class") == "blank"]
    assert len(blank) == 5
    assert all("can no longer be read" in words for words in blank)


def test_unreadable_radiographs_are_listed(searcher: Searcher, squares: Squares) -> None:
    collection = unseen(squares)
    Path(collection.cases[0].path).write_bytes(b"<i>none</i>")
    found = evaluate(searcher, collection, rounds=5)
    seen = Text(evaluation_report(found, searcher))
    assert collection.cases[0].case in seen.words
    assert any(words == "Radiographs that could not be read, listed at the end: 1." for words in seen.words)


def test_of_many_errors_the_worst_are_shown(searcher: Searcher, squares: Squares) -> None:
    bright = squares([(f"q{n}", f"t{n}", 0, [211 + n]) for n in range(MOST + 3)], "unseen")
    found = evaluate(searcher, bright, rounds=5)
    seen = Text(evaluation_report(found, searcher))
    assert sum(tag == "article" for tag, _ in seen.tags) == MOST
    assert any(f"predicts wrong: {MOST + 3}; the {MOST} worst follow" in words for words in seen.words)
