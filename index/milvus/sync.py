"""An index whose vectors are in Milvus: its generation for a reader, and how a writer updates the collection.

cases.sqlite stays the truth. A changed row is `pending` until Milvus has flushed it. The transaction that changes the
row marks it so. Readers exclude pending rows from the search in Milvus and search them themselves. So a process or a
server that dies in between loses nothing.
"""

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import Case, Where
from index.errors import IndexDamaged, IndexFailure
from index.milvus.store import MilvusSettings, MilvusStore
from index.sqlite.reader import CaseReader
from index.sqlite.writer import CaseWriter
from index.vectors.study_search import Neighbour

__all__ = [
    "TOKEN",
    "RemoteGeneration",
    "bring_up_to_date",
    "differences",
    "fill",
    "forget",
    "open_remote",
    "require_same",
]

TOKEN = "MURA_SEARCH_MILVUS_TOKEN"  # the environment variable; a token is never stored
AT_ONCE = 4_096  # rows in a request
EXACT = 100_000  # cases: up to here a collection is searched exactly
_GRAPH = {"index_type": "HNSW", "params": {"M": 32, "efConstruction": 200}}


@dataclass(frozen=True, slots=True)
class RemoteGeneration:
    """A generation of an index, like `Generation`. `pending`: the rows that are not up to date in Milvus."""

    number: int
    store: MilvusStore
    database: CaseReader
    dimension: int
    pending: list[int]
    shown: dict[int, Case] = field(default_factory=dict)

    @classmethod
    def read(cls, database: CaseReader, store: MilvusStore) -> "RemoteGeneration":
        """The generation of cases.sqlite, in a transaction. From here on Milvus finds every row that is not pending."""
        store.wait()
        dimension = int(database.metadata()["dimension"])
        return cls(database.generation(), store, database, dimension, database.pending())

    def count(self) -> int:
        return self.database.count()

    def count_studies(self) -> int:
        return self.database.distinct("study")

    def embeddings(self) -> NDArray[np.float32]:
        return self.database.vectors(self.dimension)[2]

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Where,
        exclude_patients: Sequence[Collection[str]] | None,
        database: CaseReader,
    ) -> tuple[list[list[Neighbour]], None]:
        """As `Generation.search`; Milvus filters and excludes."""
        hits_of_queries = self.store.search(queries, k, where, exclude_patients, without=self.pending)
        if not self.pending:
            return hits_of_queries, None
        rows, vectors = self.database.vectors_of(self.pending, self.dimension)
        if not len(rows):
            return hits_of_queries, None
        fits = np.ones(len(rows), dtype=np.bool_)
        for name, values in where.items():
            fits &= np.isin(rows, database.rows_where(name, values))
        # Products of float32 are exact in float64, and each row is summed alone, as in `index.vectors.study_search`.
        exact = np.einsum("nd,qd->qn", vectors.astype(np.float64), queries.astype(np.float64)).astype(np.float32)
        answers = []
        for query, (hits, similarities) in enumerate(zip(hits_of_queries, exact, strict=True)):
            excluded_rows = database.rows_where("patient", exclude_patients[query]) if exclude_patients else rows[:0]
            mine = fits & ~np.isin(rows, excluded_rows)
            pairs = zip(similarities[mine].tolist(), rows[mine].tolist(), strict=True)
            answers.append(self._nearest([*hits, *pairs], k))
        return answers, None

    def _nearest(self, hits: Sequence[Neighbour], k: int) -> list[Neighbour]:
        """The k nearest studies among the hits."""
        _, cases = self.database.records([row for _, row in hits])
        studies: dict[str, Neighbour] = {}
        for similarity, row in sorted(hits, key=lambda hit: (-hit[0], hit[1])):
            if row in cases:  # a removed row is left out: the search begins again
                studies.setdefault(cases[row].study, (similarity, row))
        return list(studies.values())[:k]


def open_remote(metadata: Mapping[str, Any], *, create: bool = False, cases: int = 0) -> MilvusStore:
    """Open the collection named in an index's metadata, with the token of the environment.

    create: make it if there is none, for so many cases. Raises the errors of `MilvusStore.open`.
    """
    values = {name: value for name, value in metadata["values"]["store"].items() if name != "kind"}
    values["collection"] = f"mura_{metadata['identity'][:16]}"  # each index has its own
    settings = MilvusSettings(**values, token=os.environ.get(TOKEN, ""), consistency="Session")
    graph = _GRAPH if cases > EXACT and not settings.local else None
    return MilvusStore.open(settings, int(metadata["dimension"]), create=create, index_params=graph)


def bring_up_to_date(database: CaseWriter, store: MilvusStore) -> None:
    """Write the pending rows to Milvus; they are settled when it has flushed them."""
    with database.transaction():
        pending = database.pending()
        dimension = int(database.metadata()["dimension"])
    for start in range(0, len(pending), AT_ONCE):
        batch = pending[start : start + AT_ONCE]
        with database.transaction():
            rows, vectors = database.vectors_of(batch, dimension)
            _, cases = database.records(rows.tolist())
        store.upsert(rows.tolist(), [cases[row] for row in rows.tolist()], vectors)
        store.delete(sorted(set(batch) - set(rows.tolist())))
    if pending:
        store.flush()
        with database.transaction(writing=True):
            database.settle(pending)


def fill(database: CaseWriter) -> None:
    """Write a new index to Milvus; goes on where an interrupted call was."""
    with database.transaction():
        metadata, count = database.metadata(), database.count()
    with open_remote(metadata, create=True, cases=count) as store:
        with database.transaction(writing=True):
            database.unsettle(differences(database, store) if store.count() else None)
        bring_up_to_date(database, store)


def forget(metadata: Mapping[str, Any]) -> None:
    """Drop the collection of an index that was replaced; it stays if Milvus refuses."""
    with contextlib.suppress(IndexFailure), open_remote(metadata) as store:
        store.drop()


def differences(database: CaseReader, store: MilvusStore) -> list[int]:
    """The rows that Milvus lacks, has too many, or has with another vector; in a transaction.

    Pending rows are not among them.
    """
    dimension = int(database.metadata()["dimension"])
    pending = database.pending()
    rows, _, truth = database.vectors(dimension)
    held = store.rows()
    wrong = np.setxor1d(rows, held, assume_unique=True)
    common = np.flatnonzero(np.isin(rows, held, assume_unique=True))
    for start in range(0, len(common), AT_ONCE):
        batch = common[start : start + AT_ONCE]
        same = (store.vectors(rows[batch].tolist()).view(np.int32) == truth[batch].view(np.int32)).all(axis=1)
        wrong = np.concatenate((wrong, rows[batch][~same]))
    return sorted(set(wrong.tolist()) - set(pending))


def require_same(database: CaseReader, store: MilvusStore) -> None:
    """Raise IndexDamaged if Milvus differs from cases.sqlite."""
    wrong = differences(database, store)
    if wrong:
        raise IndexDamaged(
            f"Milvus does not hold {len(wrong)} of the cases as {database.path} has them; "
            "write them again with: mura-search index compact"
        )
