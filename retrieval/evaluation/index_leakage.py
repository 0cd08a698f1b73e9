"""Near duplicates between evaluated radiographs and an index: figures on these say nothing about new patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from index.case import Case
from index.reader import IndexReader
from retrieval.audit.near_duplicates import NearDuplicate, near_duplicates, similarity_limit
from retrieval.evaluation.metrics import Resampling
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import PartFigures, figures_of

__all__ = ["IndexLeakage", "index_leakage"]


_SHOWN = ("bits", "similarity", "match", "mirrored", "turned", "inverted", "border", "across_labels")


@dataclass(frozen=True, slots=True)
class IndexLeakage:
    """The evaluated studies with a near duplicate in the index, in their order, and the figures of the other studies.

    A pair has an evaluated radiograph and an indexed radiograph. `without` is None where no study or every study has a
    near duplicate.
    """

    studies: tuple[str, ...]
    pairs: tuple[NearDuplicate, ...]
    without: PartFigures | None

    def to_dict(self) -> dict[str, object]:
        return {
            "studies": list(self.studies),
            "pairs": [_plain(pair) for pair in self.pairs],
            "without": self.without and self.without.to_dict(),
        }

    def indexed_cases(self, study: str) -> tuple[str, ...]:
        """The indexed radiographs that are near duplicates of a study's radiographs, each once."""
        return tuple(dict.fromkeys(pair.cases[1] for pair in self.pairs if pair.studies[0] == study))


def index_leakage(
    index: IndexReader,
    predictions: Sequence[StudyPrediction],
    *,
    workers: int | None = None,
    **resampling: Unpack[Resampling],
) -> IndexLeakage:
    """Find near duplicates as `mura-search audit --deep` does (see `audit.near_duplicates`), by the index's thumbnails.

    Candidates are compared in `workers` threads, by default one a core. Raises IndexBusy where the index changes.
    """
    indexed = index.cases()
    asked = [case for prediction in predictions for case in prediction.cases]
    thumbnails = [thumbnail for prediction in predictions for thumbnail in prediction.thumbnails]
    cases = [*asked, *indexed]
    embeddings = np.concatenate([*(prediction.embeddings for prediction in predictions), index.embeddings()])
    pairs = near_duplicates(
        cases,
        embeddings,
        _Thumbnails(thumbnails, index, indexed),
        similarity_limit(cases, embeddings).limit,
        asked=len(asked),
        workers=workers,
    )
    affected = {pair.studies[0] for pair in pairs}
    others = [prediction for prediction in predictions if prediction.study not in affected]
    return IndexLeakage(
        studies=tuple(prediction.study for prediction in predictions if prediction.study in affected),
        pairs=tuple(pairs),
        without=figures_of(others, **resampling) if affected and others else None,
    )


class _Thumbnails:
    """The thumbnails of the evaluated radiographs, then the index's. These may be many, so they are read on demand."""

    def __init__(self, asked: Sequence[bytes], index: IndexReader, indexed: Sequence[Case]) -> None:
        self._asked = asked
        self._index = index
        self._indexed = indexed

    def __iter__(self) -> Iterator[bytes]:
        yield from self._asked
        for batch in self._index.batches():
            yield from batch.thumbnails

    def __getitem__(self, row: int, /) -> bytes:
        if row < len(self._asked):
            return self._asked[row]
        return self._index.thumbnail(self._indexed[row - len(self._asked)].case) or b""  # b"": the case was removed


def _plain(pair: NearDuplicate) -> dict[str, object]:
    return {
        "study": pair.studies[0],
        "case": pair.cases[0],
        "indexed_study": pair.studies[1],
        "indexed_case": pair.cases[1],
        **{name: getattr(pair, name) for name in _SHOWN},
    }
