"""How well an index ranks its studies for a query: metrics of retrieval, and what chance reaches.

S studies in the index; R of them are relevant: they have the query's label. V views of the query.
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
SWEEP = (1, 3, 5, 9, 15, 25, 35, 51, 75, 101)  # numbers of voting studies

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The metrics of one query, from 0 to 1, and under the same names in `chance` the mean over random orders.

    "precision_at_K" is the share of relevant studies among the K nearest. "recall_at_K", as in metric learning, is 1
    where any of them is relevant. "map_at_r" (Musgrave et al. 2020) sums the precision at each relevant study among
    the R nearest, and divides by R; it is NaN where the index holds no relevant study.
    """

    figures: Mapping[str, float]
    chance: Mapping[str, float]


def retrieved(relevant: NDArray[np.bool_]) -> Retrieved:
    """The metrics of a ranking. relevant (S,), the nearest study first; S is at least 1."""
    S, R = len(relevant), int(relevant.sum())
    nearest = relevant[:R]
    ranks = np.arange(1, R + 1)
    figures = {"map_at_r": float((nearest * np.cumsum(nearest) / ranks).sum() / R) if R else nan}
    # Rank i has a relevant study with chance R / S; on average (i - 1)(R - 1) / (S - 1) relevant studies come before.
    expected = R / S * (1 + (ranks - 1) * (R - 1) / max(1, S - 1)) / ranks
    chance = {"map_at_r": float(expected.mean()) if R else nan}
    for depth in DEPTHS:
        shown = relevant[:depth]
        figures |= {f"precision_at_{depth}": float(shown.mean()), f"recall_at_{depth}": float(shown.any())}
        missed = comb(S - R, len(shown)) / comb(S, len(shown))
        chance |= {f"precision_at_{depth}": R / S, f"recall_at_{depth}": 1 - missed}
    names = [*(f"{kind}_at_{depth}" for kind in ("precision", "recall") for depth in DEPTHS), "map_at_r"]
    return Retrieved({name: figures[name] for name in names}, {name: chance[name] for name in names})


class Ranking:
    """All studies of an index, ranked by their nearest radiograph; a search of the index ends at k.

    cases: N cases of S studies; embeddings: (N, D) unit rows. Similarities are float32, as in the index's search.
    """

    def __init__(self, cases: Sequence[Case], embeddings: NDArray[np.float32]) -> None:
        self._matrix = StudyMatrix(cases, embeddings.astype(np.float64))
        self.labels = self._matrix.labels  # (S,)

    def similarities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Similarities (V, S). The studies are sorted by name, which breaks ties."""
        return self._matrix.similarities(embeddings.astype(np.float64))

    def retrieved(self, similarities: NDArray[np.float32], label: int) -> Retrieved:
        """The metrics of a query with these similarities (V, S) and this label; the nearest view ranks a study."""
        order = np.argsort(-similarities.max(axis=0), kind="stable")
        return retrieved(self.labels[order] == label)

    def sweep(
        self, similarities: NDArray[np.float32], temperature: float, counts: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Each view's vote, in [0, 1], with k voting studies, by k; a count above the number of studies is left out."""
        possible = [k for k in counts if k <= len(self.labels)]
        most = max(possible, default=1)
        votes: dict[int, list[float]] = {k: [] for k in possible}
        for view in similarities:
            near = np.flatnonzero(view >= np.partition(view, -most)[-most])
            near = near[np.argsort(-view[near], kind="stable")][:most]
            for k, probabilities in votes.items():
                weights = vote_weights(view[near[:k]], temperature)
                probabilities.append(min(1.0, float(weights @ self.labels[near[:k]])))
        return {k: tuple(probabilities) for k, probabilities in votes.items()}
