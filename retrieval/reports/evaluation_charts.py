"""The charts of an evaluation's report."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.curves import Bin, precision_recall, reliability, roc
from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import BINS, Confusion, Estimate
from retrieval.evaluation.pca import Plane
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import SweepPoint
from retrieval.reports.page import Html
from retrieval.reports.svg_chart import Axis, Chart

__all__ = [
    "READERS",
    "forest_chart",
    "map_chart",
    "precision_recall_chart",
    "reliability_chart",
    "roc_chart",
    "sweep_chart",
]

READERS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}
_KINDS = {"classifier": "classifier", "knn": "vote", "mean": "mean"}
_MOST_DOTS = 1_500  # of the index on the map; more would hide each other and only make the page heavy

Floats = NDArray[np.float64]


def roc_chart(evaluation: Evaluation) -> Html:
    """ROC curves of the three readers by study, with the stored thresholds."""
    labels, scores = _by_study(evaluation.readings)
    told = ", ".join(f"{READERS[name]} {_plain(of['auroc'])}" for name, of in evaluation.study.items())
    chart = Chart(
        f"ROC curves by study. Area under the curve: {told}.",
        Axis("1 - specificity"),
        Axis("sensitivity"),
        width=400,
        height=380,
    )
    chart.guide((0, 0), (1, 1))
    for name, of in reversed(scores.items()):
        chart.line(zip(*(axis.tolist() for axis in roc(labels, of)), strict=True), _KINDS[name])
    for name, counts in reversed(list(evaluation.confusion["study"].items())):
        chart.marks([_roc_point(counts)], _KINDS[name], size=5.5)
    for name, title in READERS.items():
        chart.key(f"{title}, {_plain(evaluation.study[name]['auroc'])}", _KINDS[name], "both")
    chart.key("chance, 0.500", "", "guide")
    return Html(chart.svg())


def precision_recall_chart(evaluation: Evaluation) -> Html:
    """Precision-recall curves of the three readers by study, with the stored thresholds."""
    labels, scores = _by_study(evaluation.readings)
    told = ", ".join(f"{READERS[name]} {_plain(of['average_precision'])}" for name, of in evaluation.study.items())
    prevalence = float(labels.mean())
    chart = Chart(
        f"Precision-recall curves by study. Average precision: {told}; chance {prevalence:.3f}.",
        Axis("recall (sensitivity)"),
        Axis("precision"),
        width=400,
        height=380,
    )
    chart.guide((0, prevalence), (1, prevalence))
    for name, of in reversed(scores.items()):
        recall, precision = (axis.tolist() for axis in precision_recall(labels, of))
        chart.line(_steps(recall, precision), _KINDS[name])
    for name, counts in reversed(list(evaluation.confusion["study"].items())):
        called = counts.true_positive + counts.false_positive
        if called:
            recalled = counts.true_positive / (counts.true_positive + counts.false_negative)
            chart.marks([(recalled, counts.true_positive / called)], _KINDS[name], size=5.5)
    for name, title in READERS.items():
        chart.key(f"{title}, {_plain(evaluation.study[name]['average_precision'])}", _KINDS[name], "both")
    chart.key(f"chance, {prevalence:.3f}", "", "guide")
    return Html(chart.svg())


def reliability_chart(evaluation: Evaluation, name: str) -> Html:
    """Share of abnormal studies by the probability a reader gave them; below, how many studies there are."""
    labels, scores = _by_study(evaluation.readings)
    bins = reliability(labels, scores[name])
    told = "; ".join(f"{of.share:.2f} at {of.probability:.2f} ({of.items})" for of in bins if of)
    chart = Chart(
        f"Calibration of the {READERS[name]}: share of abnormal studies at their mean probability (studies): {told}.",
        Axis(f"probability by the {READERS[name]}"),
        Axis("share abnormal"),
        width=400,
        height=360,
    )
    tallest = max(of.items for of in bins if of)
    chart.bars(
        [((i + 0.08) / BINS, (i + 0.92) / BINS, 0.2 * of.items / tallest) for i, of in enumerate(bins) if of],
        _KINDS[name],
    )
    chart.guide((0, 0), (1, 1))
    points = [(of.probability, of.share) for of in bins if of]
    for of in filter(None, bins):
        low, high = _wilson(of)
        chart.interval((of.probability, low), (of.probability, high), _KINDS[name])
    chart.line(points, _KINDS[name])
    chart.marks(points, _KINDS[name], size=5)
    chart.key("observed, 95 % interval", _KINDS[name], "both")
    chart.key("ideal", "", "guide")
    return Html(chart.svg())


def forest_chart(evaluation: Evaluation) -> Html:
    """Kappa by study of the three readers, by part and overall, with intervals."""
    groups = [(f"all ({evaluation.studies:,})", evaluation.study)]
    if len(evaluation.parts) > 1:
        named = [(f"{part or 'unnamed'} ({of.studies:,})", of.readers) for part, of in evaluation.parts.items()]
        groups = [*named, *groups]
    lows = [of[name]["kappa"].low for _, of in groups for name in READERS]
    low = min(0.0, *(math.floor(10 * value) / 10 for value in lows if value is not None), 0.0)
    told = "; ".join(
        f"{group}: " + ", ".join(f"{READERS[name]} {_plain(of[name]['kappa'])}" for name in READERS)
        for group, of in groups
    )
    last = len(groups) - 1
    chart = Chart(
        f"Cohen's kappa by study, with 95 % intervals. {told}.",
        Axis("Cohen's kappa", low, 1.0),
        Axis("", -0.6, last + 0.6, tuple((last - i, name) for i, (name, _) in enumerate(groups)), grid=False),
        width=540,
        height=70 + 56 * len(groups),
        kind="broad",
    )
    chart.guide((0, -0.6), (0, last + 0.6))
    for row, (_, of) in enumerate(groups):
        for place, name in enumerate(READERS):
            _row(chart, of[name]["kappa"], last - row + 0.24 * (1 - place), _KINDS[name])
    for name, title in READERS.items():
        chart.key(title, _KINDS[name], "mark")
    return Html(chart.svg())


def sweep_chart(points: Sequence[SweepPoint]) -> Html:
    """The vote's AUROC and kappa by the number of voting studies."""
    told = "; ".join(f"k {point.k}: AUROC {_plain(point.auroc)}, kappa {_plain(point.kappa)}" for point in points)
    counts = tuple((float(i), str(point.k)) for i, point in enumerate(points))
    values = [estimate.low for point in points for estimate in (point.kappa, point.auroc) if estimate.low is not None]
    low = min(0.5, *(math.floor(10 * value) / 10 for value in values), 0.5)
    chart = Chart(
        f"The vote by the number of studies that vote. {told}.",
        Axis("voting studies k", -0.5, len(points) - 0.5, counts, grid=False),
        Axis("", low, 1.0),
        width=540,
        height=300,
        kind="broad",
    )
    for place, point in enumerate(points):
        if point.used:
            chart.guide((place, low), (place, 1.0))
    for name, kind, shift in (("auroc", "mean", -0.07), ("kappa", "vote", 0.07)):
        at = [(i + shift, getattr(point, name)) for i, point in enumerate(points)]
        for x, estimate in at:
            if estimate.low is not None and estimate.high is not None:
                chart.interval((x, estimate.low), (x, estimate.high), kind)
        drawn = [(x, estimate.value) for x, estimate in at if estimate.value is not None]
        chart.line(drawn, kind)
        chart.marks(drawn, kind)
    chart.key("AUROC", "mean", "both")
    chart.key("kappa at the stored threshold", "vote", "both")
    chart.key("k in use", "", "guide")
    return Html(chart.svg())


