"""The k nearest studies, from a server that filters cases and gives the nearest page by page."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import Where
from index.milvus.filters import expressions, one_of
from index.vectors.base import by_exclusion
from index.vectors.study_search import Neighbour

__all__ = ["TOP", "Ask", "Hit", "Page", "page_studies"]

TOP = 16_384  # cases that Milvus gives at most for one query
_VECTORS = 4_096  # vectors in one answer, well below a server's limits
Hit = tuple[int, str, Sequence[float]]  # row, study, vector


@dataclass(frozen=True, slots=True)
class Page:
    """Cases, nearest first, and the similarity of the last one as the server reports it."""

    hits: Sequence[Hit]
    last: float


# queries (Q, D), count, expression -> for each query a page of the `count` nearest cases that match, or all that do.
Ask = Callable[[NDArray[np.float32], int, str], Sequence[Page]]


def page_studies(
    ask: Ask,
    queries: NDArray[np.float32],
    k: int,
    where: Where | None,
    exclude_patients: Sequence[Collection[str]] | None,
    *,
    slack: float,
    top: int = TOP,
    groups: Ask | None = None,
) -> list[list[Neighbour]]:
    """For each query the min(k, studies that match) nearest studies, each by its nearest case: similarity and row.

    A similarity is the inner product in double precision, rounded to float32. The server's similarities, which may err
    by `slack`, only choose candidates. Most similar first; ties, within a study too, by row. If more than `top` cases
    lie within `slack` of each other, the lowest row among `top` of them wins.

    groups: asks a server that itself gives one case a study, for a search that may miss studies anyhow. If it gives k
    studies, they are the answer, with the server's choice among a study's cases. If it gives fewer, `ask` is asked.
    """
    answers: list[list[Neighbour]] = [[] for _ in queries]
    count = min(4 * k + 16, top)  # enough for most: studies have two or three cases
    for patients, members in by_exclusion(exclude_patients, len(queries)).items():
        filters = expressions(where, patients)
        if groups:
            for query, answer in zip(members, _grouped(groups, queries[members], k, filters), strict=True):
                answers[query] = answer
        pending = [query for query in members if len(answers[query]) < k]
        size = max(1, _VECTORS // count)
        for batch in (pending[start : start + size] for start in range(0, len(pending), size)):
            pages = [ask(queries[batch], count, chosen) for chosen in filters]
            for n, query in enumerate(batch):
                first = [page[n] for page in pages]
                answers[query] = _settle(
                    ask, queries[query], k, filters, pages=first, count=count, slack=slack, top=top
                )
    return answers


def _grouped(groups: Ask, queries: NDArray[np.float32], k: int, filters: Sequence[str]) -> list[list[Neighbour]]:
    """For each query the nearest studies that the server's grouping gives, at most k."""
    size = max(1, _VECTORS // k)
    answers = []
    for start in range(0, len(queries), size):
        batch = queries[start : start + size]
        pages = [groups(batch, min(k, TOP), chosen) for chosen in filters]
        for n, query in enumerate(batch):
            nearest = _nearest_cases(query, [hit for page in pages for hit in page[n].hits])
            answers.append(_first(nearest, k))
    return answers


def _first(nearest: Mapping[str, Neighbour], k: int) -> list[Neighbour]:
    """The k most similar of the studies, ties by row."""
    return sorted(nearest.values(), key=lambda hit: (-hit[0], hit[1]))[:k]


def _settle(
    ask: Ask,
    query: NDArray[np.float32],
    k: int,
    filters: Sequence[str],
    *,
    pages: Sequence[Page],
    count: int,
    slack: float,
    top: int,
) -> list[Neighbour]:
    """Ask for more, from the first pages of `count` on, until no other case can reach the k-th study.

    The next pages exclude the studies whose nearest case is known: a study with very many cases would fill page after
    page.
    """
    settled: dict[str, Neighbour] = {}
    while True:
        # No case outside the pages, and of no settled study, lies nearer than this.
        reach = max((float(np.float32(page.last + slack)) for page in pages if len(page.hits) >= count), default=None)
        nearest = _nearest_cases(query, [hit for page in pages for hit in page.hits])
        answer = _first(settled | nearest, k)
        if reach is None or (len(answer) == k and (answer[-1][0] > reach or count == top)):
            return answer
        settled |= {study: hit for study, hit in nearest.items() if hit[0] > reach or count == top}
        count = min(4 * count, top)
        rest = one_of("study", sorted(settled), negated=True) if settled else ""
        narrowed = [" and ".join(filter(None, (chosen, rest))) for chosen in filters]
        pages = [ask(query[None], count, chosen)[0] for chosen in narrowed]


def _nearest_cases(query: NDArray[np.float32], hits: Sequence[Hit]) -> dict[str, Neighbour]:
    """Each study's nearest case, exactly; see `index.vectors.study_search` for why and how."""
    if not hits:
        return {}
    vectors = np.array([vector for _, _, vector in hits], dtype=np.float64)
    exact = np.einsum("nd,d->n", vectors, query.astype(np.float64)).astype(np.float32).tolist()
    nearest: dict[str, Neighbour] = {}
    for similarity, (row, study, _) in sorted(zip(exact, hits, strict=True), key=lambda pair: (-pair[0], pair[1][0])):
        nearest.setdefault(study, (similarity, row))
    return nearest
