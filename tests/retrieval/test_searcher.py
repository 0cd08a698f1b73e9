import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.errors import IndexDamaged, IndexMissing
from retrieval.datasets.collection import Collection
from retrieval.decision.borderline import Borderline
from retrieval.errors import RadiographError
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index
from retrieval.notices import Code, Notice
from retrieval.searcher import Searcher, default_index
from tests.retrieval.index_of_squares import RULES, STUDIES

Squares = Callable[..., Collection]


def test_answer_by_hand(searcher: Searcher, square: Callable[..., Path], cosine: Callable[[int, int], float]) -> None:
    query = square("query.png", 150)
    answer = searcher.search(query, k=4)

    assert [case.study for case in answer.cases] == ["light", "grey", "bright", "white"]
    assert [case.rank for case in answer.cases] == [1, 2, 3, 4]
    similarities = [cosine(150, other) for other in (160, 120, 200, 240)]
    assert [case.similarity for case in answer.cases] == pytest.approx(similarities, abs=2e-3)
    light = answer.cases[0]
    assert (light.label, light.patient, light.part, light.view) == ("abnormal", "patient00003", "finger", "view 1")

    # Three neighbours vote, at temperature 0.1; all but the grey one are abnormal.
    shares = np.exp(np.array(similarities[:3]) / 0.1)
    assert [case.weight for case in answer.cases] == pytest.approx([*(shares / shares.sum()), 0], abs=2e-3)
    vote = 1 - shares[1] / shares.sum()
    assert answer.knn.probability == pytest.approx(vote, abs=2e-3)
    assert (answer.knn.abnormal, answer.knn.k) == (True, 3)

    m = (150 / 255 - 0.5) / 0.25
    logit = 4 * m / np.hypot(m, 1)
    assert answer.classifier.probability == pytest.approx(1 / (1 + np.exp(-(2 * logit - 1))), abs=5e-3)
    assert answer.classifier.abnormal == (answer.classifier.probability > 0.5)
    assert answer.agreement == (answer.classifier.abnormal == answer.knn.abnormal)
    assert answer.familiarity.similarity == answer.cases[0].similarity
    assert answer.familiarity.familiar is True
    assert answer.query.files == (str(query),)
    assert answer.query.excluded_patients == ()


def test_arrays_files_and_folders_answer_alike(searcher: Searcher, square: Callable[..., Path]) -> None:
    path = square("study/one.png", 100)
    square("study/._one.png", 0)
    (path.parent / "notes.txt").write_text("no radiograph")
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    grey = np.asarray(pixels, np.uint8)
    colour = np.dstack([grey, grey, grey])
    answers = [searcher.search(image) for image in (path, str(path), path.parent, [path], grey, [colour])]
    assert len({(a.classifier.probability, a.knn.probability, a.cases) for a in answers}) == 1
    assert answers[4].query.files == ("array 1",)


def test_filters_choose_who_votes(searcher: Searcher, square: Callable[..., Path]) -> None:
    answer = searcher.search(square("query.png", 150), where={"study": ["dark", "dim", "bright"]})
    assert {case.study for case in answer.cases} == {"dark", "dim", "bright"}
    assert answer.knn.k == 3
    assert answer.knn.probability == pytest.approx(sum(c.weight for c in answer.cases if c.label == "abnormal"))


def test_a_filter_on_the_label_never_chooses_who_votes(searcher: Searcher, square: Callable[..., Path]) -> None:
    query = square("query.png", 90)
    everyone, abnormal = searcher.search(query), searcher.search(query, where={"label": ["abnormal"]})
    assert [case.study for case in abnormal.cases] == ["light", "bright", "white"]
    assert abnormal.knn == everyone.knn
    assert abnormal.familiarity == everyone.familiarity


def test_where_nothing_can_vote_the_classifier_answers_alone(searcher: Searcher, square: Callable[..., Path]) -> None:
    answer = searcher.search(square("query.png", 90), where={"part": ["wrist"]})
    assert (answer.knn.probability, answer.knn.abnormal, answer.agreement, answer.cases) == (None, None, None, ())
    assert (answer.views[0].similarity, answer.familiarity) == (
        None,
        searcher.search(square("query.png", 90)).familiarity,
    )
    assert 0 < answer.classifier.probability < 1
    assert any("part wrist" in warning for warning in answer.warnings)
    json.dumps(answer.to_dict(), allow_nan=False)


