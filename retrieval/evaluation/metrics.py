"""How well readers (a classifier, a vote) call studies, with 95 % intervals by bootstrap over patients.

N items (studies or radiographs), R rounds. Label 1 is abnormal. Patients are drawn with replacement and bring all
their items along (Efron and Tibshirani 1993, ch. 8: resample what is independent); the interval is the 2.5 and 97.5
percentile. Nothing here loops over rounds: a round is a column of multiplicities, every figure is sums over columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "METRICS",
    "Bootstrap",
    "Confusion",
    "Estimate",
    "Reader",
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
    "f1",
    "auroc",
    "average_precision",
    "brier",
    "calibration_error",
)
BINS = 10  # of the calibration error, equally wide
# Bytes that one chunk of rounds may take for one (N, rounds) array of float32: all of them fit a cache.
_CHUNK_BYTES = 1 << 20
_BOTH, _NOTHING = "needs both normal and abnormal ones", "there is nothing to count"
_REASONS = {
    "kappa": _BOTH,
    "accuracy": _NOTHING,
    "error": _NOTHING,
    "sensitivity": "no abnormal one is there",
    "specificity": "no normal one is there",
    "precision": "nothing was called abnormal",
    "f1": "nothing is abnormal or was called so",
    "auroc": _BOTH,
    "average_precision": "no abnormal one is there",
    "brier": "there is nothing to count, or the scores are no probabilities",
    "calibration_error": "there is nothing to count, or the scores are no probabilities",
}

Floats = NDArray[np.float64]
Weights = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Reader:
    """What one reader said of N items: `scores` (N,), higher is more abnormal, and `calls` (N,), True for abnormal."""

    scores: Floats
    calls: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; None where it is undefined, and then `reason` says why.

    `chance` is what guessing would reach, where that is worth saying.
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
    """How many items of either label a reader called abnormal and normal."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The figures of several readers on the same items and in the same rounds, so that they can be compared in pairs.

    `values[reader][metric]` is the figure, NaN where undefined; `rounds[reader][metric]` (R,) the resampled ones;
    `confusions` what the figures are of.
    """

    values: Mapping[str, Mapping[str, float]]
    rounds: Mapping[str, Mapping[str, Floats]]
    confusions: Mapping[str, Confusion]
    patients: int

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        return {
            reader: {
                metric: _estimate(value, self.rounds[reader][metric], self.patients, _REASONS[metric])
                for metric, value in values.items()
            }
            for reader, values in self.values.items()
        }

    def difference(self, reader: str, other: str, metric: str) -> Estimate:
        """Compare two readers: the metric of `reader` minus that of `other`.

        The interval is paired, since both read the same resampled patients.
        """
        value = self.values[reader][metric] - self.values[other][metric]
        rounds = self.rounds[reader][metric] - self.rounds[other][metric]
        return _estimate(value, rounds, self.patients, _REASONS[metric])


def confusion(labels: NDArray[np.int64], calls: NDArray[np.bool_]) -> Confusion:
    """Count. labels (N,) of 0 and 1, calls (N,)."""
    return Confusion(*(int(group.sum()) for group in _groups(labels == 1, calls)))


def bin_of(probabilities: Floats) -> NDArray[np.int64]:
    """The bin of the calibration error, 0 to BINS - 1, of each probability; a bin holds its upper end (N,)."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probabilities, side="left")


def measure(labels: NDArray[np.int64], reader: Reader, weights: Weights | None = None) -> dict[str, Floats]:
    """Compute every one of METRICS, once per column of `weights`.

    labels (N,) of 0 and 1; weights (N, R) says how often each item counts (default: once, R = 1). Gives arrays (R,),
    NaN where undefined. Kappa is Cohen's (1960), unweighted. AUROC is the chance that an abnormal item scores above a
    normal one, a tie counting half. Average precision is the sum over falling thresholds of precision times the
    recall gained, without interpolation. Brier's score is the mean squared error of the probability. The calibration
    error (Naeini et al. 2015) is the mean over BINS equal bins, weighted by items, of the difference between mean
    probability and share of abnormal items; both are undefined for scores outside [0, 1].
    """
    weights = np.ones((len(labels), 1)) if weights is None else weights
    abnormal, scores = labels == 1, reader.scores
    probable = len(scores) > 0 and bool(scores.min() >= 0) and bool(scores.max() <= 1)
    errors = scores - abnormal if probable else np.full(len(scores), np.nan)
    in_bin = bin_of(scores if probable else np.zeros(len(scores))) == np.arange(BINS)[:, None]
    rows = np.concatenate([_groups(abnormal, reader.calls), errors[None] ** 2, np.where(in_bin, errors, 0)])
    sums = (rows.astype(weights.dtype) @ weights).astype(np.float64)  # (5 + BINS, R)
    tp, fn, fp, tn = sums[:4]
    positives, negatives = tp + fn, fp + tn
    total = positives + negatives
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN, which is the answer
        accuracy = (tp + tn) / total
        chance = (positives * (tp + fp) + negatives * (fn + tn)) / total**2
        wins, gains = _ranked(abnormal, scores, weights)
        return {
            "kappa": np.where(positives * negatives > 0, (accuracy - chance) / (1 - chance), np.nan),
            "accuracy": accuracy,
            "error": (fn + fp) / total,
            "sensitivity": tp / positives,
            "specificity": tn / negatives,
            "precision": tp / (tp + fp),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "auroc": wins / (positives * negatives),
            "average_precision": gains / positives,
            "brier": sums[4] / total,
            "calibration_error": np.abs(sums[5:]).sum(axis=0) / total,
        }


