"""A folder of studies in the order in which to read them: the most probably abnormal first.

Each study is asked about exactly as a query is. The order is that of the mean of both probabilities; where nothing
could vote, of the classifier's alone. A study unlike what is indexed keeps its place and is marked: its figures say
little, whether they are high or low. How much earlier abnormal studies are reached is what `triage` measures.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.errors import IndexBusy
from retrieval.answer import Answer, IndexSource, ModelSource, plain
from retrieval.csv_format import call, number, table, yes
from retrieval.errors import RadiographError
from retrieval.notices import Code
from retrieval.query import may_be_view
from retrieval.searcher import Searcher
from retrieval.wording import sentence

__all__ = [
    "SYNTHETIC_ORDER",
    "Entry",
    "Found",
    "Skipped",
    "Worklist",
    "find_studies",
    "in_order",
    "judge",
    "ranked",
    "worklist",
    "worklist_table",
]

SCHEMA = "mura-search/worklist/1"
SYNTHETIC_ORDER = "The index holds synthetic radiographs: the order shows how the tool works, no more."
_COLUMNS = (
    "rank",
    "study",
    "radiographs",
    "mean",
    "classifier",
    "classifier_call",
    "vote",
    "vote_call",
    "agreement",
    "similarity",
    "familiar",
    "nearest_study",
    "nearest_label",
    "nearest_similarity",
)


@dataclass(frozen=True, slots=True)
class Found:
    """A study in a folder: its name, the path from there, and the files of its views."""

    study: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A study or folder that could not be read, and why."""

    study: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A study that was asked about; the answer shows the nearest study only."""

    study: str
    answer: Answer

    @property
    def mean(self) -> float:
        """What it is ranked by: the mean of both probabilities, the classifier's where nothing could vote."""
        vote = self.answer.knn.probability
        return self.answer.classifier.probability if vote is None else (self.answer.classifier.probability + vote) / 2

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of this study, without that of the whole index."""
        return tuple(sentence(notice) for notice in self.answer.notices if notice.code != Code.SYNTHETIC)

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
class Worklist:
    """The studies of a folder, those to read first at the top, and what could not be read."""

    folder: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    model: ModelSource
    index: IndexSource
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/worklist/1"."""
        return {
            "schema": SCHEMA,
            "folder": self.folder,
            "studies": [entry.to_dict(rank) for rank, entry in enumerate(self.entries, 1)],
            "skipped": plain(self.skipped),
            "model": plain(self.model),
            "index": plain(self.index),
            "seconds": self.seconds,
        }


def worklist(searcher: Searcher, folder: Path, progress: Callable[[int, int], None] | None = None) -> Worklist:
    """Ask about every study of a folder. `progress` is called with (studies done, all).

    Raises RadiographError where there is no such folder, no radiograph in it, or none that can be read.
    """
    started = time.perf_counter()
    found, unread = find_studies(folder)
    read: list[Entry | Skipped] = [*unread]
    for done, one in enumerate(found, 1):
        read.append(judge(searcher, one))
        if progress:
            progress(done, len(found))
    result = ranked(searcher, folder, read, time.perf_counter() - started)
    if not read:
        raise RadiographError(f"{folder}: no radiograph in this folder, nor in folders in it")
    if not result.entries:
        reason = result.skipped[0].reason
        raise RadiographError(f"none of the {len(read):,} studies of {folder} could be read; the first: {reason}")
    return result


def find_studies(folder: Path) -> tuple[list[Found], list[Skipped]]:
    """The studies of a folder by name, and the folders that cannot be looked into.

    A study is a folder at any depth with radiographs in it, all of which are its views, as in MURA's layout. Of the
    radiographs that lie in `folder` itself each is a study of its own. Hidden files and folders are not looked at; a
    folder that is met again through a link counts once. Raises RadiographError where `folder` is none.
    """
    if not folder.is_dir():
        raise RadiographError(f"{folder} is no folder; name the folder that the studies are in")
    found: list[Found] = []
    unread: list[Skipped] = []
    met: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            if (real := here.resolve()) in met:
                continue
            met.add(real)
            entries = sorted(entry for entry in here.iterdir() if not entry.name.startswith("."))
            waiting += [entry for entry in entries if entry.is_dir()]
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            reason = getattr(error, "strerror", None) or error
            unread.append(Skipped(_name(here, folder), f"{here} cannot be read: {reason}"))
            continue
        files = tuple(entry for entry in entries if not entry.is_dir() and may_be_view(entry))
        if here == folder:
            found += [Found(file.name, (file,)) for file in files]
        elif files:
            found.append(Found(_name(here, folder), files))
    return sorted(found, key=lambda one: one.study), sorted(unread, key=lambda one: one.study)


def judge(searcher: Searcher, found: Found) -> Entry | Skipped:
    """Ask about one study. Of its views those that cannot be read are left out, which the answer's warnings say."""
    try:
        return Entry(found.study, searcher.search(found.files, k=1))
    except (RadiographError, IndexBusy) as error:
        return Skipped(found.study, str(error))


def ranked(searcher: Searcher, folder: Path, read: Iterable[Entry | Skipped], seconds: float) -> Worklist:
    """Put studies in their order: by falling mean, ties by name."""
    every = list(read)
    return Worklist(
        folder=str(folder),
        entries=in_order(one for one in every if isinstance(one, Entry)),
        skipped=tuple(one for one in every if isinstance(one, Skipped)),
        model=searcher.model,
        index=searcher.source,
        seconds=seconds,
    )


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """By falling mean, ties by name."""
    return tuple(sorted(entries, key=lambda entry: (-entry.mean, entry.study)))


def worklist_table(result: Worklist) -> str:
    """As CSV, a study a line, with the names that `evaluate --csv` uses."""
    return table([_COLUMNS, *(_row(rank, entry) for rank, entry in enumerate(result.entries, 1))])


def _row(rank: int, entry: Entry) -> Sequence[object]:
    answer = entry.answer
    nearest: Sequence[object] = ("", "", "")
    if answer.cases:
        case = answer.cases[0]
        nearest = (case.study, case.label, number(case.similarity))
    return (
        rank,
        entry.study,
        answer.query.views,
        number(entry.mean),
        *(number(answer.classifier.probability), call(answer.classifier.abnormal)),
        *(number(answer.knn.probability), call(answer.knn.abnormal)),
        yes(answer.agreement),
        number(answer.familiarity.similarity),
        yes(answer.familiarity.familiar),
        *nearest,
    )


def _name(here: Path, folder: Path) -> str:
    return here.relative_to(folder).as_posix()
