"""What an evaluation, a trial and a comparison of scores say."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.decision.local_classifier import ClassifierTrial
    from retrieval.evaluation.drift import Drift
    from retrieval.evaluation.metrics import Estimate

__all__ = [
    "DRIFT_SHORT",
    "PREDICTORS",
    "drift_sentence",
    "estimate_text",
    "footnotes",
    "metric_title",
    "score_title",
    "trial_sentence",
]

PREDICTORS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}
"""The predictors of an evaluation, and what people call them."""

_METRICS = {
    "f1": "F1",
    "npv": "NPV",
    "auroc": "AUROC",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
    "map_at_r": "mAP at R",
}


def estimate_text(estimate: "Estimate", digits: int = 3, *, sign: bool = False) -> str:
    """An estimate, and its interval with `digits`: "0.659 (0.571 to 0.741)"; the reason where there is no value.

    A star marks an estimate that has a reason, which says what is special about its interval.
    """
    plus = "+" if sign else ""
    if estimate.value is None:
        return f"undefined: {estimate.reason}" if estimate.reason else "undefined"
    value, star = f"{estimate.value:{plus}.{max(3, digits)}f}", "*" if estimate.reason else ""
    if estimate.low is None or estimate.high is None:
        return f"{value}{star}"
    return f"{value} ({estimate.low:{plus}.{digits}f} to {estimate.high:{plus}.{digits}f}){star}"


def footnotes(estimates: "Iterable[Estimate]") -> list[str]:
    """The reasons of marked estimates, each once."""
    reasons = (estimate.reason for estimate in estimates if estimate.value is not None and estimate.reason)
    return [f"* {reason}" for reason in dict.fromkeys(reasons)]


def metric_title(metric: str) -> str:
    """The name of a metric for people: "AUROC", "average precision"."""
    return _METRICS.get(metric, metric.replace("_", " "))


def trial_sentence(trial: "ClassifierTrial | None") -> str:
    """Which classifier is in use after a trial, and why."""
    if trial is None:
        return "The model's classifier stays: a trial of a local one needs 20 normal and 20 abnormal studies."
    gain = f"gain in log loss {trial.gain:+.3f}, {trial.low:+.3f} to {trial.high:+.3f}"
    if trial.classifier is None:
        return f"The model's classifier stays: a local one does not beat it beyond chance ({gain})."
    return f"A local classifier takes the place of the model's: it beats it beyond chance ({gain})."


_SCORES = {"classifier": "classifier", "knn": "vote", "similarity": "similarity"}


def score_title(score: str) -> str:
    """The name of a score for people: "vote"."""
    return _SCORES.get(score, score.replace("_", " "))


DRIFT_SHORT = "The scores of the studies asked about differ from those of the index, so the thresholds may not hold."


def drift_sentence(drift: "Drift") -> str:
    """Which scores differ from those of the index, and what that may mean; "" for none."""
    if not drift.parted:
        return ""
    called = " and ".join(
        f"{drift.abnormal[name]:.0%} are called abnormal by the {score_title(name)}, of the indexed ones "
        f"{drift.indexed_abnormal[name]:.0%}"
        for name in ("classifier", "knn")
        if name in drift.abnormal and name in drift.indexed_abnormal
    ).replace("%", " %")
    parted = ", ".join(
        f"{score_title(comparison.score)} (PSI {comparison.psi:.2f}, KS {comparison.ks:.2f})"
        for comparison in drift.comparisons
        if comparison.parted
    )
    of_studies = f": of {drift.studies:,} studies {called}" if called else f", of {drift.studies:,} studies"
    return (
        f"The scores of these studies differ from those of the index{of_studies}. They differ in: {parted}. "
        "Either the patients differ, or the radiographs are processed differently; then the thresholds do not hold"
    )