def map_chart(
    evaluation: Evaluation, embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[Html, tuple[float, float]]:
    """The evaluated radiographs among those of the index, and the two components' shares of the index's variance.

    embeddings (N, D) and labels (N,) are the index's.
    """
    plane = Plane.fit(embeddings, labels)
    kept = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _MOST_DOTS)).astype(int))
    indexed = plane.project(embeddings[kept])
    asked = np.concatenate([plane.project(reading.embeddings) for reading in evaluation.readings])
    asked_labels = np.concatenate([[reading.label] * len(reading.cases) for reading in evaluation.readings])
    both = np.concatenate([indexed, asked])
    (left, low), (right, high) = both.min(axis=0), both.max(axis=0)
    span = max(float(right - left), float(high - low), 1e-6)
    pad = 0.04 * span
    chart = Chart(
        f"Map of {len(asked):,} evaluated radiographs among {len(kept):,} of the index, by the first two principal "
        "components; normal ones are circles, abnormal ones triangles.",
        Axis(f"component 1 ({plane.shares[0]:.0%})", float(left) - pad, float(right) + pad),
        Axis(f"component 2 ({plane.shares[1]:.0%})", float(low) - pad, float(high) + pad),
        width=540,
        height=90 + 450 * min(1.0, max(0.4, float(high - low) / span)),
        kind="broad",
    )
    for label, kind in ((0, "normal"), (1, "abnormal")):
        chart.marks(indexed[labels[kept] == label].tolist(), kind, size=2.2, faint=True)
    for label, kind in ((0, "normal"), (1, "abnormal")):
        chart.marks(asked[asked_labels == label].tolist(), kind, size=4)
        chart.key(f"{kind}; small and faint: in the index", kind, "mark")
    return Html(chart.svg()), plane.shares


def _by_study(readings: Sequence[StudyPrediction]) -> tuple[NDArray[np.int64], dict[str, Floats]]:
    scores = {
        "classifier": np.array([reading.probability for reading in readings]),
        "knn": np.array([reading.vote_probability for reading in readings]),
        "mean": np.array([reading.mean for reading in readings]),
    }
    return np.array([reading.label for reading in readings], np.int64), scores


def _roc_point(counts: Confusion) -> tuple[float, float]:
    normal = counts.false_positive + counts.true_negative
    abnormal = counts.true_positive + counts.false_negative
    return counts.false_positive / normal, counts.true_positive / abnormal


def _steps(recall: Sequence[float], precision: Sequence[float]) -> list[tuple[float, float]]:
    """Average precision holds each precision over the recall gained, so the curve is stairs."""
    points, reached = [], 0.0
    for right, height in zip(recall, precision, strict=True):
        points += [(reached, height), (right, height)]
        reached = right
    return points


def _row(chart: Chart, estimate: Estimate, y: float, kind: str) -> None:
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        chart.interval((estimate.low, y), (estimate.high, y), kind)
    chart.marks([(estimate.value, y)], kind, size=5)


def _wilson(of: Bin) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share; studies taken as independent."""
    z, n = 1.96, of.items
    middle = (of.share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(of.share * (1 - of.share) / n + z * z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _plain(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.3f}"
