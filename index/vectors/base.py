"""The protocol of a vector store, and the demands on an approximate search."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Demand", "VectorStore", "by_exclusion", "require_one_each", "require_unit_rows"]


class VectorStore(Protocol):
    """N unit vectors of D numbers by position, 0 to N-1, in the row order of cases.sqlite."""

    @property
    def exact(self) -> bool:
        """Whether `search` misses nothing, up to `slack`."""

    @property
    def slack(self) -> float:
        """The largest error of a similarity that an exact `search` reports."""

    def search(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The `count` vectors with the largest inner products, or about those if the store is not `exact`.

        queries: (Q, D) unit rows. count: 1 to the number of allowed vectors. allowed: (N,) True where a vector may be
        found, None for all. Gives similarities and positions, both (Q, count), most similar first, ties in any order;
        position -1 if an approximation found fewer. Every store finds all allowed vectors if `count` is their number.
        """

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors at `positions`, (n, D), exactly as they were stored."""

    def describe(self) -> dict[str, object]:
        """For `index info`: "kind", "dimension", "vectors", "exact", and how an approximation was measured."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a search has to reach. Exact search is used if it does; else the first approximation that does.

    recall: the share of the ten most similar vectors that are found, 0 to 1. latency: milliseconds a query, on the
    machine that builds the index. memory: bytes that the search structure may take, None for any.
    """

    recall: float = 0.99
    latency: float = 3.0
    memory: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.recall <= 1 and self.latency > 0 and (self.memory is None or self.memory > 0)):
            raise ValueError("recall is a share above 0 and up to 1, latency and memory are above 0")


def require_unit_rows(vectors: NDArray[np.float32], dimension: int) -> None:
    """Raise ValueError unless `vectors` is (n, dimension) with every row of length 1, within 0.001."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"embeddings are (n, {dimension}), not {vectors.shape}")
    if not all(abs(square - 1) <= 2e-3 for square in np.vecdot(vectors, vectors).tolist()):  # NaN fails, too
        raise ValueError("every embedding must be of length 1")


def require_one_each(
    cases: Sequence[object],
    embeddings: NDArray[np.float32],
    thumbnails: Sequence[bytes],
    logits: NDArray[np.float32],
    dimension: int,
) -> None:
    """Raise ValueError unless n cases come with n thumbnails, unit embeddings (n, dimension) and finite logits (n,)."""
    require_unit_rows(embeddings, dimension)
    if not len(cases) == len(embeddings) == len(thumbnails) == len(logits):
        raise ValueError("every case has one embedding, one thumbnail and one logit")
    if not np.all(np.isfinite(logits)):
        raise ValueError("every logit must be finite")


def by_exclusion(patients: Sequence[Collection[str]] | None, count: int) -> dict[frozenset[str], list[int]]:
    """The queries, 0 to count-1, by the set of patients that they must not find; the views of a study share a set."""
    if patients is None:
        return {frozenset(): list(range(count))}
    if len(patients) != count or any(isinstance(excluded, str) for excluded in patients):
        raise ValueError(f"{count} queries need {count} collections of patients to exclude, one each")
    queries: dict[frozenset[str], list[int]] = {}
    for query, excluded in enumerate(patients):
        queries.setdefault(frozenset(excluded), []).append(query)
    return queries
