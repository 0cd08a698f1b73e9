"""The order in which labels of unlabelled studies teach most.

N unlabelled studies, D numbers of an embedding. A label teaches where classifier and vote disagree, where their mean
is near one half, and where nothing alike is labelled yet. A study like one chosen before it teaches little more, so
near copies are not asked about twice: the score of a study is multiplied by d / (d + s), where d is its distance
(1 - cosine) to the nearest study chosen before, and s the median distance of a study to its nearest other one.
`experiments/label_order.py` measures how much these orders gain against labelling at random.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrieval.answer import Answer
from retrieval.errors import RadiographError
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.query import Scope, read_views
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import Skipped, StudyFiles, find_studies

__all__ = [
    "DEFAULT_ORDER",
    "ORDERS",
    "LabelQueue",
    "Queued",
    "Ranked",
    "Teaching",
    "label_queue",
    "queue_of",
    "teaching_order",
]

ORDERS = ("disagreement", "borderline", "unlike", "mixed")
DEFAULT_ORDER = "disagreement"
_ALIKE = 0.25  # a study whose score falls below this part by its likeness to an earlier one is called alike
_HIGH = 0.75  # the part of the studies that have less of something, from which on it is named as a reason

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Teaching:
    """What is known of N unlabelled studies.

    embeddings (N, D) of unit length, one a study; classifier and vote (N,) are probabilities, the vote is the
    classifier's where nothing could vote; nearest (N,) is the similarity of the nearest labelled study.
    """

    embeddings: Floats
    classifier: Floats
    vote: Floats
    nearest: Floats


@dataclass(frozen=True, slots=True)
class Ranked:
    """A study by its row, its score when it was chosen, and the reasons: of `ORDERS`, and "alike" as an earlier one."""

    row: int
    score: float
    reasons: tuple[str, ...]


def teaching_order(teaching: Teaching, order: str = DEFAULT_ORDER, most: int | None = None) -> list[Ranked]:
    """The studies whose labels teach most first, at most `most`; ties by row. Raises ValueError for another order."""
    if order not in ORDERS:
        raise ValueError(f"an order is one of {', '.join(ORDERS)}, not {order}")
    count = len(teaching.embeddings)
    parts = _parts(teaching)
    scores = np.mean(list(parts.values()), axis=0) if order == "mixed" else parts[order]
    scale = _spacing(teaching.embeddings)
    distance = np.full(count, np.inf)
    waiting = np.ones(count, np.bool_)
    chosen = []
    for _ in range(count if most is None else min(most, count)):
        factor = 1 / (1 + scale / np.maximum(distance, 1e-12))  # d / (d + s), 1 before the first is chosen
        row = int(np.argmax(np.where(waiting, scores * factor, -1.0)))
        reasons = tuple(name for name, values in parts.items() if values[row] >= _HIGH)
        reasons += ("alike",) if factor[row] < _ALIKE else ()
        chosen.append(Ranked(row, float(scores[row] * factor[row]), reasons))
        waiting[row] = False
        near = 1 - teaching.embeddings @ teaching.embeddings[row]
        distance = np.minimum(distance, np.maximum(near, 0.0))
    return chosen


def _parts(teaching: Teaching) -> dict[str, NDArray[np.float64]]:
    """How much each study has of each reason, as the part of all studies that have no more, in (0, 1]."""
    mean = (teaching.classifier + teaching.vote) / 2
    raw = {
        "disagreement": np.abs(teaching.classifier - teaching.vote),
        "borderline": -np.abs(mean - 0.5),
        "unlike": -np.asarray(teaching.nearest, np.float64),
    }
    return {name: _shares(values) for name, values in raw.items()}


def _shares(values: Floats) -> NDArray[np.float64]:
    return np.asarray(np.searchsorted(np.sort(values), values, side="right") / max(1, len(values)), np.float64)


def _spacing(embeddings: Floats) -> float:
    """The median distance of a study to its nearest other one, from some 1,000 of them."""
    if len(embeddings) < 2:
        return 1.0
    asked = np.arange(0, len(embeddings), max(1, len(embeddings) // 1000))
    similarities = embeddings[asked] @ embeddings.T
    similarities[np.arange(len(asked)), asked] = -np.inf
    return max(float(np.median(1 - similarities.max(1))), 1e-6)


@dataclass(frozen=True, slots=True)
class Queued:
    """An unlabelled study: its name, files and answer, its embedding (D,) of unit length, its score and the reasons.

    `key` is the caller's own.
    """

    study: str
    files: tuple[str, ...]
    answer: Answer
    embedding: NDArray[np.float32]
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    key: str = ""

    def to_dict(self, rank: int) -> dict[str, object]:
        answer = self.answer
        return {
            "rank": rank,
            "study": self.study,
            "score": self.score,
            "reasons": list(self.reasons),
            "verdict": answer.verdict,
            "classifier": answer.classifier.probability,
            "vote": answer.knn.probability,
            "similarity": answer.familiarity.similarity,
            "files": list(self.files),
        }


@dataclass(frozen=True, slots=True)
class LabelQueue(Tabular):
    """The unlabelled studies of a folder, the one whose label teaches most on top; as a table, a radiograph a line.

    The table is a case table without labels: once they are filled in, `index add` reads it.
    """

    columns: ClassVar = "path label study rank reasons classifier vote similarity"

    folder: str
    order: str
    studies: tuple[Queued, ...]
    skipped: tuple[Skipped, ...]
    seconds: float

    @property
    def title(self) -> str:
        return f"{len(self.studies):,} unlabelled studies of {self.folder}, the one whose label teaches most on top."

    def rows(self) -> list[Row]:
        return [
            {
                "path": file,
                "label": "",
                "study": queued.study,
                "rank": rank,
                "reasons": ", ".join(queued.reasons),
                "classifier": queued.answer.classifier.probability,
                "vote": queued.answer.knn.probability,
                "similarity": queued.answer.familiarity.similarity,
            }
            for rank, queued in enumerate(self.studies, 1)
            for file in queued.files
        ]

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/label/1"."""
        return {
            "schema": "mura-search/label/1",
            "folder": self.folder,
            "order": self.order,
            "studies": [queued.to_dict(rank) for rank, queued in enumerate(self.studies, 1)],
            "skipped": plain(self.skipped),
            "seconds": self.seconds,
        }


