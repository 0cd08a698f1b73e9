import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from retrieval.datasets.collection import Collection
from retrieval.decision.rules import Rules
from retrieval.errors import EvaluationError
from retrieval.evaluation.evaluate import evaluate
from retrieval.evaluation.robustness import robustness
from retrieval.images.corruptions import CORRUPTIONS, corrupt
from retrieval.images.radiograph import read_radiograph
from retrieval.indexing.build import build_index
from retrieval.reports.robustness_report import robustness_report
from retrieval.searcher import Searcher

RULES = Rules(k=3, temperature=0.1, vote_threshold=0.4, slope=2.0, intercept=-1.0, classifier_threshold=0.45)
INDEXED = [(f"p{n}", f"s{n}", n % 2, [30 + 20 * n]) for n in range(11)]
UNSEEN = [("q1", "t1", 0, [45, 60]), ("q2", "t2", 1, [180, 200, 90]), ("q3", "t3", 0, [95]), ("q4", "t4", 1, [220])]


@pytest.fixture
def searcher(squares: Callable[..., Collection], make_model: Callable[..., Path], tmp_path: Path) -> Iterator[Searcher]:
    build_index(squares(INDEXED), tmp_path / "index", model=make_model(tmp_path / "model", rules=RULES.to_dict()))
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


def test_each_condition_is_the_evaluation_of_changed_files(
    searcher: Searcher, squares: Callable[..., Collection], tmp_path: Path
) -> None:
    collection = squares(UNSEEN, "unseen")
    seen: list[tuple[int, int]] = []
    result = robustness(
        searcher,
        collection,
        names=["brighter", "low-contrast"],
        strengths=["strong"],
        rounds=50,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (21, 21)
    assert [(each.corruption, each.strength, each.amount) for each in result.conditions] == [
        ("", "", None),
        ("brighter", "strong", 0.5),
        ("low-contrast", "strong", 0.5),
    ]
    unchanged = evaluate(searcher, collection, rounds=50)
    for condition in result.conditions:
        changed = collection
        if condition.corruption:
            changed = squares(UNSEEN, condition.corruption)
            for case in changed.cases:  # the oracle: the changed radiographs, written to files
                cv2.imwrite(case.path, corrupt(read_radiograph(Path(case.path)).pixels, condition.corruption, 2))
        expected = evaluate(searcher, changed, rounds=50)
        for predictor in ("classifier", "knn"):
            for figure in ("kappa", "auroc", "sensitivity", "specificity"):
                assert condition.figures[predictor][figure] == expected.study[predictor][figure]
        assert condition.unfamiliar.value == expected.unfamiliar / 4
        assert sum(condition.reasons.values()) >= expected.unfamiliar
    assert result.conditions[1].loss(result.conditions[0], "classifier") == pytest.approx(
        (unchanged.study["classifier"]["kappa"].value or 0)
        - (result.conditions[1].figures["classifier"]["kappa"].value or 0)
    )


def test_as_json_and_as_a_table(searcher: Searcher, squares: Callable[..., Collection]) -> None:
    result = robustness(searcher, squares(UNSEEN, "unseen"), names=["jpeg"], rounds=20)
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored["schema"] == "mura-search/robustness/1"
    assert [condition["amount"] for condition in stored["conditions"]] == [None, 60, 30, 10]
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [row["strength"] for row in rows] == ["", "mild", "medium", "strong"]
    assert float(rows[0]["classifier_kappa"]) == stored["conditions"][0]["figures"]["classifier"]["kappa"]["value"]


def test_noise_differs_between_radiographs_and_not_between_runs(
    searcher: Searcher, squares: Callable[..., Collection]
) -> None:
    collection = squares(UNSEEN, "unseen")
    one, same, other = (
        robustness(searcher, collection, names=["electronic-noise"], strengths=["strong"], rounds=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.conditions == same.conditions
    assert one.conditions[1] != other.conditions[1]


def test_all_corruptions_are_judged_unless_some_are_named(
    searcher: Searcher, squares: Callable[..., Collection]
) -> None:
    result = robustness(searcher, squares(UNSEEN[-1:], "unseen"), rounds=2)
    assert len(result.conditions) == 1 + 3 * len(CORRUPTIONS)


def test_what_evaluation_refuses_is_refused(
    searcher: Searcher, squares: Callable[..., Collection], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    one_label = tmp_path / "one label"
    normal = [study for study in INDEXED if study[2] == 0]
    build_index(squares(normal, "normal"), one_label, model=make_model(tmp_path / "own", rules=RULES.to_dict()))
    with pytest.raises(EvaluationError, match="patients are in the index"):
        robustness(searcher, squares(INDEXED, "again"))
    with Searcher.open(one_label) as opened, pytest.raises(EvaluationError, match="do not vote"):
        robustness(opened, squares(UNSEEN[-1:], "alone"))
    broken = squares(UNSEEN[-1:], "broken")
    Path(broken.cases[0].path).write_text("nothing")
    with pytest.raises(EvaluationError, match="no radiograph of 1 could be read"):
        robustness(searcher, broken)


def test_the_report_has_a_picture_and_every_figure(searcher: Searcher, squares: Callable[..., Collection]) -> None:
    result = robustness(searcher, squares(UNSEEN, "unseen"), names=["brighter"], strengths=["mild"], rounds=50)
    page = robustness_report(result)
    assert page.count('class="chart') == 1
    for condition in result.conditions:
        for reader in ("classifier", "knn"):
            kappa = condition.figures[reader]["kappa"].value
            assert kappa is not None
            assert f"{kappa:.3f}" in page
    assert CORRUPTIONS["brighter"].about in page
    assert "data:image" not in page  # no radiograph leaves the hospital with it
