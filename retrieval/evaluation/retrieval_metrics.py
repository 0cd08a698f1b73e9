"""How an index ranks its studies for a query: figures of retrieval, and what chance would reach.

S studies in the index, R of them relevant: those with the query's label. V views of the query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, nan

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.decision.leave_patient_out import StudyMatrix
from retrieval.decision.vote import vote_weights

__all__ = ["DEPTHS", "SWEEP", "Ranking", "Retrieved", "retrieved"]

DEPTHS = (1, 5, 10)
SWEEP = (1, 3, 5, 9, 15, 25, 35, 51, 75, 101)  # numbers of voting studies that a sweep shows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one query found, from 0 to 1, and by the same names in `chance` what a random order would on average.

    "precision_at_K" is the share of the K nearest studies that are relevant; "recall_at_K", as metric learning has it,
    1 where any of them is; "map_at_r" (Musgrave et al. 2020) the mean over the R nearest studies of the precision at
    each relevant one, NaN where the index holds no relevant study.
    """

    figures: Mapping[str, float]
    chance: Mapping[str, float]


def retrieved(relevant: NDArray[np.bool_]) -> Retrieved:
    """Count. relevant (S,), the nearest study first; S of at least 1."""
    S, R = len(relevant), int(relevant.sum())
    nearest = relevant[:R]
    at = np.arange(1, R + 1)
    figures = {"map_at_r": float((nearest * np.cumsum(nearest) / at).sum() / R) if R else nan}
    # At place i stands a relevant study with chance R / S, and before it (i - 1)(R - 1) / (S - 1) others on average.
    expected = R / S * (1 + (at - 1) * (R - 1) / max(1, S - 1)) / at
    chance = {"map_at_r": float(expected.mean()) if R else nan}
    for depth in DEPTHS:
        shown = relevant[:depth]
        figures |= {f"precision_at_{depth}": float(shown.mean()), f"recall_at_{depth}": float(shown.any())}
        missed = comb(S - R, len(shown)) / comb(S, len(shown))
        chance |= {f"precision_at_{depth}": R / S, f"recall_at_{depth}": 1 - missed}
    names = [*(f"{kind}_at_{depth}" for kind in ("precision", "recall") for depth in DEPTHS), "map_at_r"]
    return Retrieved({name: figures[name] for name in names}, {name: chance[name] for name in names})


class Ranking:
    """The studies of an index in full, each as near as its nearest radiograph; the search of queries ends at k.

    cases: N of S studies; embeddings: (N, D) unit rows. A similarity is rounded as the index's search rounds it.
    """

    def __init__(self, cases: Sequence[Case], embeddings: NDArray[np.float32]) -> None:
        self._matrix = StudyMatrix(cases, embeddings.astype(np.float64))
        self.labels = self._matrix.labels  # (S,)

    def similarities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V, S), the studies in the order of their texts, which breaks ties."""
        return self._matrix.similarities(embeddings.astype(np.float64))

    def retrieved(self, similarities: NDArray[np.float32], label: int) -> Retrieved:
        """What a study with these similarities (V, S) finds; a study is as near as to the nearest view."""
        order = np.argsort(-similarities.max(axis=0), kind="stable")
        return retrieved(self.labels[order] == label)

    def sweep(
        self, similarities: NDArray[np.float32], temperature: float, counts: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Each view's vote with k voting studies, by k, for those counts that there are studies for."""
        possible = [k for k in counts if k <= len(self.labels)]
        most = max(possible, default=1)
        votes: dict[int, list[float]] = {k: [] for k in possible}
        for view in similarities:
            near = np.flatnonzero(view >= np.partition(view, -most)[-most])
            near = near[np.argsort(-view[near], kind="stable")][:most]
            for k, of in votes.items():
                shares = vote_weights(view[near[:k]], temperature)
                of.append(min(1.0, float(shares @ self.labels[near[:k]])))
        return {k: tuple(of) for k, of in votes.items()}
