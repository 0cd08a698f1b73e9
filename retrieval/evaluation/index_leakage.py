"""Near duplicates, in an index, of the radiographs that it judges: figures on these say nothing about new patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from index.case import Case
from index.reader import IndexReader
from retrieval.audit.near_duplicates import NearDuplicate, near_duplicates, similarity_limit
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import PartFigures, figures_of

__all__ = ["IndexLeakage", "index_leakage"]


@dataclass(frozen=True, slots=True)
class IndexLeakage:
    """The judged studies with a near duplicate in the index, in their order, and the figures of those without one.

    `pairs` are of a judged radiograph and an indexed one; `without` is None where no study has a near duplicate, and
    where every one has.
    """

    studies: tuple[str, ...]
    pairs: tuple[NearDuplicate, ...]
    without: PartFigures | None

    def to_dict(self) -> dict[str, object]:
        return {
            "studies": list(self.studies),
            "pairs": [_plain(twin) for twin in self.pairs],
            "without": self.without and self.without.to_dict(),
        }

    def of_study(self, study: str) -> tuple[str, ...]:
        """The indexed radiographs that a judged study's are near duplicates of, each once."""
        return tuple(dict.fromkeys(twin.cases[1] for twin in self.pairs if twin.studies[0] == study))


def index_leakage(
    index: IndexReader,
    readings: Sequence[StudyPrediction],
    *,
    workers: int | None = None,
    rounds: int = 10_000,
    seed: int = 0,
) -> IndexLeakage:
    """Find near duplicates as `mura-search audit --deep` does (see `audit.near_duplicates`), by the index's thumbnails.

    Candidates are compared in `workers` threads, one a core by default. Raises IndexBusy where the index is changed
    meanwhile.
    """
    indexed = index.cases()
    own = [case for reading in readings for case in reading.cases]
    thumbnails = [thumbnail for reading in readings for thumbnail in reading.thumbnails]
    cases = [*own, *indexed]
    embeddings = np.concatenate([*(reading.embeddings for reading in readings), index.embeddings()])
    twins = near_duplicates(
        cases,
        embeddings,
        _Thumbnails(thumbnails, index, indexed),
        similarity_limit(cases, embeddings).limit,
        asked=len(own),
        workers=workers,
    )
    found = {twin.studies[0] for twin in twins}
    others = [reading for reading in readings if reading.study not in found]
    return IndexLeakage(
        studies=tuple(reading.study for reading in readings if reading.study in found),
        pairs=tuple(twins),
        without=figures_of(others, rounds=rounds, seed=seed) if found and others else None,
    )


class _Thumbnails:
    """Those of the judged radiographs, then the index's, which are read when they are asked for: they may be many."""

    def __init__(self, own: Sequence[bytes], index: IndexReader, indexed: Sequence[Case]) -> None:
        self._own = own
        self._index = index
        self._indexed = indexed

    def __iter__(self) -> Iterator[bytes]:
        yield from self._own
        for batch in self._index.batches():
            yield from batch.thumbnails

    def __getitem__(self, row: int, /) -> bytes:
        if row < len(self._own):
            return self._own[row]
        return self._index.thumbnail(self._indexed[row - len(self._own)].case) or b""  # gone meanwhile: no picture


def _plain(twin: NearDuplicate) -> dict[str, object]:
    return {
        "study": twin.studies[0],
        "case": twin.cases[0],
        "indexed_study": twin.studies[1],
        "indexed_case": twin.cases[1],
        "bits": twin.bits,
        "similarity": twin.similarity,
        "match": twin.match,
        "mirrored": twin.mirrored,
        "across_labels": twin.across_labels,
    }
