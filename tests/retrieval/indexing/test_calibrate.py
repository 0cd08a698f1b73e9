"""Calibration on local studies: what it learns, what it refuses, and that it can be undone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.decision.calibration import sigmoid
from retrieval.decision.index_rules import stored_rules
from retrieval.decision.kept_evaluation import KeptEvaluation
from retrieval.decision.local_classifier import LocalClassifier
from retrieval.decision.measure_limits import KEY, MeasureLimits, limits_of
from retrieval.decision.reference import SCORES
from retrieval.errors import CollectionError
from retrieval.images.measures import MEASURES
from retrieval.images.radiograph import file_digest, read_radiograph
from retrieval.indexing.build import build_index
from retrieval.indexing.calibrate import calibrate_index, undo_calibration
from retrieval.indexing.update import add_to_index
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path / "cache"))


def studies(
    patients: int, dark: int, bright: int, name: str = "p", spread: int = 6
) -> list[tuple[str, str, int, list[int]]]:
    """One study a patient: dark squares are normal, bright ones abnormal, each up to `spread` darker or brighter."""
    return [
        (f"{name}{n}", f"{name}{n}-s", n % 2, [(bright if n % 2 else dark) + n // 2 * 7 % (2 * spread + 1) - spread])
        for n in range(patients)
    ]


@pytest.fixture
def index(squares: Squares, model: Path, tmp_path: Path) -> Path:
    """An index of dark squares from 30 to 90 and bright squares from 160 to 220."""
    path = tmp_path / "index"
    build_index(squares(studies(60, 60, 190, spread=30)), path, model=model)
    return path


def test_thresholds_follow_the_hospital(index: Path, squares: Squares) -> None:
    """Where normal squares are as bright as 165, a threshold between 90 and 160 calls them abnormal."""
    local = squares(studies(60, 168, 210, "local"), "local")
    with Searcher.open(index) as searcher:
        before = [searcher.search([Path(case.path)]).classifier.abnormal for case in local.cases]
        report = calibrate_index(local, index)
        answers = [searcher.search([Path(case.path)]).classifier for case in local.cases]
    assert sum(called == bool(case.label) for called, case in zip(before, local.cases, strict=True)) < 40
    assert all(answer.abnormal == bool(case.label) for answer, case in zip(answers, local.cases, strict=True))
    assert (report.studies, report.abnormal, report.patients) == (60, 30, 60)
    assert report.rules.source.startswith("calibrated on 60 local studies (30 abnormal) of 60 patients")
    assert report.to_dict()["schema"] == "mura-search/calibration/1"


def test_it_is_one_entry_in_the_history_and_can_be_undone(index: Path, squares: Squares) -> None:
    with IndexReader.open(index) as reader:
        former, reference, generation = stored_rules(reader), reader.metadata("reference"), len(reader.history())
    assert reference is not None
    for name, dark in (("first", 168), ("second", 175)):
        calibrate_index(squares(studies(60, dark, 210, name), name), index)
    with IndexReader.open(index) as reader:
        assert [entry["action"] for entry in reader.history()[generation:]] == ["calibrate", "calibrate"]
        assert reader.history()[-1]["detail"]["studies"] == 60
        assert stored_rules(reader) != former
        assert reader.metadata("reference") != reference
        assert reader.verify()
    undo_calibration(index)
    assert undo_calibration(index) == former
    with IndexReader.open(index) as reader:
        assert stored_rules(reader) == former
        assert reader.metadata("reference") == reference
        assert reader.metadata("former") is None
        assert reader.history()[-1]["action"] == "undo-calibrate"
    with pytest.raises(Exception, match="keeps no rules from before a calibration"):
        undo_calibration(index)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([(f"l{n}", f"l{n}", 1, [190 + n]) for n in range(30)], "all local studies are abnormal"),
        (studies(19, 60, 190, "l"), "of 19 patients, and calibration needs at least 20"),
        ([*studies(30, 60, 190, "l"), ("p3", "new", 1, [200])], r"holds 1 of the 31 local patients \(p3\)"),
    ],
    ids=["one label", "few patients", "known patient"],
)
def test_bad_input_changes_nothing(index: Path, squares: Squares, given: object, words: str) -> None:
    with IndexReader.open(index) as reader:
        before = reader.all_metadata()
    with pytest.raises(CollectionError, match=words) as refusal:
        calibrate_index(squares(given, "local"), index)
    assert str(refusal.value).endswith("nothing is changed")
    with IndexReader.open(index) as reader:
        assert reader.all_metadata() == before


def test_unfamiliar_studies_are_refused(squares: Squares, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "bright"
    build_index(squares(studies(60, 180, 230)), path, model=model)
    with pytest.raises(CollectionError, match="of the 40 local studies are unlike the index"):
        calibrate_index(squares([(f"l{n}", f"l{n}", n % 2, [10 + n]) for n in range(40)], "local"), path)


def test_radiographs_of_the_index_and_of_the_training_are_refused(
    index: Path, squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    copies = squares(studies(60, 60, 190, spread=30), "copies")  # the same bytes
    other = [replace(case, patient=f"x{n}", study=f"x{n}") for n, case in enumerate(copies.cases)]
    with pytest.raises(CollectionError, match="60 of the local radiographs under other patients"):
        calibrate_index(Collection(copies.root, "csv", tuple(other)), index)

    local = squares(studies(60, 60, 190, "l"), "local")
    seen = make_model(tmp_path / "seen", seen=[file_digest(Path(local.cases[0].path))])
    build_index(squares(studies(60, 65, 195, "o"), "others"), tmp_path / "trained", model=seen)
    with pytest.raises(CollectionError, match="trained on 1 of the 60 local radiographs"):
        calibrate_index(local, tmp_path / "trained")


def test_an_interrupted_calibration_goes_on(index: Path, squares: Squares) -> None:
    local = squares(studies(60, 168, 210, "l"), "local")

    def interrupt(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="32 of 60 radiographs are done; the same command continues"):
        calibrate_index(local, index, progress=interrupt)
    report = calibrate_index(local, index)
    assert report.resumed == 32
    assert report.studies == 60


def test_other_writers_are_waited_for_in_words(index: Path, squares: Squares) -> None:
    with IndexWriter.open(index), pytest.raises(Exception, match="writ"):
        calibrate_index(squares(studies(30, 60, 190, "l"), "local"), index)


def test_an_answer_says_which_classifier_spoke(index: Path, square: Callable[..., Path]) -> None:
    """A local classifier that calls dark squares abnormal takes the place of the model's in an open searcher."""
    query = square("query.png", 60)
    with Searcher.open(index) as searcher:
        before = searcher.search([query]).classifier
        local = replace(searcher.rules, local=LocalClassifier(0.0, (-8.0, 0.0)), slope=1.0, intercept=0.0)
        with IndexWriter.open(index) as writer:
            writer.set_values("calibrate", {}, {"rules": local.to_dict()})
        after = searcher.search([query])
        encoded = searcher.encoder.encode([read_radiograph(query).pixels])
        assert (before.source, after.classifier.source) == ("model", "local")
        assert before.probability < 0.5 < after.classifier.probability
        expected = sigmoid(-8 * encoded.embeddings[:, 0].astype(float))
        assert after.classifier.probability == pytest.approx(expected[0])
        assert after.to_dict()["classifier"]["source"] == "local"  # type: ignore[index]  # an object
        assert searcher.explained.head.classify(encoded.embeddings) == pytest.approx(-8 * encoded.embeddings[:, 0])
        assert searcher.encoder.head.classify(encoded.embeddings) == pytest.approx(encoded.logits)