def bootstrap(
    labels: NDArray[np.int64],
    patients: Sequence[str],
    readers: Mapping[str, Reader],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Measure every reader, as it is and in `rounds` resamplings of the patients.

    labels (N,); patients: one name per item.
    """
    chunks: list[dict[str, dict[str, Floats]]] = []
    for weights in _resampled(patients, rounds, seed):
        chunks.append({name: measure(labels, reader, weights) for name, reader in readers.items()})
    return Bootstrap(
        values={
            name: {metric: float(value[0]) for metric, value in measure(labels, reader).items()}
            for name, reader in readers.items()
        },
        rounds={
            name: {
                metric: np.concatenate([np.empty(0), *(chunk[name][metric] for chunk in chunks)]) for metric in METRICS
            }
            for name in readers
        },
        confusions={name: confusion(labels, reader.calls) for name, reader in readers.items()},
        patients=len(set(patients)),
    )


def bootstrap_ratios(
    figures: Mapping[str, tuple[Floats, Floats]],
    patients: Sequence[str],
    *,
    chances: Mapping[str, float] | None = None,
    rounds: int = 10_000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Sums of numerators over sums of denominators, each a pair of (N,), with their intervals over patients.

    A mean has denominators of 1, and 0 where an item does not count. `chances` are noted with the figures.
    """
    names = list(figures)
    parts = np.stack([[figures[name][side] for name in names] for side in (0, 1)]).astype(np.float64)  # (2, F, N)
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = parts.sum(axis=2)
        values = above / below
        chunks = [np.divide(*(parts @ weights)) for weights in _resampled(patients, rounds, seed)]
    resampled = np.concatenate([np.empty((len(names), 0)), *chunks], axis=1)
    count = len(set(patients))
    return {
        name: replace(_estimate(float(value), row, count, _NOTHING), chance=(chances or {}).get(name))
        for name, value, row in zip(names, values, resampled, strict=True)
    }


def _groups(abnormal: NDArray[np.bool_], calls: NDArray[np.bool_]) -> Floats:
    """Which items are true positives, false negatives, false positives and true negatives (4, N)."""
    groups = np.stack([abnormal & calls, abnormal & ~calls, ~abnormal & calls, ~abnormal & ~calls])
    return groups.astype(np.float64)


def _ranked(abnormal: NDArray[np.bool_], scores: Floats, weights: Weights) -> tuple[Floats, Floats]:
    """What the order of the scores decides: Mann-Whitney's U, and the precisions of the abnormal items' sum, both (R,).

    From the highest score down, an abnormal item wins against the normal weight below it, and half of that at its own
    score; and it counts with the precision of calling abnormal whatever scores at least as high.
    """
    order = np.argsort(-scores, kind="stable")
    ill, well = order[abnormal[order]], order[~abnormal[order]]
    above = np.zeros((len(well) + 1, weights.shape[1]), weights.dtype)  # above[i]: weight of the i highest normal ones
    np.cumsum(weights[well], axis=0, out=above[1:])
    own = weights[ill]
    higher = above[np.searchsorted(-scores[well], -scores[ill], side="left")]
    normal = above[np.searchsorted(-scores[well], -scores[ill], side="right")]  # scored as high, or higher
    found = np.cumsum(own, axis=0)[np.searchsorted(-scores[ill], -scores[ill], side="right") - 1]
    wins = np.einsum("nr,nr->r", own, above[-1] - (higher + normal) / 2)
    normal += found  # all that scored as high
    precision = np.divide(found, np.maximum(normal, np.finfo(normal.dtype).tiny, out=normal), out=found)
    return wins.astype(np.float64), np.einsum("nr,nr->r", own, precision).astype(np.float64)


def _resampled(patients: Sequence[str], rounds: int, seed: int) -> Iterator[Weights]:
    """Chunks (N, rounds of the chunk) of how often each item counts when as many patients are drawn as there are."""
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    P, N = len(names), len(owner)
    if P == 0:
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_BYTES // (4 * N))
    for start in range(0, rounds, at_once):
        R = min(at_once, rounds - start)
        drawn = generator.integers(P, size=(R, P)) + P * np.arange(R)[:, None]  # by round, so however they are chunked
        counts = np.bincount(drawn.ravel(), minlength=R * P).reshape(R, P).T
        yield np.ascontiguousarray(counts, np.float32)[owner]  # whole numbers, so exact


def _estimate(value: float, rounds: Floats, patients: int, reason: str) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, reason=reason)
    if patients < 2:
        return Estimate(value, reason="one patient gives no interval")
    defined = rounds[np.isfinite(rounds)]
    if len(defined) == 0:
        return Estimate(value, reason="no interval: no resampling was defined")
    low, high = np.quantile(defined, (0.025, 0.975))
    left = len(rounds) - len(defined)
    note = f"the interval leaves out {left} of {len(rounds)} resamplings in which it is undefined" if left else ""
    return Estimate(value, float(low), float(high), note)