def test_json_is_the_documented_object(searcher: Searcher, square: Callable[..., Path], place: Path) -> None:
    path = square("query.png", 150)
    found = json.loads(json.dumps(searcher.search(path).to_dict(), allow_nan=False))
    assert list(found) == [
        *("schema", "version", "verdict", "query", "classifier", "knn", "agreement", "familiarity", "views", "cases"),
        *("notices", "model", "index", "seconds", "report", "findings", "evaluation", "warnings"),
    ]
    assert found["schema"] == "mura-search/answer/1"
    assert found["query"] == {"files": [str(path)], "views": 1, "excluded_patients": []}
    assert set(found["classifier"]) == {"probability", "abnormal", "threshold", "source", "borderline"}
    assert set(found["knn"]) == {"probability", "abnormal", "threshold", "k", "studies", "borderline"}
    assert set(found["familiarity"]) == {"similarity", "limit", "familiar", "reasons", "codes", "borderline"}
    documented = {"rank", "similarity", "label", "study", "patient", "part", "view", "case", "path"}
    assert set(found["cases"][0]) == documented | {"weight", "laterality", "finding"}
    assert found["model"] == {"name": "squares", "sha256": searcher.encoder.bundle.sha256, "synthetic": False}
    assert found["index"] == {"path": str(place), "cases": 8, "studies": 6, "synthetic": False, "generation": 1}
    seconds = found["seconds"]
    parts = ("load", "encode", "search", "heatmap")
    assert seconds["total"] == pytest.approx(sum(seconds[part] for part in parts))
    assert searcher.search(path).seconds.load == 0  # what was loaded once is not counted twice


def test_a_query_that_is_unlike_everything_says_so(searcher: Searcher, square: Callable[..., Path]) -> None:
    searcher.rules = dataclasses.replace(RULES, familiarity_limit=0.99999)
    answer = searcher.search(square("query.png", 0))
    assert answer.familiarity.familiar is False


def test_borderline_is_what_mild_changes_could_turn(searcher: Searcher, square: Callable[..., Path]) -> None:
    path = square("query.png", 150)
    plain = searcher.search(path)
    assert (plain.borderline, plain.classifier.borderline, plain.familiarity.borderline) == (None, None, None)
    assert plain.classifier.probability > RULES.classifier_threshold
    assert plain.knn.probability is not None
    assert plain.familiarity.similarity is not None
    widths = Borderline(
        classifier=plain.classifier.probability - RULES.classifier_threshold + 1e-6,
        knn=abs(plain.knn.probability - RULES.vote_threshold) - 1e-6,
        similarity=plain.familiarity.similarity - RULES.familiarity_limit + 1e-6,
    )
    searcher.rules = dataclasses.replace(RULES, borderline=widths)
    answer = searcher.search(path)
    assert (answer.classifier.borderline, answer.knn.borderline, answer.familiarity.borderline) == (True, False, True)
    assert answer.borderline
    assert [notice.code for notice in answer.notices] == [Code.BORDERLINE, Code.NEARLY_UNFAMILIAR]
    assert answer.warnings[0].startswith("the classifier is borderline: probability")
    assert answer.verdict == plain.verdict
    searcher.rules = dataclasses.replace(RULES, borderline=Borderline())
    assert searcher.search(path).borderline is False


def test_a_blank_picture_is_called_blank(searcher: Searcher) -> None:
    blank = np.full((32, 32), 200, np.uint8)
    assert any("is blank" in text for text in searcher.search(blank).warnings)
    blank[0, 0] = 201
    assert not any("is blank" in text for text in searcher.search(blank).warnings)


def test_thresholds_are_strict(searcher: Searcher, square: Callable[..., Path]) -> None:
    probability = searcher.search(square("query.png", 100)).classifier.probability
    searcher.rules = dataclasses.replace(RULES, classifier_threshold=probability)
    assert searcher.search(square("query.png", 100)).classifier.abnormal is False


