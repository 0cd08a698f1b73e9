"""How well readers (a classifier, a vote) call studies, with 95 % intervals by bootstrap over patients.

N items (studies or radiographs), R rounds. Label 1 is abnormal. Patients are drawn with replacement and bring all
their items along (Efron and Tibshirani 1993, ch. 8: resample what is independent); the interval is the 2.5 and 97.5
percentile. Nothing here loops over rounds: a round is a column of multiplicities, every figure is sums over columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Bootstrap", "Estimate", "Reader", "bootstrap", "bootstrap_mean", "measure"]

METRICS = ("kappa", "accuracy", "sensitivity", "specificity", "auroc")
# Bytes that one chunk of rounds may take for one (N, rounds) array of float64.
_CHUNK_BYTES = 8 << 20
_REASONS = {
    "kappa": "needs both normal and abnormal ones",
    "accuracy": "there is nothing to count",
    "sensitivity": "no abnormal one is there",
    "specificity": "no normal one is there",
    "auroc": "needs both normal and abnormal ones",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reader:
    """What one reader said of N items: `scores` (N,), higher is more abnormal, and `calls` (N,), True for abnormal."""

    scores: Floats
    calls: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; None where it is undefined, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        numbers: dict[str, object] = {"value": self.value, "low": self.low, "high": self.high}
        return numbers | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The figures of several readers on the same items and in the same rounds, so that they can be compared in pairs.

    `values[reader][metric]` is the figure, NaN where undefined; `rounds[reader][metric]` (R,) the resampled ones.
    """

    values: Mapping[str, Mapping[str, float]]
    rounds: Mapping[str, Mapping[str, Floats]]
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


def measure(labels: NDArray[np.int64], reader: Reader, weights: Floats | None = None) -> dict[str, Floats]:
    """Compute every one of METRICS, once per column of `weights`.

    labels (N,) of 0 and 1; weights (N, R) says how often each item counts (default: once, R = 1). Gives arrays (R,),
    NaN where undefined: sensitivity without an abnormal item, specificity without a normal one, kappa and AUROC without
    both. Kappa is Cohen's (1960), unweighted. AUROC is the chance that an abnormal item scores above a normal one, a
    tie counting half.
    """
    weights = np.ones((len(labels), 1)) if weights is None else weights
    abnormal, called = labels == 1, reader.calls
    groups = np.stack([abnormal & called, abnormal & ~called, ~abnormal & called, ~abnormal & ~called])
    tp, fn, fp, tn = groups.astype(np.float64) @ weights  # (R,) each
    positives, negatives = tp + fn, fp + tn
    total = positives + negatives
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN, which is the answer
        accuracy = (tp + tn) / total
        chance = (positives * (tp + fp) + negatives * (fn + tn)) / total**2
        kappa = np.where(positives * negatives > 0, (accuracy - chance) / (1 - chance), np.nan)
        auroc = _wins(abnormal, reader.scores, weights) / (positives * negatives)
        sensitivity, specificity = tp / positives, tn / negatives
    return dict(zip(METRICS, (kappa, accuracy, sensitivity, specificity, auroc), strict=True))


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
        patients=len(set(patients)),
    )


def bootstrap_mean(values: Floats, patients: Sequence[str], *, rounds: int = 10_000, seed: int = 0) -> Estimate:
    """Average one number per item, with its interval over patients. values (N,)."""
    resampled = [values @ weights / weights.sum(axis=0) for weights in _resampled(patients, rounds, seed)]
    value = float(values.mean()) if len(values) else float("nan")
    return _estimate(value, np.concatenate([np.empty(0), *resampled]), len(set(patients)), _REASONS["accuracy"])


def _wins(abnormal: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Weighted pairs (abnormal, normal) in which the abnormal one scores higher, ties half: Mann-Whitney's U, (R,).

    Over items sorted by score, an abnormal item wins against the normal weight below it, and half of that at its own
    score: both are differences of one running sum of normal weight.
    """
    order = np.argsort(scores, kind="stable")
    ranked, abnormal = scores[order], abnormal[order]
    weights = weights[order]
    below = np.zeros((len(scores) + 1, weights.shape[1]))  # below[i]: normal weight of the first i items
    np.cumsum(weights * ~abnormal[:, None], axis=0, out=below[1:])
    first = np.searchsorted(ranked, ranked[abnormal], side="left")
    last = np.searchsorted(ranked, ranked[abnormal], side="right")
    wins: Floats = np.einsum("nr,nr->r", weights[abnormal], below[first] + below[last]) / 2
    return wins


def _resampled(patients: Sequence[str], rounds: int, seed: int) -> Iterator[Floats]:
    """Chunks (N, rounds of the chunk) of how often each item counts when as many patients are drawn as there are."""
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    P, N = len(names), len(owner)
    if P == 0:
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_BYTES // (8 * N))
    for start in range(0, rounds, at_once):
        R = min(at_once, rounds - start)
        drawn = generator.integers(P, size=(P, R)) * R + np.arange(R)
        yield np.bincount(drawn.ravel(), minlength=P * R).reshape(P, R).astype(np.float64)[owner]


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
    note = f"the interval leaves out {left} of {len(rounds)} resamplings that lacked a label" if left else ""
    return Estimate(value, float(low), float(high), note)
