"""A folder of studies in the order in which to read them.

Each study is queried as by `mura-search search`. Studies unlike the index come first, as a group: their figures say
little, whether they are high or low, so a person has to look. Within the group and after it the rank is by the mean of
both probabilities, or by the classifier's alone where nothing could vote: the most probably abnormal first.
`retrieval.evaluation.triage` measures how much earlier abnormal studies come.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from index.errors import IndexBusy
from retrieval.answer import Answer, IndexSource, ModelSource
from retrieval.datasets.folders import DERIVED
from retrieval.errors import RadiographError
from retrieval.evaluation.drift import Drift, drift_between, scored
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.notices import Code
from retrieval.query import may_be_view
from retrieval.searcher import Searcher
from retrieval.wording import label_word, sentence

__all__ = [
    "SYNTHETIC_ORDER",
    "Entry",
    "Skipped",
    "StudyFiles",
    "Worklist",
    "find_studies",
    "in_order",
    "query_study",
    "ranked",
    "worklist",
]

SCHEMA = "mura-search/worklist/1"
SYNTHETIC_ORDER = "The index holds synthetic radiographs: the order only shows how the tool works."


@dataclass(frozen=True, slots=True)
class StudyFiles:
    """A study in a folder: its name, which is its path in there, and the files of its views."""

    study: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A study or folder that could not be read, and why."""

    study: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A study with its answer, which has the nearest study alone."""

    study: str
    answer: Answer

    @property
    def mean(self) -> float:
        """The mean of both probabilities, by which studies are ranked; the classifier's where nothing could vote."""
        vote = self.answer.knn.probability
        return self.answer.classifier.probability if vote is None else (self.answer.classifier.probability + vote) / 2

    @property
    def unfamiliar(self) -> bool:
        """Whether the study is unlike the index."""
        return self.answer.familiarity.familiar is False

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of this study, without those of the whole index."""
        return tuple(sentence(notice) for notice in self.answer.notices if notice.code != Code.SYNTHETIC)

    def row(self, rank: int) -> Row:
        """The study's line of a table, with the names that `evaluate --csv` uses."""
        answer = self.answer
        nearest = answer.cases[0] if answer.cases else None
        return {
            "rank": rank,
            "study": self.study,
            "radiographs": answer.query.views,
            "mean": self.mean,
            "classifier": answer.classifier.probability,
            "classifier_call": label_word(answer.classifier.abnormal),
            "vote": answer.knn.probability,
            "vote_call": None if answer.knn.abnormal is None else label_word(answer.knn.abnormal),
            "agreement": answer.agreement,
            "similarity": answer.familiarity.similarity,
            "familiar": answer.familiarity.familiar,
            "unlike": "; ".join(answer.familiarity.codes),
            "borderline": answer.borderline,
            "nearest_study": nearest and nearest.study,
            "nearest_label": nearest and nearest.label,
            "nearest_similarity": nearest and nearest.similarity,
        }

    def to_dict(self, rank: int) -> dict[str, object]:
        answer = self.answer
        return {
            "rank": rank,
            "study": self.study,
            "mean": self.mean,
            "classifier": plain(answer.classifier),
            "knn": plain(answer.knn),
            "agreement": answer.agreement,
            "familiarity": plain(answer.familiarity),
            "nearest": plain(answer.cases[0]) if answer.cases else None,
            "files": list(answer.query.files),
            "warnings": list(answer.warnings),
            "notices": plain(answer.notices),
        }


@dataclass(frozen=True, slots=True)
class Worklist(Tabular):
    """The studies of a folder, the first to read on top, and what could not be read; as a table, a study a line.

    A study that could not be read has no rank in the table, but a reason. `drift` compares the scores of the others
    with those of the index, None where it does not know its own.
    """

    columns: ClassVar = (
        "rank study radiographs mean classifier classifier_call vote vote_call agreement similarity familiar unlike "
        "borderline nearest_study nearest_label nearest_similarity reason"
    )

    folder: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    model: ModelSource
    index: IndexSource
    seconds: float
    drift: Drift | None = None

    @property
    def title(self) -> str:
        return f"{len(self.entries):,} studies of {self.folder}, the first to read on top."

    def rows(self) -> list[Row]:
        read = [entry.row(rank) for rank, entry in enumerate(self.entries, 1)]
        return read + [{"study": item.study, "reason": item.reason} for item in self.skipped]

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/worklist/1"."""
        return {
            "schema": SCHEMA,
            "folder": self.folder,
            "studies": [entry.to_dict(rank) for rank, entry in enumerate(self.entries, 1)],
            "skipped": plain(self.skipped),
            "model": plain(self.model),
            "index": plain(self.index),
            "drift": None if self.drift is None else self.drift.to_dict(),
            "seconds": self.seconds,
        }


