"""How well predictors (classifier, vote) predict labels, with 95 % intervals by bootstrap over patients.

N items (studies or radiographs), R rounds. Label 1 is abnormal. A round draws patients with replacement, each with all
its items (Efron and Tibshirani 1993, ch. 8: resample what is independent). The interval is the 2.5 and 97.5 percentile.
There is no loop over rounds: a round is a column of counts, and each figure is made of sums over columns.

A share that is 0 or 1 is so in every round. Its interval is then the exact one (Clopper and Pearson 1934) for as many
trials as patients count for it. Any other figure that is the same in every round has no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "METRICS",
    "Bootstrap",
    "Confusion",
    "Estimate",
    "Predictor",
    "Resampling",
    "bin_of",
    "bootstrap",
    "bootstrap_ratios",
    "confusion",
    "measure",
]

METRICS = (
    "kappa",
    "accuracy",
    "error",
    "sensitivity",
    "specificity",
    "precision",
    "npv",
    "f1",
    "auroc",
    "average_precision",
    "brier",
    "calibration_error",
)
BINS = 10  # of the calibration error, equally wide
# Bytes of one (N, rounds) array of float32 in a chunk of rounds, so that all arrays of the chunk fit the cache.
_CHUNK_BYTES = 1 << 20
_SAME = 1e-9  # rounding between two figures that are the same
_BOTH, _NOTHING = "needs both labels", "there are no items"
_NO_ABNORMAL, _NO_PROBABILITIES = "no item is abnormal", "there are no items, or the scores are not probabilities"
_REASONS = {
    "kappa": _BOTH,
    "accuracy": _NOTHING,
    "error": _NOTHING,
    "sensitivity": _NO_ABNORMAL,
    "specificity": "no item is normal",
    "precision": "no item is predicted abnormal",
    "npv": "no item is predicted normal",
    "f1": "no item is abnormal or predicted abnormal",
    "auroc": _BOTH,
    "average_precision": _NO_ABNORMAL,
    "brier": _NO_PROBABILITIES,
    "calibration_error": _NO_PROBABILITIES,
}

Floats = NDArray[np.float64]
Weights = NDArray[np.floating]


class Resampling(TypedDict, total=False):
    """How intervals are drawn: how often the patients are resampled (10,000 times), and the seed (0)."""

    rounds: int
    seed: int


@dataclass(frozen=True, slots=True)
class Predictor:
    """A predictor on N items: `scores` (N,), higher is more abnormal, and `predictions` (N,), True for abnormal."""

    scores: Floats
    predictions: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval. A figure or an interval that is undefined is None, and `reason` says why.

    `chance` is what guessing reaches, None where it is not reported.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    chance: float | None = None

    def to_dict(self) -> dict[str, object]:
        numbers: dict[str, object] = {"value": self.value, "low": self.low, "high": self.high}
        numbers |= {} if self.chance is None else {"chance": self.chance}
        return numbers | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many items of each label were predicted abnormal and normal."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The figures of several predictors on the same items and in the same rounds, so that differences are paired.

    `values[predictor][metric]` is the figure, NaN where undefined; `rounds[predictor][metric]` (R,) are the resampled
    figures; `confusions` are the counts behind them, `counted` the numbers of patients behind each share.
    """

    values: Mapping[str, Mapping[str, float]]
    rounds: Mapping[str, Mapping[str, Floats]]
    confusions: Mapping[str, Confusion]
    patients: int
    counted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        return {
            predictor: {
                metric: _estimate(
                    value,
                    self.rounds[predictor][metric],
                    self.patients,
                    _REASONS[metric],
                    self.counted.get(predictor, {}).get(metric, 0),
                )
                for metric, value in values.items()
            }
            for predictor, values in self.values.items()
        }

    def difference(self, predictor: str, reference: str, metric: str) -> Estimate:
        """The metric of `predictor` minus that of `reference`, with a paired interval: the rounds are the same."""
        value = self.values[predictor][metric] - self.values[reference][metric]
        rounds = self.rounds[predictor][metric] - self.rounds[reference][metric]
        return _estimate(value, rounds, self.patients, _REASONS[metric])


def confusion(labels: NDArray[np.int64], predictions: NDArray[np.bool_]) -> Confusion:
    """Count. labels (N,) of 0 and 1, predictions (N,)."""
    return Confusion(*(int(group.sum()) for group in _groups(labels == 1, predictions)))


