"""The charts of an evaluation's report. Each has its figures as a text for readers who cannot see it."""

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
from retrieval.reports.svg_chart import Axis, Chart
from retrieval.wording import PREDICTORS

__all__ = [
    "forest_chart",
    "map_chart",
    "precision_recall_chart",
    "reliability_chart",
    "roc_chart",
    "sweep_chart",
]

_KINDS = {"classifier": "classifier", "knn": "vote", "mean": "mean"}
_MOST_DOTS = 1_500  # of the index on the map: more would hide each other and make the page large

Floats = NDArray[np.float64]


def roc_chart(evaluation: Evaluation) -> str:
    """ROC curves of the three predictors by study, with the stored thresholds."""
    labels, scores = _by_study(evaluation.predictions)
    chart = Chart(
        f"ROC curves by study. Area under the curve: {_all_values(evaluation, 'auroc')}.",
        Axis("1 - specificity"),
        Axis("sensitivity"),
        width=400,
        height=380,
    )
    chart.guide((0, 0), (1, 1))
    for name in reversed(scores):
        false, true = roc(labels, scores[name])
        chart.line(zip(false.tolist(), true.tolist(), strict=True), _KINDS[name])
    for name, counts in reversed(list(evaluation.confusion["study"].items())):
        false_rate = counts.false_positive / (counts.false_positive + counts.true_negative)
        chart.marks([(false_rate, _recall(counts))], _KINDS[name], size=5.5)
    _key(chart, evaluation, "auroc", "chance, 0.500")
    return chart.svg()


def precision_recall_chart(evaluation: Evaluation) -> str:
    """Precision-recall curves of the three predictors by study, with the stored thresholds."""
    labels, scores = _by_study(evaluation.predictions)
    values, prevalence = _all_values(evaluation, "average_precision"), float(labels.mean())
    chart = Chart(
        f"Precision-recall curves by study. Average precision: {values}; chance {prevalence:.3f}.",
        Axis("recall (sensitivity)"),
        Axis("precision"),
        width=400,
        height=380,
    )
    chart.guide((0, prevalence), (1, prevalence))
    for name in reversed(scores):
        recall, precision = precision_recall(labels, scores[name])
        chart.line(_steps(recall.tolist(), precision.tolist()), _KINDS[name])
    for name, counts in reversed(list(evaluation.confusion["study"].items())):
        if predicted := counts.true_positive + counts.false_positive:
            chart.marks([(_recall(counts), counts.true_positive / predicted)], _KINDS[name], size=5.5)
    _key(chart, evaluation, "average_precision", f"chance, {prevalence:.3f}")
    return chart.svg()


def reliability_chart(evaluation: Evaluation, predictor: str) -> str:
    """The share of abnormal studies by predicted probability; bars show how many studies there are."""
    labels, scores = _by_study(evaluation.predictions)
    bins = reliability(labels, scores[predictor])
    filled = [item for item in bins if item]
    values = "; ".join(f"{item.share:.2f} at {item.probability:.2f} ({item.items})" for item in filled)
    name, kind = PREDICTORS[predictor], _KINDS[predictor]
    chart = Chart(
        f"Calibration of the {name}: share of abnormal studies at their mean probability (studies): {values}.",
        Axis(f"probability by the {name}"),
        Axis("share abnormal"),
        width=400,
        height=360,
    )
    unit = 0.2 / max(item.items for item in filled)
    chart.bars([((i + 0.08) / BINS, (i + 0.92) / BINS, unit * item.items) for i, item in enumerate(bins) if item], kind)
    chart.guide((0, 0), (1, 1))
    for item in filled:
        low, high = _wilson(item)
        chart.interval((item.probability, low), (item.probability, high), kind)
    points = [(item.probability, item.share) for item in filled]
    chart.line(points, kind)
    chart.marks(points, kind, size=5)
    chart.key("observed, 95 % interval", kind, "both")
    chart.key("ideal", "", "guide")
    return chart.svg()


def forest_chart(evaluation: Evaluation) -> str:
    """Kappa by study of the three predictors, by part and overall, with intervals."""
    groups = [(f"all ({evaluation.studies:,})", evaluation.study)]
    if len(evaluation.parts) > 1:
        parts = [(f"{name or 'unnamed'} ({part.studies:,})", part.study) for name, part in evaluation.parts.items()]
        groups = [*parts, *groups]
    low = _lowest(0.0, [figures[name]["kappa"] for _, figures in groups for name in PREDICTORS])
    values = "; ".join(
        f"{group}: " + ", ".join(f"{title} {_value(figures[name]['kappa'])}" for name, title in PREDICTORS.items())
        for group, figures in groups
    )
    last = len(groups) - 1
    chart = Chart(
        f"Cohen's kappa by study, with 95 % intervals. {values}.",
        Axis("Cohen's kappa", low, 1.0),
        Axis("", -0.6, last + 0.6, tuple((last - i, name) for i, (name, _) in enumerate(groups)), grid=False),
        width=540,
        height=70 + 56 * len(groups),
        kind="broad",
    )
    chart.guide((0, -0.6), (0, last + 0.6))
    for row, (_, figures) in enumerate(groups):
        for line, name in enumerate(PREDICTORS):
            estimate, y = figures[name]["kappa"], last - row + 0.24 * (1 - line)
            if estimate.low is not None and estimate.high is not None:
                chart.interval((estimate.low, y), (estimate.high, y), _KINDS[name])
            if estimate.value is not None:
                chart.marks([(estimate.value, y)], _KINDS[name], size=5)
    for name, title in PREDICTORS.items():
        chart.key(title, _KINDS[name], "mark")
    return chart.svg()


