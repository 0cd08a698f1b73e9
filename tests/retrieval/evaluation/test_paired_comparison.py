"""Paired comparison of two models, on calls that can be counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from retrieval.errors import CollectionError
from retrieval.evaluation.paired_comparison import Prediction, compare, read_predictions, write_predictions


def calls(seed: int, skill: float, count: int = 60) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    scores = np.clip(0.5 + skill * (labels - 0.5) + 0.3 * rng.standard_normal((2, count)), 0, 1)
    return [
        Prediction(f"s{i}", f"p{i // 2}", int(labels[i]), float(scores[0, i]), 0.5, float(scores[1, i]), 0.4)
        for i in range(count)
    ]


def test_differences_are_those_of_scikit_learn() -> None:
    own, other = calls(1, 0.6), calls(2, 0.2)
    found = compare(own, list(reversed(other)), rounds=200)
    y = [call.label for call in own]

    def auroc(of: list[Prediction]) -> float:
        return float(roc_auc_score(y, [call.vote for call in of]))

    def kappa(of: list[Prediction]) -> float:
        return float(cohen_kappa_score(y, [call.classifier > 0.5 for call in of]))

    assert found["vote auroc"].value == pytest.approx(auroc(own) - auroc(other))
    gain = found["classifier kappa"]
    assert gain.value == pytest.approx(kappa(own) - kappa(other))
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low < kappa(own) - kappa(other) < gain.high


def test_a_model_gains_nothing_on_itself() -> None:
    for estimate in compare(calls(1, 0.5), calls(1, 0.5), rounds=100).values():
        assert (estimate.value, estimate.low, estimate.high) == (0, None, None)


def test_other_studies_are_refused() -> None:
    own = calls(1, 0.5)
    with pytest.raises(CollectionError, match="different studies"):
        compare(own, own[1:])
    with pytest.raises(CollectionError, match="different studies"):
        compare(own, [replace(own[0], label=1 - own[0].label), *own[1:]])


def test_calls_come_back_as_they_were_written(tmp_path: Path) -> None:
    own = calls(3, 0.4)
    write_predictions(own, tmp_path / "calls.csv")
    assert read_predictions(tmp_path / "calls.csv") == own
    (tmp_path / "calls.csv").write_text("study,label\na,1\n", encoding="utf-8")
    with pytest.raises(CollectionError, match="not a table of predictions"):
        read_predictions(tmp_path / "calls.csv")
