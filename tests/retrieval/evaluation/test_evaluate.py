import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from index.writer import IndexWriter
from retrieval.datasets.collection import Collection, read_collection
from retrieval.decision.rules import Rules
from retrieval.encoding.batches import thumbnail
from retrieval.encoding.picture_hash import picture_hashes
from retrieval.errors import EvaluationError
from retrieval.evaluation.evaluate import Evaluation, evaluate
from retrieval.evaluation.metrics import METRICS
from retrieval.images.radiograph import file_digest
from retrieval.indexing.build import build_index
from retrieval.notices import Code, Notice
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import draw_study
from retrieval.wording import sentence

Squares = Callable[..., Collection]
RULES = Rules(k=3, temperature=0.1, vote_threshold=0.4, slope=2.0, intercept=-1.0, classifier_threshold=0.45)
INDEXED = [(f"p{n}", f"s{n}", n % 2, [30 + 20 * n]) for n in range(11)]
UNSEEN = [
    ("q1", "t1", 0, [45, 60]),
    ("q1", "t2", 1, [130]),
    ("q2", "t3", 1, [180, 200, 90]),
    ("q3", "t4", 0, [95]),
    ("q4", "t5", 1, [220]),
    ("q5", "t6", 0, [215, 40]),
]


@pytest.fixture
def searcher(squares: Squares, make_model: Callable[..., Path], tmp_path: Path) -> Iterator[Searcher]:
    model = make_model(tmp_path / "model", rules=RULES.to_dict())
    build_index(squares(INDEXED), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


def test_figures_are_those_of_querying_one_by_one(searcher: Searcher, squares: Squares) -> None:
    collection = squares(UNSEEN, "unseen")
    seen: list[tuple[int, int]] = []
    found = evaluate(searcher, collection, rounds=200, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    assert (found.studies, found.images, found.patients) == (6, 10, 5)
    assert (found.abnormal_studies, found.abnormal_images, found.skipped) == (3, 5, ())

    files = {study: [case.path for case in collection.cases if case.study == study] for _, study, _, _ in UNSEEN}
    answers = {study: searcher.search(paths, k=5) for study, paths in files.items()}
    labels = [label for _, _, label, _ in UNSEEN]
    classifier = [answers[study].classifier.probability for study in files]
    vote = [answers[study].knn.probability or 0.0 for study in files]
    for name, scores, calls in (
        ("classifier", classifier, [answers[study].classifier.abnormal for study in files]),
        ("knn", vote, [bool(answers[study].knn.abnormal) for study in files]),
        ("mean", list(np.mean([classifier, vote], axis=0)), list(np.mean([classifier, vote], axis=0) > 0.425)),
    ):
        assert found.study[name]["auroc"].value == pytest.approx(roc_auc_score(labels, scores))
        assert found.study[name]["kappa"].value == pytest.approx(cohen_kappa_score(labels, calls))
    assert found.difference["kappa"].value == pytest.approx(
        (found.study["knn"]["kappa"].value or 0) - (found.study["classifier"]["kappa"].value or 0)
    )

    views = [(case.label, searcher.search(case.path)) for case in collection.cases]
    image_labels = [label for label, _ in views]
    assert found.image["knn"]["auroc"].value == pytest.approx(
        roc_auc_score(image_labels, [answer.knn.probability or 0.0 for _, answer in views])
    )
    assert found.image["classifier"]["accuracy"].value == pytest.approx(
        np.mean([answer.classifier.abnormal == label for label, answer in views])
    )
    names = ["normal", "abnormal"]
    shares = [np.mean([c.label == names[label] for c in answers[s].cases]) for (_, s, label, _) in UNSEEN]
    assert found.retrieval["precision_at_5"].value == pytest.approx(np.mean(shares))


@pytest.mark.data
def test_real_radiographs_go_the_same_way(model: Path, tmp_path: Path) -> None:
    data = Path(__file__).parents[3] / ".." / "shared" / "data" / "fracatlas-upper-limb"
    if not data.is_dir():
        pytest.skip("no real radiographs beside the checkout")
    cases = read_collection(data).cases
    patients = sorted({case.patient for case in cases})
    indexed, unseen = (
        Collection(data, "csv", tuple(case for case in cases if case.patient in set(patients[part])))
        for part in (slice(0, 30), slice(30, 60))
    )
    report = build_index(indexed, tmp_path / "index", model=model)
    assert (report.cases, report.quarantined) == (len(indexed.cases), ())
    with Searcher.open(tmp_path / "index") as searcher:
        found = evaluate(searcher, unseen, rounds=500)
        assert (found.images, found.patients, found.skipped) == (len(unseen.cases), 30, ())
        # Mean brightness is no sign of a fracture: the intervals of this model hold chance.
        auroc = found.study["knn"]["auroc"]
        assert auroc.low is not None
        assert auroc.high is not None
        assert auroc.low < 0.6
        with pytest.raises(EvaluationError, match="of 30 patients are in the index"):
            evaluate(searcher, indexed)


def test_nothing_is_tuned_and_what_was_used_is_said(searcher: Searcher, squares: Squares) -> None:
    before = searcher.rules
    found = evaluate(searcher, squares(UNSEEN, "unseen"), rounds=20)
    assert searcher.rules == before == found.rules
    assert found.rules.to_dict() == {**RULES.to_dict(), "source": f"the model's own, {RULES.source}"}
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["schema"] == "mura-search/evaluation/1"
    assert (content["studies"], content["images"]) == (6, 10)
    assert content["rules"]["k"] == 3
    assert content["rules"]["vote_threshold"] == 0.4
    assert set(content["study"]) == set(content["image"]) == {"classifier", "knn", "mean"}
    metrics = set(METRICS)
    assert metrics > {"kappa", "accuracy", "sensitivity", "specificity", "auroc"}
    for level in ("study", "image"):
        for reader in content[level].values():
            assert set(reader) == metrics
            assert all({"value", "low", "high"} <= set(estimate) for estimate in reader.values())
    assert set(content["difference"]) == metrics
    depths = {f"{kind}_at_{depth}" for kind in ("precision", "recall") for depth in (1, 5, 10)}
    assert set(content["retrieval"]) == depths | {"map_at_r"}
    assert all(0 < figure["chance"] <= 1 for figure in content["retrieval"].values())
    assert [point["k"] for point in content["sweep"]] == [1, 3, 5, 9]  # the index has eleven studies
    assert [point["k"] for point in content["sweep"] if point["used"]] == [3]
    assert content["sweep"][1]["auroc"] == content["study"]["knn"]["auroc"]
    assert content["lesions"] == {}
    assert content["unfamiliar"] == sum(
        reading.similarity < found.rules.familiarity_limit for reading in found.predictions if reading.similarity
    )
    assert "readings" not in content


def test_an_index_that_changes_meanwhile_is_judged_as_it_was(searcher: Searcher, squares: Squares) -> None:
    collection = squares(UNSEEN, "unseen")
    before = dataclasses.replace(evaluate(searcher, collection, rounds=20), seconds=0)

    def change(done: int, total: int) -> None:
        with IndexWriter.open(searcher.index.path) as writer:
            writer.relabel("s4", done % 2)
            writer.remove({"study": ["s1"]})

    meanwhile = dataclasses.replace(evaluate(searcher, collection, rounds=20, progress=change), seconds=0)
    assert meanwhile == before
    searcher.refresh()
    assert dataclasses.replace(evaluate(searcher, collection, rounds=20), seconds=0) != before


def test_the_same_seed_gives_the_same_figures(searcher: Searcher, squares: Squares) -> None:
    collection = squares(UNSEEN, "unseen")

    def figures(seed: int) -> Evaluation:
        return dataclasses.replace(evaluate(searcher, collection, rounds=100, seed=seed), seconds=0)

    assert figures(1) == figures(1)
    assert figures(1).study["knn"]["auroc"].value == figures(2).study["knn"]["auroc"].value


def test_kinds_of_lesions_are_those_of_the_table(searcher: Searcher, squares: Squares) -> None:
    collection = squares(UNSEEN, "unseen")
    file = collection.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.study},{case.patient},{'Fracture' if case.study == 't3' else ''}"
            for case in collection.cases]  # fmt: skip
    file.write_text("\n".join(["path,label,study,patient,lesion", *rows]), encoding="utf-8")
    found = evaluate(searcher, read_collection(file), rounds=10)
    assert list(found.lesions) == ["fracture"]
    assert found.lesions["fracture"].studies == 1
    assert found.to_dict()["lesions"]["fracture"]["studies"] == 1  # type: ignore[index]