def worklist(searcher: Searcher, folder: Path, progress: Callable[[int, int], None] | None = None) -> Worklist:
    """Ask about every study of a folder. `progress` is called with (studies done, all).

    Raises RadiographError where the folder is missing, holds no radiograph, or none can be read.
    """
    started = time.perf_counter()
    studies, skipped = find_studies(folder)
    read: list[Entry | Skipped] = [*skipped]
    for done, study in enumerate(studies, 1):
        read.append(query_study(searcher, study))
        if progress:
            progress(done, len(studies))
    result = ranked(searcher, folder, read, time.perf_counter() - started)
    if not read:
        raise RadiographError(f"{folder}: no radiograph in this folder, nor in folders in it")
    if not result.entries:
        reason = result.skipped[0].reason
        raise RadiographError(f"none of the {len(read):,} studies of {folder} could be read; the first: {reason}")
    return result


def find_studies(folder: Path) -> tuple[list[StudyFiles], list[Skipped]]:
    """The studies of a folder by name, and the folders that cannot be read or hold pictures made of radiographs.

    A study is a folder at any depth with radiographs in it, which are its views, as in MURA's layout. Each radiograph
    in `folder` itself is a study of its own. Hidden files and folders do not count. A folder that several links lead to
    counts once. Raises RadiographError where `folder` is not a folder.
    """
    if not folder.is_dir():
        raise RadiographError(f"{folder} is no folder; name the folder that the studies are in")
    studies: list[StudyFiles] = []
    skipped: list[Skipped] = []
    visited: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        name = here.relative_to(folder).as_posix()
        try:
            if (real := here.resolve()) in visited:
                continue
            visited.add(real)
            entries = sorted(entry for entry in here.iterdir() if not entry.name.startswith("."))
            waiting += [entry for entry in entries if entry.is_dir()]
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            reason = getattr(error, "strerror", None) or error
            skipped.append(Skipped(name, f"{here} cannot be read: {reason}"))
            continue
        files = tuple(entry for entry in entries if not entry.is_dir() and may_be_view(entry))
        if here == folder:
            studies += [StudyFiles(file.name, (file,)) for file in files]
        elif files and not DERIVED.isdisjoint(name.lower().split("/")):
            skipped.append(Skipped(name, f"{here} is named like thumbnails, masks or deleted files; rename it if not"))
        elif files:
            studies.append(StudyFiles(name, files))
    return sorted(studies, key=lambda study: study.study), sorted(skipped, key=lambda folder: folder.study)


def query_study(searcher: Searcher, study: StudyFiles) -> Entry | Skipped:
    """Ask about one study. Views that cannot be read are left out, and the answer's notices say so."""
    try:
        return Entry(study.study, searcher.search(study.files, k=1, one_study=True))
    except (RadiographError, IndexBusy) as error:
        return Skipped(study.study, str(error))


def ranked(searcher: Searcher, folder: Path, read: Iterable[Entry | Skipped], seconds: float) -> Worklist:
    """The worklist of what was read."""
    items = list(read)
    entries = in_order(item for item in items if isinstance(item, Entry))
    return Worklist(
        folder=str(folder),
        entries=entries,
        skipped=tuple(item for item in items if isinstance(item, Skipped)),
        model=searcher.model,
        index=searcher.source,
        seconds=seconds,
        drift=drift_between(searcher.reference, [scored(entry.answer) for entry in entries]),
    )


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Those unlike the index first, then by falling mean, ties by name."""
    return tuple(sorted(entries, key=lambda entry: (not entry.unfamiliar, -entry.mean, entry.study)))
