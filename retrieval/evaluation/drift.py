"""Whether scores and plain measures of what is asked differ from those of the index's own studies (drift).

n reference studies, m studies asked about; B = 10 bins between the deciles of the reference; F and G the two cumulative
distributions.

    PSI = sum_b (q_b - p_b) ln(q_b / p_b)                 population stability index; p, q the shares in bin b
    D   = sup_x |F(x) - G(x)|                             two-sample statistic of Kolmogorov and Smirnov
    P   = 2 sum_{j>=1} (-1)^(j-1) exp(-2 j^2 x^2)         chance of such a D or more, if both are of one distribution
    x   = (sqrt(N) + 0.12 + 0.11 / sqrt(N)) D,  N = n m / (n + m)          (Stephens 1970; Press et al. 2007, 14.3.3)

Half a study is added to each bin, so that an empty bin gives no infinite index. The chances of all scores and measures
are corrected by Holm's method (1979). One of them differs where its corrected chance is below 0.01 and its PSI above
0.25, a customary limit: the test guards small samples, the index guards large ones, where each difference is more than
chance. With fewer than 30 studies nothing is said. A study counts once; several studies of one patient count as
several.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.answer import Answer
from retrieval.decision.reference import SCORES, Distribution, Reference, rounded
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.wording import drift_sentence

__all__ = [
    "FEWEST",
    "Comparison",
    "Drift",
    "DriftMonitor",
    "Scored",
    "drift_between",
    "ks_chance",
    "ks_statistic",
    "population_stability_index",
    "scored",
]

Floats = NDArray[np.float64]

FEWEST = 30  # studies asked about; with fewer nothing is said
BINS = 10
_CHANCE, _INDEX = 0.01, 0.25
_WINDOW, _EVERY = 500, 10  # of a monitor: the latest answers that count, and after how many it looks again


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one study; None where there is none. `abnormal` says what classifier and vote call it.

    `measures` has the means of the plain measures over its views.
    """

    classifier: float
    knn: float | None
    similarity: float | None
    abnormal: tuple[bool, bool | None]
    measures: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """A score or a measure by name."""
        value: float | None = getattr(self, name) if name in SCORES else self.measures.get(name)
        return value


