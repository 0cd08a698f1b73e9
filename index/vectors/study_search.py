"""The k most similar studies, the same for every vector store."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from index.vectors.base import VectorStore

__all__ = ["Neighbour", "nearest_studies"]

Neighbour = tuple[float, int]  # the similarity, and the position of the study's nearest case


def nearest_studies(
    store: VectorStore,
    queries: NDArray[np.float32],
    k: int,
    studies: NDArray[np.int64],
    allowed: NDArray[np.bool_] | None = None,
    *,
    excluded: Collection[int] = (),
) -> list[list[Neighbour]]:
    """For each query the min(k, studies allowed) nearest studies, each by its nearest allowed case.

    queries: (Q, D) unit rows. studies: (N,) the number of each case's study. allowed: (N,) True for cases that may be
    found. excluded: a few positions that may not be found. A similarity is the inner product in double precision,
    rounded to float32: the same whatever else is searched for in the same call, and equal for equal vectors. Most
    similar first, ties by position.

    The store's own similarities, which its code paths round differently, only choose candidates. More are asked for
    until no other case can reach the k-th study, or, if the store is not exact, until there are k studies.
    """
    total = len(studies) if allowed is None else int(np.count_nonzero(allowed))
    answers: list[list[Neighbour]] = [[] for _ in queries]
    pending = list(range(len(queries))) if total else []
    count = 3 * k + 8 + len(excluded)  # usually enough: studies have two or three cases
    while pending:
        asked = queries if len(pending) == len(queries) else queries[pending]
        count = min(count, total)
        unsettled = []
        for query, reported, candidates in zip(pending, *store.search(asked, count, allowed), strict=True):
            positions = candidates if store.exact else candidates[candidates >= 0]
            answer = _rank(queries[query], k, positions, store.take(positions), studies[positions], excluded=excluded)
            # No case outside the candidates lies nearer than this.
            limit = reported[-1] + store.slack if store.exact else -np.inf
            if count == total or (len(answer) == k and answer[-1][0] > limit):
                answers[query] = answer
            else:
                unsettled.append(query)
        pending = unsettled
        count *= 4
    return answers


def _rank(
    query: NDArray[np.float32],
    k: int,
    positions: NDArray[np.int64],
    vectors: NDArray[np.float32],
    studies: NDArray[np.int64],
    *,
    excluded: Collection[int],
) -> list[Neighbour]:
    """The k nearest studies among the candidates: their positions (n,), vectors (n, D) and studies (n,)."""
    # Products of float32 are exact in float64; vecdot sums each row alone, where a matrix product would not.
    exact = np.vecdot(vectors.astype(np.float64), query.astype(np.float64)).astype(np.float32)
    chosen: dict[int, Neighbour] = {}
    names, similarities, rows = studies.tolist(), exact.tolist(), positions.tolist()
    for n in np.lexsort((positions, -exact)).tolist():
        if names[n] not in chosen and rows[n] not in excluded:
            chosen[names[n]] = similarities[n], rows[n]
            if len(chosen) == k:
                break
    return list(chosen.values())