def label_queue(
    searcher: Searcher,
    folder: Path,
    order: str = DEFAULT_ORDER,
    progress: Callable[[int, int], None] | None = None,
) -> LabelQueue:
    """The studies of a folder that are not indexed yet, in the order in which their labels teach most.

    A study is a folder with radiographs in it, as for the worklist. `progress` is called with (studies done, all).
    Raises RadiographError if the folder is missing or none of its studies can be read.
    """
    started = time.perf_counter()
    searcher.refresh()
    sources, skipped = find_studies(folder)
    queued = []
    for done, source in enumerate(sources, 1):
        try:
            queued.append(_queued(searcher, source))
        except RadiographError as error:
            skipped.append(Skipped(source.study, str(error)))
        if progress:
            progress(done, len(sources))
    if not queued:
        reason = f"; the first: {skipped[0].reason}" if skipped else ""
        raise RadiographError(f"{folder} has no unlabelled study that can be read{reason}")
    studies = queue_of(queued, order)
    return LabelQueue(str(folder), order, tuple(studies), tuple(skipped), time.perf_counter() - started)


def queue_of(queued: list[Queued], order: str = DEFAULT_ORDER) -> list[Queued]:
    """Studies in the order in which their labels teach most."""
    if not queued:
        return []
    teaching = Teaching(
        embeddings=np.stack([study.embedding for study in queued]),
        classifier=np.array([study.answer.classifier.probability for study in queued]),
        vote=np.array([_vote(study.answer) for study in queued]),
        nearest=np.array([study.answer.familiarity.similarity or 0.0 for study in queued]),
    )
    ordered = teaching_order(teaching, order)
    return [replace(queued[ranked.row], score=ranked.score, reasons=ranked.reasons) for ranked in ordered]


def _vote(answer: Answer) -> float:
    return answer.classifier.probability if answer.knn.probability is None else answer.knn.probability


def _queued(searcher: Searcher, source: StudyFiles) -> Queued:
    """A study, read and asked about. Raises RadiographError if it cannot be read, and if it is indexed already."""
    views, notices = read_views(list(source.files))
    if any(searcher.index.find_digest(view.digest) for view in views):
        raise RadiographError("it is in the index already, and so has a label")
    encoded = searcher.encoder.encode([view.pixels for view in views])
    answer = searcher.answer(views, encoded, Scope(k=1), notices=notices)
    return Queued(source.study, tuple(map(str, source.files)), answer, encoded.mean())