def sweep_chart(points: Sequence[SweepPoint]) -> str:
    """The vote's AUROC and kappa by the number of voting studies."""
    values = "; ".join(f"k {point.k}: AUROC {_value(point.auroc)}, kappa {_value(point.kappa)}" for point in points)
    low = _lowest(0.5, [estimate for point in points for estimate in (point.kappa, point.auroc)])
    chart = Chart(
        f"The vote by the number of studies that vote. {values}.",
        Axis("voting studies k", -0.5, len(points) - 0.5, tuple((i, str(p.k)) for i, p in enumerate(points)), False),
        Axis("", low, 1.0),
        width=540,
        height=300,
        kind="broad",
    )
    for number, point in enumerate(points):
        if point.used:
            chart.guide((number, low), (number, 1.0))
    for name, kind, shift in (("auroc", "mean", -0.07), ("kappa", "vote", 0.07)):
        estimates = [(i + shift, getattr(point, name)) for i, point in enumerate(points)]
        for x, estimate in estimates:
            if estimate.low is not None and estimate.high is not None:
                chart.interval((x, estimate.low), (x, estimate.high), kind)
        drawn = [(x, estimate.value) for x, estimate in estimates if estimate.value is not None]
        chart.line(drawn, kind)
        chart.marks(drawn, kind)
    chart.key("AUROC", "mean", "both")
    chart.key("kappa at the stored threshold", "vote", "both")
    chart.key("k in use", "", "guide")
    return chart.svg()


def map_chart(
    evaluation: Evaluation, embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[str, tuple[float, float]]:
    """The evaluated radiographs among those of the index, and the shares of variance of the two components.

    embeddings (N, D) and labels (N,) are the index's.
    """
    plane = Plane.fit(embeddings, labels)
    dots = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _MOST_DOTS)).astype(int))
    indexed = plane.project(embeddings[dots])
    evaluated = np.concatenate([plane.project(prediction.embeddings) for prediction in evaluation.predictions])
    own_labels = np.concatenate([[prediction.label] * len(prediction.cases) for prediction in evaluation.predictions])
    points = np.concatenate([indexed, evaluated])
    (left, low), (right, high) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    span = max(right - left, high - low, 1e-6)
    pad = 0.04 * span
    chart = Chart(
        f"Map of {len(evaluated):,} evaluated radiographs among {len(dots):,} of the index, by the first two principal "
        "components; circles are normal, triangles abnormal.",
        Axis(f"component 1 ({plane.shares[0]:.0%})", left - pad, right + pad),
        Axis(f"component 2 ({plane.shares[1]:.0%})", low - pad, high + pad),
        width=540,
        height=90 + 450 * min(1.0, max(0.4, (high - low) / span)),
        kind="broad",
    )
    for label, kind in ((0, "normal"), (1, "abnormal")):
        chart.marks(indexed[labels[dots] == label].tolist(), kind, size=2.2, faint=True)
    for label, kind in ((0, "normal"), (1, "abnormal")):
        chart.marks(evaluated[own_labels == label].tolist(), kind, size=4)
        chart.key(f"{kind}; small and faint: in the index", kind, "mark")
    return chart.svg(), plane.shares


def _by_study(predictions: Sequence[StudyPrediction]) -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """The labels and each predictor's scores, (N,) each."""
    labels = np.array([prediction.label for prediction in predictions], np.int64)
    fields = {"classifier": "probability", "knn": "vote_probability", "mean": "mean"}
    return labels, {name: np.array([getattr(p, field) for p in predictions]) for name, field in fields.items()}


def _recall(counts: Confusion) -> float:
    return counts.true_positive / (counts.true_positive + counts.false_negative)


def _steps(recall: Sequence[float], precision: Sequence[float]) -> list[tuple[float, float]]:
    """A curve of steps: average precision weights each precision with the gain in recall."""
    points, reached = [], 0.0
    for right, height in zip(recall, precision, strict=True):
        points += [(reached, height), (right, height)]
        reached = right
    return points


def _lowest(least: float, estimates: Sequence[Estimate]) -> float:
    """The lower end of an axis: `least`, or the tenth below the lowest interval."""
    return min([least, *(math.floor(10 * estimate.low) / 10 for estimate in estimates if estimate.low is not None)])


def _wilson(item: Bin) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share. It assumes independent studies."""
    z, n = 1.96, item.items
    middle = (item.share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(item.share * (1 - item.share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _key(chart: Chart, evaluation: Evaluation, metric: str, guide: str) -> None:
    for name, title in PREDICTORS.items():
        chart.key(f"{title}, {_value(evaluation.study[name][metric])}", _KINDS[name], "both")
    chart.key(guide, "", "guide")


def _all_values(evaluation: Evaluation, metric: str) -> str:
    return ", ".join(f"{PREDICTORS[name]} {_value(estimates[metric])}" for name, estimates in evaluation.study.items())


def _value(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.3f}"