def test_patients_of_the_index_are_refused_counted_and_named(searcher: Searcher, squares: Squares) -> None:
    known = [(f"p{n}", f"again{n}", 0, [77 + n]) for n in range(7)]
    with pytest.raises(EvaluationError, match=r"7 of 12 patients are in the index \(p0, p1, p2, p3, p4 and 2 more\)"):
        evaluate(searcher, squares([*UNSEEN, *known], "mixed"))


def test_radiographs_of_the_index_under_another_name_are_refused(
    searcher: Searcher, squares: Squares, tmp_path: Path
) -> None:
    collection = squares(UNSEEN, "unseen")
    shutil.copy(tmp_path / "data" / "s4-1.png", collection.cases[0].path)
    with pytest.raises(EvaluationError, match=r"1 of 10 radiographs are in the index .*\(t1-1\.png\)"):
        evaluate(searcher, collection)


def test_radiographs_the_model_was_trained_on_are_refused(
    squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    collection = squares(UNSEEN, "unseen")
    seen = [file_digest(Path(case.path)) for case in collection.cases[:2]]
    model = make_model(tmp_path / "model", seen=seen)
    build_index(squares(INDEXED), tmp_path / "index", model=model)
    with (
        Searcher.open(tmp_path / "index") as searcher,
        pytest.raises(EvaluationError, match=r"trained on 2 of 10 radiographs \(t1-1\.png, t1-2\.png\)"),
    ):
        evaluate(searcher, collection)


def test_radiographs_the_model_was_trained_on_are_refused_in_other_bytes(
    squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    collection = squares(UNSEEN, "unseen")
    pictures = [phantom.pixels for study in range(10) for phantom in draw_study(0, study, abnormal=False)]
    for case, pixels in zip(collection.cases, pictures, strict=False):
        cv2.imwrite(case.path, pixels)
    jpegs = [cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 70))[1] for pixels in pictures[:2]]
    hashes = picture_hashes(thumbnail(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)) for jpeg in jpegs)  # type: ignore[arg-type]
    build_index(squares(INDEXED), tmp_path / "index", model=make_model(tmp_path / "model", hashes=hashes))
    with (
        Searcher.open(tmp_path / "index") as searcher,
        pytest.raises(EvaluationError, match=r"trained on 2 of 10 radiographs \(t1-1\.png, t1-2\.png\)"),
    ):
        evaluate(searcher, collection)


