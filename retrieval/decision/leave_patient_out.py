"""The nearest studies of an index's own radiographs, without those of the same patient.

N radiographs of S studies; V of them are queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import Case

__all__ = ["Ranked", "StudyMatrix", "ranked_queries", "ranked_studies"]

_CHUNK_BYTES = 32 << 20


class StudyMatrix:
    """Embeddings in groups by study, so that one product of matrices compares radiographs with every study.

    cases: N of S studies; embeddings: (N, D) unit rows. `studies` are the sorted names, `labels` (S,).
    """

    def __init__(self, cases: Sequence[Case], embeddings: NDArray[np.floating]) -> None:
        names, first, self.study_of = np.unique([case.study for case in cases], return_index=True, return_inverse=True)
        self.studies: tuple[str, ...] = tuple(names.tolist())
        self.labels = np.array([cases[row].label for row in first], np.int64)
        self._order = np.argsort(self.study_of, kind="stable")
        self._starts = np.searchsorted(self.study_of[self._order], np.arange(len(first)))
        self._embeddings = embeddings[self._order]

    def similarities(
        self, embeddings: NDArray[np.floating], excluded: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The similarity (V, S) of embeddings (V, D) to each study: that of its nearest radiograph.

        excluded: (V, N), the radiographs that do not count for each row; -inf where none of a study counts.
        """
        products = (embeddings @ self._embeddings.T).astype(np.float32, copy=False)
        if excluded is not None:
            products[excluded[:, self._order]] = -np.inf
        return np.maximum.reduceat(products, self._starts, axis=1)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The K nearest studies of V radiographs: similarities (V, K) descending, -inf where there are fewer.

    `numbers` (V, K) are positions in `studies`, their names, and `labels` (S,). `study_of` (N,) is each case's.
    """

    similarities: NDArray[np.float32]
    numbers: NDArray[np.int64]
    studies: tuple[str, ...]
    labels: NDArray[np.int64]
    study_of: NDArray[np.int64]

    @property
    def neighbour_labels(self) -> NDArray[np.int64]:
        """The labels (V, K) of the nearest studies."""
        return self.labels[self.numbers]

    @property
    def nobody(self) -> bool:
        """Whether a radiograph has no study of another patient: the index holds one patient only."""
        return self.similarities.shape[1] == 0 or not np.isfinite(self.similarities[:, 0]).all()


def ranked_studies(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    k: int,
    owners: Sequence[str] | None = None,
    *,
    asked: NDArray[np.float32] | None = None,
) -> Ranked:
    """Find the k studies of other patients nearest to each of V rows, for all of them at once.

    K = min(k, studies); where a row has fewer, -inf fills it up. The same as the index's search with each row's patient
    excluded, but one product of matrices instead of V searches. `owners` (N) may name other owners than the patients.
    asked: other embeddings (N, D) of the cases, to ask with instead of those that are known.
    """
    _, owner_of = np.unique([case.patient for case in cases] if owners is None else list(owners), return_inverse=True)
    queries = (embeddings if asked is None else asked)[rows]
    return _ranked(cases, embeddings, queries, k, lambda chunk: owner_of[rows[chunk]][:, None] == owner_of)


def ranked_queries(
    cases: Sequence[Case], embeddings: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> Ranked:
    """Find the k studies nearest to each of the embeddings `queries` (V, D), of patients whom no case is of."""
    return _ranked(cases, embeddings, queries, k, lambda chunk: None)


def _ranked(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    excluded: Callable[[slice], NDArray[np.bool_] | None],
) -> Ranked:
    """The same for queries (V, D); `excluded` gives for some of them the cases (., N) that do not count."""
    matrix = StudyMatrix(cases, embeddings)
    K = min(k, len(matrix.studies))
    similarities = np.empty((len(queries), K), np.float32)
    numbers = np.empty((len(queries), K), np.int64)
    at_once = max(1, _CHUNK_BYTES // (4 * max(1, len(cases))))
    for start in range(0, len(queries), at_once):
        chunk = slice(start, start + at_once)
        by_study = matrix.similarities(queries[chunk], excluded(chunk))
        best = np.sort(np.argpartition(-by_study, K - 1, axis=1)[:, :K], axis=1)  # ties go to the first study
        ranks = np.argsort(-np.take_along_axis(by_study, best, axis=1), axis=1, kind="stable")
        numbers[chunk] = np.take_along_axis(best, ranks, axis=1)
        similarities[chunk] = np.take_along_axis(by_study, numbers[chunk], axis=1)
    return Ranked(similarities, numbers, matrix.studies, matrix.labels, matrix.study_of)
