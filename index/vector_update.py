"""Brings what is derived from cases.sqlite up to date: the vectors in vectors.faiss or in Milvus."""

import contextlib
from pathlib import Path

from index.atomic import VECTORS, remove_strays
from index.checksums import break_seal
from index.errors import IndexDamaged, IndexUnreachable
from index.sqlite.reader import CaseReader
from index.sqlite.writer import CaseWriter
from index.vectors.base import Demand
from index.vectors.vector_file import VectorFile

__all__ = ["make_vector_file", "update_milvus", "update_vector_file"]

SMALL = 16 << 20  # bytes of vectors: up to here vectors.faiss is written again after every change


def make_vector_file(database: CaseReader, demand: Demand) -> VectorFile:
    """The content of a new vectors.faiss, from cases.sqlite, in a transaction."""
    from index.vectors.faiss import FaissStore  # late: it takes longer to import than all the rest

    rows, studies, vectors = database.vectors(database.metadata()["dimension"])
    return VectorFile(rows, studies, vectors, *FaissStore.approximate(vectors, demand))


def update_vector_file(path: Path, database: CaseWriter, *, compacted: bool, tuned: bool) -> int:
    """Write the vectors.faiss of the index at `path` again, if that is quick or it is far behind.

    compacted: write it at the smallest difference. tuned: write it also without one, as its demand has changed. Gives
    the number of changes that it lacks afterwards.
    """
    with database.transaction():
        metadata = database.metadata()
        identity = bytes.fromhex(metadata["identity"])
        behind = _behind(path, database, identity)
        size = 4 * int(metadata["dimension"]) * database.count()
        enough = 0 if compacted or size <= SMALL else max(1000, database.count() // 64)
        snapshot = None
        if behind > enough or tuned:
            snapshot = make_vector_file(database, Demand(**metadata["values"].get("demand", {})))
    remove_strays(path)
    if snapshot is None:
        return behind
    break_seal(path)
    snapshot.write(path / VECTORS, identity)
    with database.transaction(writing=True):
        database.forget_removed()
    return 0


def _behind(path: Path, database: CaseReader, identity: bytes) -> int:
    """The number of changes that vectors.faiss lacks; all cases and one more if it is missing or damaged."""
    try:
        snapshot = VectorFile.read(path / VECTORS, identity)
    except IndexDamaged:
        snapshot = None
    return database.count() + 1 if snapshot is None else database.behind(snapshot.last)


def update_milvus(path: Path, database: CaseWriter, *, compacted: bool) -> int:
    """Write the pending changes of the index at `path` to Milvus; if it does not answer, the next writer does it.

    compacted: also compare all that Milvus holds. Gives the number of changes that Milvus lacks afterwards.
    """
    from index.milvus.sync import bring_up_to_date, differences, open_remote

    with database.transaction():
        metadata = database.metadata()
        pending = len(database.pending())
    if not pending and not compacted:
        return 0
    break_seal(path)
    with (
        contextlib.suppress(IndexUnreachable),
        open_remote(metadata, create=True, cases=database.count()) as store,
    ):
        if compacted:
            with database.transaction(writing=True):
                database.unsettle(differences(database, store))
        bring_up_to_date(database, store)
    return len(database.pending())