def test_kept_figures_of_former_rules_are_not_shown(index: Path, squares: Squares, square: Callable[..., Path]) -> None:
    query = square("query.png", 60)
    with Searcher.open(index) as searcher:
        kept = KeptEvaluation(
            9, 4, "2026-01-01", searcher.index.generation, (), searcher.index.identity, searcher.model.sha256
        )
        kept.write(index)
    with Searcher.open(index) as searcher:
        assert searcher.search([query]).evaluation == kept
        calibrate_index(squares(studies(60, 168, 210, "l"), "local"), index)
        assert searcher.search([query]).evaluation is None


def test_limits_of_plain_measures_become_those_of_the_local_studies(index: Path, squares: Squares) -> None:
    """And stay so when radiographs are added; undo brings the index's own limits back."""
    with IndexReader.open(index) as reader:
        own = limits_of(reader)
    calibrate_index(squares(studies(60, 168, 210, "l"), "local"), index)
    with IndexReader.open(index) as reader:
        local = limits_of(reader)
        assert (own.local, local.local, local.studies) == (False, True, 60)
    add_to_index(squares(studies(20, 60, 190, "more"), "more"), index)
    with IndexReader.open(index) as reader:
        assert limits_of(reader) == local
    undo_calibration(index)
    with IndexReader.open(index) as reader:
        assert MeasureLimits.from_dict(reader.metadata(KEY)) == own


def test_the_scores_and_measures_of_the_local_studies_are_the_reference(index: Path, squares: Squares) -> None:
    calibrate_index(squares(studies(60, 168, 210, "l"), "local"), index)
    with Searcher.open(index) as searcher:
        reference = searcher.reference
    assert reference is not None
    assert reference.studies == 60
    assert set(reference.scores) == {*SCORES, *MEASURES}
    assert reference.abnormal["classifier"] == pytest.approx(0.5, abs=0.05)
