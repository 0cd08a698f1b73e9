"""Changes of the index that a reader asks for. Each is one transaction that can be undone."""

from collections.abc import Callable
from typing import TypeVar

from index.case import LABEL_NAMES
from index.errors import ChangeRefused, IndexBusy
from index.filed import Filed
from index.filing import FilingWriter
from retrieval.indexing.filing import StudyRecord, file_study
from retrieval.searcher import Searcher
from web.errors import Refused
from web.service.study_store import Study

__all__ = ["correct", "file", "filed", "set_aside", "undo"]

Changed = TypeVar("Changed")
Work = Callable[[Searcher], Changed]


def file(study: Study, record: StudyRecord) -> Work[Filed]:
    """Adds a remembered study with its label."""

    def work(searcher: Searcher) -> Filed:
        study.require_model(searcher)
        return _refusing(lambda: file_study(searcher.index.path, study.views, study.encoded, record))

    return work


def correct(study: str, label: str, note: str) -> Work[Filed]:
    """Corrects the label of an indexed study. The work raises Refused if the study has this label already."""

    def change(writer: FilingWriter) -> Filed:
        filed = writer.correct(study, LABEL_NAMES.index(label), note)
        if filed is None:
            raise Refused(409, f"the study is labelled {label} already")
        return filed

    return _changing(change)


def set_aside(study: str, reason: str) -> Work[Filed]:
    """Takes an indexed study out of every search and vote."""
    return _changing(lambda writer: writer.set_aside(study, reason))


def undo(generation: int | None) -> Work[Filed]:
    """Undoes a change, by default the last one."""
    return _changing(lambda writer: writer.undo(generation))


def filed(searcher: Searcher) -> list[Filed]:
    """The changes that can be undone, newest first."""
    return searcher.index.filed()


def _changing(change: Callable[[FilingWriter], Filed]) -> Work[Filed]:
    def work(searcher: Searcher) -> Filed:
        def write() -> Filed:
            with FilingWriter.open(searcher.index.path) as writer:
                return change(writer)

        return _refusing(write)

    return work


def _refusing(write: Callable[[], Changed]) -> Changed:
    """What a change gives. Raises Refused with the sentence of a change that is refused."""
    try:
        return write()
    except IndexBusy as error:
        raise Refused(503, "another program changes the index; try again in a moment", retry=2) from error
    except ChangeRefused as error:
        raise Refused(409, str(error)) from error
