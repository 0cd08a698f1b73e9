"""CSV tables of an evaluation: what is in them is what was read, and MURA's predictions are MURA's own lines."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.case import Case
from retrieval.datasets.collection import Collection, read_collection
from retrieval.evaluation.evaluate import Evaluation, evaluate
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.retrieval_metrics import Retrieved
from retrieval.evaluation.tables import PREDICTORS, figure_table, prediction_table
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import write_collection


@pytest.fixture
def evaluation(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Evaluation:
    indexed = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235])]
    build_index(squares(indexed), tmp_path / "index", model=model)
    unseen = squares([("eve", "t,1", 0, [30]), ("fay", "t2", 0, [225]), ("gus", "t3", 1, [210, 240])], "others")
    with Searcher.open(tmp_path / "index") as searcher:
        return evaluate(searcher, unseen, rounds=20)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_study_a_line(evaluation: Evaluation) -> None:
    rows = rows_of(evaluation.to_csv())
    assert [row["study"] for row in rows] == ["t,1", "t2", "t3"]
    assert [row["patient"] for row in rows] == ["eve", "fay", "gus"]
    assert [row["label"] for row in rows] == ["normal", "normal", "abnormal"]
    assert [row["radiographs"] for row in rows] == ["1", "1", "2"]
    assert [row["classifier_call"] for row in rows] == ["normal", "abnormal", "abnormal"]
    assert [row["agreement"] for row in rows] == ["yes", "yes", "yes"]
    assert [row["nearest_study"] for row in rows] == ["s1", "s4", "s4"]
    assert [row["nearest_label"] for row in rows] == ["normal", "abnormal", "abnormal"]
    for row, reading in zip(rows, evaluation.predictions, strict=True):
        assert float(row["classifier"]) == pytest.approx(np.mean(reading.classifier), abs=1e-6)
        assert float(row["vote"]) == pytest.approx(np.mean(reading.vote), abs=1e-6)
        assert float(row["mean"]) == pytest.approx((float(row["classifier"]) + float(row["vote"])) / 2, abs=2e-6)
        assert reading.similarity is not None
        assert row["familiar"] == ("yes" if reading.similarity >= evaluation.rules.familiarity_limit else "no")


def test_every_figure_of_the_json_is_a_line(evaluation: Evaluation) -> None:
    rows = {(row["level"], row["part"], row["reader"], row["figure"]): row for row in rows_of(figure_table(evaluation))}
    told = evaluation.to_dict()
    for level in ("study", "image"):
        for reader, figures in told[level].items():  # type: ignore[attr-defined]
            for name, estimate in figures.items():
                row = rows[level, "", reader, name]
                assert row["value"] == ("" if estimate["value"] is None else f"{estimate['value']:.6f}")
                assert row["reason"] == estimate.get("reason", "")
    assert rows["study", "finger", "knn", "kappa"]["value"] == rows["study", "", "knn", "kappa"]["value"]
    assert rows["study", "", "retrieval", "precision_at_1"]["chance"] == "0.500000"
    assert ("study", "", "agreement", "share") in rows
    assert ("study", "", "knn with k 3", "auroc") in rows


@pytest.mark.parametrize(("predictor", "called"), [("classifier", [1, 0, 1]), ("vote", [0, 0, 1]), ("mean", [0, 0, 1])])
def test_a_prediction_is_the_call_of_its_reader(predictor: str, called: list[int]) -> None:
    assert predictor in PREDICTORS
    readings = [
        StudyPrediction(
            (Case(f"valid/XR_HAND/patient00001/study{n}_positive/image1.png", f"s,{n}", "p", 1),),
            (of_classifier,), (of_vote,), 0.5, 0.3, Retrieved({}, {}), np.zeros((1, 2), np.float32),
        )
        for n, (of_classifier, of_vote) in enumerate([(0.6, 0.1), (0.5, 0.3), (0.9, 0.9)])
    ]  # fmt: skip
    lines = prediction_table(readings, "mura", predictor).splitlines()
    assert lines == [f"MURA-v1.1/valid/XR_HAND/patient00001/study{n}_positive/,{call}" for n, call in enumerate(called)]
    assert prediction_table(readings, "csv", predictor).splitlines() == [
        f'"s,{n}",{call}' for n, call in enumerate(called)
    ]


def test_predictions_name_the_studies_as_muras_own_list_does(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "MURA-v1.1"
    write_collection(data, patients=8, seed=1)
    build_index(read_collection(data, split="train"), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        found = evaluate(searcher, read_collection(data, split="valid"), rounds=2)
    listed = (data / "valid_labeled_studies.csv").read_text(encoding="utf-8").splitlines()
    told = prediction_table(found.predictions, "mura").splitlines()
    assert sorted(line.rpartition(",")[0] for line in told) == sorted(line.rpartition(",")[0] for line in listed)
    assert set(found.lesions) <= {row["lesion"] for row in rows_of((data / "lesions.csv").read_text(encoding="utf-8"))}
    assert sum(of.studies for of in found.lesions.values()) == found.abnormal_studies
