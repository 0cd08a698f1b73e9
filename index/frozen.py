"""An index as it is at one moment, for work that takes long: `FrozenReader(reader)`."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case, Where
from index.errors import IndexBusy
from index.generation import Generation
from index.hits import Hit
from index.opening import ATTEMPTS, OpenIndex
from index.reader import IndexReader
from index.sqlite.reader import Batch

__all__ = ["FrozenReader"]


class FrozenReader(IndexReader):
    """One generation of an index, in memory: what other processes change afterwards is not seen.

    Cases, embeddings, logits and thumbnails are read when it is made: about 5 KB a case. A search has no filters and
    excludes nobody. Vectors in Milvus are read too, and searched exactly. Raises IndexBusy if the index changes all the
    time. It uses the reader that it is made of, and is not closed itself.
    """

    def __init__(self, reader: IndexReader) -> None:
        for _ in range(ATTEMPTS):
            reader.refresh()
            try:
                self._batches = [_without_previews(batch) for batch in reader.batches()]
                generation = reader._generation
                if not isinstance(generation, Generation):
                    generation = _exact(reader)
                if reader._database.generation() == generation.number:
                    break
            except IndexBusy:
                continue
        else:
            raise IndexBusy(f"{reader.path} changes faster than it can be read; try again")
        super().__init__(reader.path, OpenIndex(reader._database, generation, reader._file, None))
        self.model = reader.model
        self._frozen = generation
        self._cases_by_row = dict(zip(_rows(generation), self.cases(), strict=True))
        self._thumbnails = {
            case.case: thumbnail
            for batch in self._batches
            for case, thumbnail in zip(batch.cases, batch.thumbnails, strict=True)
        }

    def close(self) -> None:
        pass

    def replaced(self) -> bool:
        return False

    def refresh(self) -> bool:
        return False

    def _search(
        self, queries: NDArray[np.float32], k: int, where: Where, exclude: Sequence[Collection[str]] | None
    ) -> list[list[Hit]]:
        if where or any(exclude or ()):
            raise ValueError("a frozen index searches all cases: it takes no filters and excludes no patients")
        answers, _ = self._frozen.search(queries, k, {}, None, self._database)
        return [[Hit(similarity, self._cases_by_row[row]) for similarity, row in answer] for answer in answers]

    def cases(self) -> list[Case]:
        return [case for batch in self._batches for case in batch.cases]

    def labels(self) -> tuple[str, ...]:
        return tuple(LABEL_NAMES[label] for label in sorted({case.label for case in self.cases()}))

    def logits(self) -> NDArray[np.float32]:
        return np.concatenate([np.empty(0, np.float32), *(batch.logits for batch in self._batches)])

    def extra(self, table: str) -> list[bytes]:
        none = [b""]
        return [data for batch in self._batches for data in batch.extras.get(table, none * len(batch.cases))]

    def batches(self) -> Iterator[Batch]:
        yield from self._batches

    def thumbnail(self, case: str) -> bytes | None:
        return self._thumbnails.get(case)


def _without_previews(batch: Batch) -> Batch:
    """The batch without what takes most of its memory; `preview` reads one at a time."""
    return replace(batch, extras={table: data for table, data in batch.extras.items() if table != "previews"})


def _exact(reader: IndexReader) -> Generation:
    """The generation of an index whose vectors are in Milvus, with the vectors of cases.sqlite."""
    from index.vectors.faiss import FaissStore  # late: it takes longer to import than all the rest
    from index.vectors.vector_file import VectorFile

    rows, studies, vectors = reader._database.vectors(int(reader._metadata["dimension"]))
    base = VectorFile.exact(rows, studies, vectors)
    return Generation(
        reader._generation.number, rows, studies, FaissStore(base.vectors, base.approximation, {}), None, 0
    )


def _rows(generation: Generation) -> list[int]:
    rows = generation.rows if generation.alive is None else generation.rows[generation.alive]
    return [int(row) for row in rows]
