"""One generation of an index in memory, ready to be searched."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case, Where
from index.errors import IndexDamaged
from index.sqlite.reader import CaseReader
from index.vectors.base import VectorStore, by_exclusion
from index.vectors.study_search import Neighbour, nearest_studies
from index.vectors.vector_file import VectorFile

__all__ = ["Generation"]

MASKS = 32  # filters whose mask is kept
FEW = 64  # excluded cases: up to here asking for as many more is faster than a mask over all

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Generation:
    """N cases by position, 0 to N-1 in row order. Some may have been removed since vectors.faiss was written.

    number: of the generation. rows, studies: (N,), as in a `VectorFile`. alive: (N,) False for removed cases; None if
    none was removed. behind: the number of cases added or removed since. shown: the cases read so far, by row.
    """

    number: int
    rows: NDArray[np.int64]
    studies: NDArray[np.int64]
    store: VectorStore
    alive: Mask | None
    behind: int
    shown: dict[int, Case] = field(default_factory=dict)
    _masks: dict[tuple[str, frozenset[str]], Mask] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, database: CaseReader) -> "Generation":
        """The generation of cases.sqlite, in a transaction.

        Where the vectors.faiss at `path` is missing or of another index, the search is exact over the vectors of
        cases.sqlite. The next writer writes the file. Raises IndexDamaged if there is not one embedding for each case.
        """
        from index.vectors.faiss import FaissStore  # late: it takes longer to import than all the rest

        metadata = database.metadata()
        snapshot = VectorFile.read(path, bytes.fromhex(metadata["identity"]))
        base = snapshot or VectorFile.exact(*database.vectors(metadata["dimension"]))
        store: VectorStore = FaissStore(base.vectors, base.approximation, base.measured)
        rows, studies, behind = base.rows, base.studies, 0
        added, their_studies, vectors = database.vectors(metadata["dimension"], base.last)
        if len(added):
            # A study with cases in the file keeps its number of the file.
            positions = np.searchsorted(rows, their_studies)
            there = their_studies <= base.last
            their_studies[there] = studies[positions[there]]
            rows, studies = np.concatenate((rows, added)), np.concatenate((studies, their_studies))
            store, behind = _Grown(store, len(base.rows), vectors), len(added)
        removed = _positions_of(rows, database.removed())
        alive = None
        if len(removed):
            alive = np.ones(len(rows), dtype=np.bool_)
            alive[removed] = False
            behind += len(removed)
        if len(rows) - len(removed) != database.count():
            raise IndexDamaged(
                f"{database.path} is damaged: it does not have one embedding for each case; "
                "build the index again, or restore it from a copy"
            )
        return cls(database.generation(), rows, studies, store, alive, behind)

    def count(self) -> int:
        """The number of cases."""
        return len(self.rows) if self.alive is None else int(np.count_nonzero(self.alive))

    def count_studies(self) -> int:
        met = np.zeros(int(self.studies.max(initial=0)) + 1, dtype=np.bool_)
        met[self.studies if self.alive is None else self.studies[self.alive]] = True
        return int(np.count_nonzero(met))

    def embeddings(self) -> NDArray[np.float32]:
        """(n, D) of the cases that were not removed, in row order."""
        return self.store.take(np.arange(len(self.rows)) if self.alive is None else np.flatnonzero(self.alive))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Where,
        exclude_patients: Sequence[Collection[str]] | None,
        database: CaseReader,
    ) -> tuple[list[list[Neighbour]], int | None]:
        """The k nearest studies of each query: the similarity and the row of each study's nearest matching case.

        queries: (Q, D) unit rows. exclude_patients: for each query the patients that it must not find. Most similar
        first, ties by row. Gives also the database's generation at its last answer; None if it was not asked.
        """
        answers: list[list[Neighbour]] = [[] for _ in queries]
        generation = None
        matching = self._matching(where, database)
        for patients, members in by_exclusion(exclude_patients, len(queries)).items():
            allowed, excluded = matching, np.empty(0, np.int64)
            if patients:
                generation, rows = database.rows_of(patients)
                excluded = self.rows.searchsorted(rows)  # N for one of a later generation
            if len(excluded) > FEW:
                allowed = np.ones(len(self.rows), dtype=np.bool_) if matching is None else matching.copy()
                allowed[excluded[excluded < len(self.rows)]], excluded = False, excluded[:0]
            asked = queries if len(members) == len(queries) else queries[members]
            nearest = nearest_studies(self.store, asked, k, self.studies, allowed, excluded=excluded.tolist())
            for query, answer in zip(members, nearest, strict=True):
                answers[query] = [(similarity, self.rows.item(position)) for similarity, position in answer]
        return answers, generation

    def _matching(self, where: Where, database: CaseReader) -> Mask | None:
        """(N,) True for cases that were not removed and match every field; None if all do."""
        mask = self.alive
        for name, values in where.items():
            of_field = self._mask(name, values, database)
            mask = of_field if mask is None else mask & of_field
        return mask

    def _mask(self, name: str, values: Collection[str], database: CaseReader) -> Mask:
        key = name, frozenset(values)
        if key not in self._masks:
            mask = np.zeros(len(self.rows), dtype=np.bool_)
            mask[self._positions(database.rows_where(name, key[1]))] = True
            while len(self._masks) >= MASKS:
                self._masks.pop(next(iter(self._masks)), None)
            self._masks[key] = mask
            return mask
        return self._masks[key]

    def _positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of rows, without those of a later generation."""
        rows = rows[rows <= self.rows[-1]] if len(self.rows) else rows[:0]
        if len(self.rows) and self.rows[-1] - self.rows[0] + 1 == len(self.rows):
            return np.asarray(rows - self.rows[0])  # no row is missing between the first and the last
        return np.asarray(np.searchsorted(self.rows, rows))


def _positions_of(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions of those wanted rows that are among the rows (N,), which are sorted, in logarithmic time each."""
    positions = rows.searchsorted(wanted)
    known = positions < len(rows)
    positions = positions[known]
    return np.asarray(positions[rows[positions] == wanted[known]])


class _Grown:
    """A `VectorStore`: another store and the vectors added since."""

    def __init__(self, base: VectorStore, size: int, added: NDArray[np.float32]) -> None:
        self._base, self._size, self._added = base, size, added

    @property
    def exact(self) -> bool:
        return self._base.exact

    @property
    def slack(self) -> float:
        return self._base.slack

    def search(
        self, queries: NDArray[np.float32], count: int, allowed: Mask | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        old, new = (None, None) if allowed is None else (allowed[: self._size], allowed[self._size :])
        similarities = queries @ self._added.T
        if new is not None:
            similarities[:, ~new] = -np.inf
        positions = np.broadcast_to(np.arange(self._size, self._size + len(self._added)), similarities.shape)
        there = min(count, self._size if old is None else int(np.count_nonzero(old)))
        if there:
            of_base, old_positions = self._base.search(queries, there, old)
            similarities, positions = np.hstack((of_base, similarities)), np.hstack((old_positions, positions))
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(positions, order, axis=1)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = np.empty((len(positions), self._added.shape[1]), dtype=np.float32)
        old = positions < self._size
        vectors[old] = self._base.take(positions[old])
        vectors[~old] = self._added[positions[~old] - self._size]
        return vectors

    def describe(self) -> dict[str, object]:
        return self._base.describe() | {"added_since": len(self._added)}