def scored(answer: Answer) -> Scored:
    """The scores of an answered study."""
    called = answer.classifier.abnormal, answer.knn.abnormal
    views = [view.measures for view in answer.views if view.measures]
    measures = {name: float(np.mean([view[name] for view in views])) for name in (views[0] if views else ())}
    return Scored(
        answer.classifier.probability, answer.knn.probability, answer.familiarity.similarity, called, measures
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score or measure: its medians, PSI, D, the chance of D after Holm's correction, and whether it differs."""

    score: str
    studies: int
    indexed: int
    median: float
    indexed_median: float
    psi: float
    ks: float
    chance: float
    parted: bool


@dataclass(frozen=True, slots=True)
class Drift(Tabular):
    """The scores of `studies` studies beside those of `indexed` studies of the index; as a table, a score a line.

    `abnormal` and `indexed_abnormal` are the shares that classifier and vote call abnormal. Without enough studies
    (`enough`) no score differs.
    """

    columns: ClassVar = "score studies indexed median indexed_median psi ks chance parted"

    studies: int
    indexed: int
    enough: bool
    comparisons: tuple[Comparison, ...]
    abnormal: Mapping[str, float]
    indexed_abnormal: Mapping[str, float]

    @property
    def parted(self) -> tuple[str, ...]:
        """The names of the scores that differ."""
        return tuple(comparison.score for comparison in self.comparisons if comparison.parted)

    @property
    def sentence(self) -> str:
        """What differs, in words; "" for nothing."""
        return drift_sentence(self)

    @property
    def title(self) -> str:
        return self.sentence or f"The scores of {self.studies:,} studies are like those of the index."

    def rows(self) -> Iterator[Row]:
        for comparison in self.comparisons:
            yield {name: getattr(comparison, name) for name in Comparison.__slots__}

    def to_dict(self) -> dict[str, object]:
        """The JSON object, a part of others."""
        return {**plain(self), "parted": list(self.parted), "sentence": self.sentence}


def drift_between(reference: Reference | None, studies: Sequence[Scored]) -> Drift | None:
    """Compare studies with an index's reference; None where the index has none, or there are no studies."""
    if reference is None or not studies:
        return None
    enough = len(studies) >= FEWEST
    comparisons = []
    for name, distribution in reference.scores.items():
        values = [value for study in studies if (value := study.value(name)) is not None]
        if values:
            comparisons.append(_comparison(name, rounded(np.array(values)), distribution))
    chances = _holm([comparison.chance for comparison in comparisons])
    return Drift(
        studies=len(studies),
        indexed=reference.studies,
        enough=enough,
        comparisons=tuple(
            replace(comparison, chance=chance, parted=enough and chance < _CHANCE and comparison.psi > _INDEX)
            for comparison, chance in zip(comparisons, chances, strict=True)
        ),
        abnormal={
            name: float(np.mean(calls))
            for number, name in enumerate(("classifier", "knn"))
            if (calls := [call for study in studies if (call := study.abnormal[number]) is not None])
        },
        indexed_abnormal=reference.abnormal,
    )


def _comparison(name: str, values: Floats, reference: Distribution) -> Comparison:
    indexed = np.array(reference.values)
    statistic = ks_statistic(indexed, values)
    return Comparison(
        score=name,
        studies=len(values),
        indexed=reference.count,
        median=float(np.median(values)),
        indexed_median=float(np.median(indexed)),
        psi=population_stability_index(indexed, values, reference.count),
        ks=statistic,
        chance=ks_chance(statistic, reference.count, len(values)),
        parted=False,
    )


def population_stability_index(reference: ArrayLike, values: ArrayLike, count: int | None = None) -> float:
    """PSI of values (m,) against a reference (n,), by the module's formula; 0 where both have the same shares.

    count: the number of studies whose quantiles the reference is, if it is not all of them.
    """
    expected, actual = np.asarray(reference, np.float64), np.asarray(values, np.float64)
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (
        (np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1) / len(sample) * n + 0.5)
        for sample, n in ((expected, count or len(expected)), (actual, len(actual)))
    )
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def ks_statistic(one: ArrayLike, other: ArrayLike) -> float:
    """D of two samples.

    >>> ks_statistic([1, 2, 3, 4], [3, 4, 5, 6])
    0.5
    """
    first, second = (np.sort(np.asarray(values, np.float64)) for values in (one, other))
    pooled = np.concatenate((first, second))
    shares = [np.searchsorted(sample, pooled, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_chance(statistic: float, n: int, m: int) -> float:
    """P of D for samples of n and m. It is an approximation, good from about four studies on either side."""
    root = np.sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * statistic
    if x < 0.2:  # where the series converges slowly, and P is 1 to twelve digits
        return 1.0
    j = np.arange(1, 101)
    return float(np.clip(2 * ((-1.0) ** (j - 1) * np.exp(-2 * j**2 * x**2)).sum(), 0, 1))


def _holm(chances: Sequence[float]) -> list[float]:
    """The chances corrected for their number, in the same order: the least times K, the next times K - 1, ..."""
    order = np.argsort(chances, kind="stable")
    corrected, least = [0.0] * len(chances), 0.0
    for rank, number in enumerate(order):
        least = max(least, min(1.0, (len(chances) - rank) * chances[number]))
        corrected[number] = least
    return corrected


class DriftMonitor:
    """Follows the latest 500 answers of a server or a node. Several threads may use it."""

    def __init__(self) -> None:
        self.drift: Drift | None = None
        self._latest: deque[Scored] = deque(maxlen=_WINDOW)
        self._reported: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._count = 0

    def add(self, answer: Answer, reference: Reference | None) -> str:
        """Count an answer; gives a sentence when other scores differ than before, else ""."""
        with self._lock:
            self._latest.append(scored(answer))
            self._count += 1
            if self._count % _EVERY:
                return ""
            self.drift = drift_between(reference, list(self._latest))
            parted = self.drift.parted if self.drift else ()
            before, self._reported = self._reported, parted
            return self.drift.sentence if self.drift and set(parted) - set(before) else ""