def test_synthetic_radiographs_are_called_so(squares: Squares, model: Path, tmp_path: Path) -> None:
    build_index(squares(STUDIES, "phantoms", synthetic=True), tmp_path / "other", model=model)
    with Searcher.open(tmp_path / "other") as searcher:
        answer = searcher.search(np.full((32, 32), 100, np.uint8))
    assert answer.index.synthetic is True
    assert any("synthetic" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4)]
)
def test_arrays_of_another_kind_are_refused(searcher: Searcher, image: np.ndarray) -> None:
    with pytest.raises(RadiographError, match="uint8 of shape"):
        searcher.search(image)


def test_questions_that_make_no_sense(searcher: Searcher, tmp_path: Path, square: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RadiographError, match="no radiograph in this folder"):
        searcher.search(tmp_path / "empty")
    with pytest.raises(RadiographError, match="no radiograph was given"):
        searcher.search([])
    with pytest.raises(ValueError, match="at least 1"):
        searcher.search(square("query.png", 1), k=0)
    with pytest.raises(ValueError, match="no field"):
        searcher.search(square("query.png", 1), where={"colour": ["red"]})


def test_damage_is_named_on_opening(place: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match="no index"):
        Searcher.open(tmp_path / "nowhere")
    (place / "model" / "head.safetensors").write_bytes(b"other")
    with pytest.raises(IndexDamaged, match="damaged"):
        Searcher.open(place)


def test_an_index_without_rules_is_damaged(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stored in (None, {"k": 3}, "k"):
        monkeypatch.setattr("index.reader.IndexReader.metadata", lambda self, key, stored=stored: stored)
        with pytest.raises(IndexDamaged, match="decision rules"):
            Searcher.open(place)


def test_the_default_index(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("MURA_SEARCH_INDEX", str(place))
    assert default_index() == place
    with Searcher.open() as searcher:
        assert searcher.source.cases == 8
    monkeypatch.delenv("MURA_SEARCH_INDEX")
    assert default_index().parts[-2:] == ("mura-search", "index")


def test_familiar_is_what_is_like_anything_indexed(searcher: Searcher, square: Callable[..., Path]) -> None:
    query = square("query.png", 90)
    whole, some = searcher.search(query), searcher.search(query, where={"view": ["lateral"]})
    assert some.familiarity == whole.familiarity
    assert some.views[0].similarity is None or some.views[0].similarity <= (whole.views[0].similarity or 0)


def test_a_folder_without_radiographs_is_left_out(
    searcher: Searcher, square: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    answer = searcher.search([square("query.png", 90), tmp_path / "empty"])
    assert answer.query.views == 1
    assert any(warning.startswith("left out: ") and "empty" in warning for warning in answer.warnings)


def test_a_named_file_that_does_not_exist_is_an_error(
    searcher: Searcher, square: Callable[..., Path], tmp_path: Path
) -> None:
    good = square("pa.png", 100)
    for missing in (tmp_path / "latral.png", tmp_path / "search", tmp_path / "run.dcm[2]"):
        with pytest.raises(RadiographError, match="does not exist; check its name"):
            searcher.search([good, missing])
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")  # a file of a folder that went away
    assert Code.LEFT_OUT in [notice.code for notice in searcher.search([good, tmp_path / "broken.png"]).notices]


@pytest.mark.parametrize(("label", "name"), [(0, "normal"), (1, "abnormal")])
def test_an_index_of_one_label_does_not_vote(
    squares: Callable[..., Collection], model: Path, square: Callable[..., Path], tmp_path: Path, label: int, name: str
) -> None:
    collection = squares([(f"p{number}", f"s{number}", label, [60 + number]) for number in range(4)])
    report = build_index(collection, tmp_path / "single", model=model)
    assert Notice(Code.ONE_LABEL, detail={"label": name}) in report.notices
    with Searcher.open(tmp_path / "single") as single:
        answer = single.search(square("query.png", 62))
        assert (answer.knn.probability, answer.knn.abnormal, answer.agreement) == (None, None, None)
        assert Notice(Code.ONE_LABEL, detail={"label": name}) in answer.notices
        assert len(answer.cases) == 4
        both = squares([("p9", "s9", 1 - label, [200])], "more")
        add_to_index(both, tmp_path / "single")
        assert single.search(square("query.png", 62)).knn.probability is not None