def test_unreadable_radiographs_are_skipped_and_reported(searcher: Searcher, squares: Squares) -> None:
    collection = squares(UNSEEN, "unseen")
    Path(collection.cases[0].path).write_bytes(b"no radiograph")  # one view of two
    Path(collection.cases[2].path).unlink()  # a whole study
    found = evaluate(searcher, collection, rounds=10)
    assert (found.studies, found.images) == (5, 8)
    assert [case for case, _ in found.skipped] == ["t1-1.png", "t2-1.png"]
    assert all(reason for _, reason in found.skipped)
    for case in collection.cases:
        Path(case.path).write_bytes(b"")
    with pytest.raises(EvaluationError, match="no radiograph of 10 could be read"):
        evaluate(searcher, collection)


def test_one_label_gives_null_and_a_reason(searcher: Searcher, squares: Squares) -> None:
    normal = squares([row for row in UNSEEN if row[2] == 0], "normal")
    content = json.loads(json.dumps(evaluate(searcher, normal, rounds=10).to_dict(), allow_nan=False))
    auroc = content["study"]["knn"]["auroc"]
    assert auroc["value"] is None
    assert auroc["low"] is None
    assert "both" in auroc["reason"]
    assert content["difference"]["kappa"]["value"] is None
    assert content["study"]["classifier"]["specificity"]["value"] is not None


def test_figures_on_synthetic_radiographs_say_so(searcher: Searcher, squares: Squares) -> None:
    inferred = Notice(Code.INFERRED_PATIENTS)
    evaluation = evaluate(
        searcher, dataclasses.replace(squares(UNSEEN, "unseen", synthetic=True), notices=(inferred,)), rounds=10
    )
    assert [notice.code for notice in evaluation.notices] == [Code.INFERRED_PATIENTS, Code.SYNTHETIC_FIGURES]
    assert evaluation.to_dict()["notes"] == [*map(sentence, evaluation.notices)]


def test_an_index_that_was_emptied_cannot_judge(searcher: Searcher, squares: Squares) -> None:
    patients = sorted({case.patient for case in searcher.index.cases()})
    with IndexWriter.open(searcher.index.path) as edit:
        edit.remove({"patient": patients})
    searcher.refresh()
    with pytest.raises(EvaluationError, match="is empty; add radiographs"):
        evaluate(searcher, squares([("new", "new", 0, [70])], "others"))


def test_an_index_of_one_label_is_not_evaluated(squares: Squares, model: Path, tmp_path: Path) -> None:
    build_index(squares([("p1", "s1", 0, [60]), ("p2", "s2", 0, [70])]), tmp_path / "normal", model=model)
    with (
        Searcher.open(tmp_path / "normal") as searcher,
        pytest.raises(EvaluationError, match="are normal, so they do not"),
    ):
        evaluate(searcher, squares(UNSEEN, "unseen"), rounds=5)