def bin_of(probabilities: Floats) -> NDArray[np.int64]:
    """The bin of the calibration error, 0 to BINS - 1, of each probability; a bin holds its upper end (N,)."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probabilities, side="left")


def measure(labels: NDArray[np.int64], predictor: Predictor, weights: Weights | None = None) -> dict[str, Floats]:
    """Each of METRICS, once per column of `weights`.

    labels (N,) of 0 and 1; weights (N, R) are how often each item counts (by default once, R = 1). The arrays are (R,),
    NaN where undefined. Kappa is Cohen's (1960), unweighted. AUROC is the chance that an abnormal item scores above a
    normal item; a tie counts half. Average precision is the sum over falling thresholds of precision times gain in
    recall, without interpolation. Brier's score is the mean squared error of the probability. The calibration error
    (Naeini et al. 2015) is the mean over BINS equal bins, weighted by items, of the difference between mean
    probability and share of abnormal items. The last two are undefined for scores outside [0, 1].
    """
    weights = np.ones((len(labels), 1)) if weights is None else weights
    return _Prepared.of(labels == 1, predictor, weights.dtype).figures(weights)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What of a predictor's figures does not depend on the weights, so that a bootstrap computes it once.

    `rows` (4 + 1 + BINS, N): the groups of the confusion, the squared errors, and the errors by bin. `ill` and `well`:
    the abnormal and the normal items by falling score. For each item in `ill`, `higher` counts the normal items with a
    higher score, `normal` those with at least its score, and `last` is the last in `ill` of its score.
    """

    rows: Weights
    ill: NDArray[np.int64]
    well: NDArray[np.int64]
    higher: NDArray[np.int64]
    normal: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, abnormal: NDArray[np.bool_], predictor: Predictor, dtype: "np.dtype[np.floating]") -> "_Prepared":
        """Prepare the predictor for weights of a data type. abnormal (N,)."""
        scores = predictor.scores
        probable = len(scores) > 0 and bool(scores.min() >= 0) and bool(scores.max() <= 1)
        errors = scores - abnormal if probable else np.full(len(scores), np.nan)
        in_bin = bin_of(scores if probable else np.zeros(len(scores))) == np.arange(BINS)[:, None]
        groups = _groups(abnormal, predictor.predictions)
        rows = np.concatenate([groups, errors[None] ** 2, np.where(in_bin, errors, 0)]).astype(dtype)
        order = np.argsort(-scores, kind="stable")
        ill, well = order[abnormal[order]], order[~abnormal[order]]
        return cls(
            rows,
            ill,
            well,
            higher=np.searchsorted(-scores[well], -scores[ill], side="left"),
            normal=np.searchsorted(-scores[well], -scores[ill], side="right"),
            last=np.searchsorted(-scores[ill], -scores[ill], side="right") - 1,
        )

    def figures(self, weights: Weights) -> dict[str, Floats]:
        """Each of METRICS (R,) for weights (N, R)."""
        sums = (self.rows @ weights).astype(np.float64)  # (5 + BINS, R)
        tp, fn, fp, tn = sums[:4]
        positives, negatives = tp + fn, fp + tn
        total = positives + negatives
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN, which is the answer
            accuracy = (tp + tn) / total
            chance = (positives * (tp + fp) + negatives * (fn + tn)) / total**2
            wins, gains = self._ranked(weights)
            return {
                "kappa": np.where(positives * negatives > 0, (accuracy - chance) / (1 - chance), np.nan),
                "accuracy": accuracy,
                "error": (fn + fp) / total,
                "sensitivity": tp / positives,
                "specificity": tn / negatives,
                "precision": tp / (tp + fp),
                "npv": tn / (tn + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "auroc": wins / (positives * negatives),
                "average_precision": gains / positives,
                "brier": sums[4] / total,
                "calibration_error": np.abs(sums[5:]).sum(axis=0) / total,
            }

    def _ranked(self, weights: Weights) -> tuple[Floats, Floats]:
        """What depends on the order of the scores, both (R,): Mann-Whitney's U, the abnormal items' summed precisions.

        An abnormal item wins against all normal weight with a lower score, and against half of that with its own
        score. Its precision is that of the threshold at its own score.
        """
        above = np.zeros((len(self.well) + 1, weights.shape[1]), weights.dtype)  # weight of the i highest normal items
        np.cumsum(weights[self.well], axis=0, out=above[1:])
        weight = weights[self.ill]
        higher = above[self.higher]
        normal = above[self.normal]  # with this score or a higher one
        recalled = np.cumsum(weight, axis=0)[self.last]
        wins = np.einsum("nr,nr->r", weight, above[-1] - (higher + normal) / 2)
        normal += recalled  # all items with this score or a higher one
        precision = np.divide(recalled, np.maximum(normal, np.finfo(normal.dtype).tiny, out=normal), out=recalled)
        return wins.astype(np.float64), np.einsum("nr,nr->r", weight, precision).astype(np.float64)


def bootstrap(
    labels: NDArray[np.int64],
    patients: Sequence[str],
    predictors: Mapping[str, Predictor],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Measure each predictor on all items, and in `rounds` resamplings of the patients.

    labels (N,); patients: N names.
    """
    prepared = {
        name: _Prepared.of(labels == 1, predictor, np.dtype(np.float32)) for name, predictor in predictors.items()
    }
    chunks: list[dict[str, dict[str, Floats]]] = []
    for weights in _resampled(patients, rounds, seed):
        chunks.append({name: ranking.figures(weights) for name, ranking in prepared.items()})
    return Bootstrap(
        values={
            name: {metric: float(value[0]) for metric, value in measure(labels, predictor).items()}
            for name, predictor in predictors.items()
        },
        rounds={
            name: {
                metric: np.concatenate([np.empty(0), *(chunk[name][metric] for chunk in chunks)]) for metric in METRICS
            }
            for name in predictors
        },
        confusions={name: confusion(labels, predictor.predictions) for name, predictor in predictors.items()},
        patients=len(set(patients)),
        counted={
            name: _counted(labels == 1, predictor.predictions, patients) for name, predictor in predictors.items()
        },
    )


def bootstrap_ratios(
    figures: Mapping[str, tuple[Floats, Floats]],
    patients: Sequence[str],
    *,
    chances: Mapping[str, float] | None = None,
    rounds: int = 10_000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Ratios of sums with their intervals over patients. figures: numerators and denominators (N,) of each ratio.

    A mean has denominators of 1, and 0 where an item does not count. `chances` become the estimates' `chance`.
    """
    names = list(figures)
    parts = np.stack([[figures[name][side] for name in names] for side in (0, 1)]).astype(np.float64)  # (2, F, N)
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = parts.sum(axis=2)
        values = above / below
        chunks = [np.divide(*(parts @ weights)) for weights in _resampled(patients, rounds, seed)]
    resampled = np.concatenate([np.empty((len(names), 0)), *chunks], axis=1)
    owners = np.asarray(patients, dtype=str)
    counted = [len(set(owners[side > 0])) for side in parts[1]]
    return {
        name: replace(_estimate(float(value), row, len(set(owners)), _NOTHING, count), chance=(chances or {}).get(name))
        for name, value, row, count in zip(names, values, resampled, counted, strict=True)
    }


def _counted(abnormal: NDArray[np.bool_], predicted: NDArray[np.bool_], patients: Sequence[str]) -> dict[str, int]:
    """The number of patients with an item that counts for each share."""
    owners = np.asarray(patients, dtype=str)
    everyone = np.ones(len(owners), np.bool_)
    shares = {"accuracy": everyone, "error": everyone, "sensitivity": abnormal, "specificity": ~abnormal}
    shares |= {"precision": predicted, "npv": ~predicted}
    return {metric: len(set(owners[items])) for metric, items in shares.items()}


def _groups(abnormal: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Floats:
    """Which items are true positives, false negatives, false positives and true negatives (4, N)."""
    groups = np.stack([abnormal & predicted, abnormal & ~predicted, ~abnormal & predicted, ~abnormal & ~predicted])
    return groups.astype(np.float64)


def _resampled(patients: Sequence[str], rounds: int, seed: int) -> Iterator[Weights]:
    """Chunks (N, rounds of the chunk) of how often each item counts. A round draws as many patients as there are."""
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    P, N = len(names), len(owner)
    if P == 0:
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_BYTES // (4 * N))
    for start in range(0, rounds, at_once):
        R = min(at_once, rounds - start)
        drawn = generator.integers(P, size=(R, P)) + P * np.arange(R)[:, None]  # round by round: chunks change nothing
        counts = np.bincount(drawn.ravel(), minlength=R * P).reshape(R, P).T
        yield np.ascontiguousarray(counts, np.float32)[owner]  # whole numbers, so exact


def _estimate(value: float, rounds: Floats, patients: int, reason: str, counted: int = 0) -> Estimate:
    """An estimate from the rounds; counted: for a share, the number of patients behind it."""
    if not np.isfinite(value):
        return Estimate(None, reason=reason)
    defined = rounds[np.isfinite(rounds)]
    same = len(defined) == 0 or float(np.ptp(defined)) < _SAME
    if counted and value in (0, 1) and (same or patients < 2):
        tail = 0.025 ** (1 / counted)
        low, high = (tail, 1.0) if value else (0.0, 1 - tail)
        return Estimate(
            value, low, high, f"exact interval for {_patients(counted)}: all resamplings give the same figure"
        )
    if patients < 2:
        return Estimate(value, reason="one patient gives no interval")
    if len(defined) == 0:
        return Estimate(value, reason="no interval: the figure is undefined in all resamplings")
    if same:
        return Estimate(value, reason="no interval: all resamplings give the same figure")
    low, high = np.quantile(defined, (0.025, 0.975))
    left = 1 - len(defined) / len(rounds)
    note = f"the interval leaves out {left:.2g} of the resamplings, where the figure is undefined" if left else ""
    return Estimate(value, float(low), float(high), note)


def _patients(count: int) -> str:
    return "1 patient" if count == 1 else f"{count:,} patients"
