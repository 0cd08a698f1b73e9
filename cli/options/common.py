"""Options that several commands share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

if TYPE_CHECKING:
    from index.reader import IndexReader
    from index.writer import IndexWriter
    from retrieval.searcher import Searcher

__all__ = [
    "AsJson",
    "Excel",
    "IndexFolder",
    "OpenPage",
    "Port",
    "ScoreTable",
    "SearchOptions",
    "Seed",
    "StudyTable",
    "Workers",
    "index_path",
    "index_reader",
    "index_searcher",
    "index_writer",
]

AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]
IndexFolder = Annotated[
    Path | None,
    Option(
        "--index",
        metavar="FOLDER",
        envvar="MURA_SEARCH_INDEX",
        help="The index. By default it is in your user data folder.",
    ),
]
Excel = Annotated[
    bool, Option("--excel", help="Begin CSV files with a byte order mark, by which Excel recognises UTF-8.")
]
OpenPage = Annotated[bool, Option("--open", help="Open the page in the browser when it is ready.")]
Port = Annotated[int, Option(min=0, max=65535, metavar="N", help="The page's port; 0 takes any free port.")]
Seed = Annotated[
    int,
    Option(
        "--seed",
        min=0,
        metavar="N",
        help="The random seed. Seed 0 draws the fingers that the bundled model was trained on.",
    ),
]
ScoreTable = Annotated[Path | None, Option("--csv", metavar="FILE", help="Write a CSV table with one line per score.")]
StudyTable = Annotated[Path | None, Option("--csv", metavar="FILE", help="Write a CSV table with one line per study.")]
Workers = Annotated[int | None, Option(min=1, metavar="N", help="How many threads read radiographs.")]


def index_path(index: Path | None) -> Path:
    """The index that is named, or the default one."""
    from retrieval.searcher import default_index

    return index or default_index()


def index_reader(index: Path | None) -> "IndexReader":
    from index.reader import IndexReader

    return IndexReader.open(index_path(index))


def index_searcher(index: Path | None) -> "Searcher":
    from retrieval.searcher import Searcher

    return Searcher.open(index)


def index_writer(index: Path | None) -> "IndexWriter":
    from index.writer import IndexWriter

    return IndexWriter.open(index_path(index))


@dataclass(frozen=True)
class SearchOptions:
    """What to search, and what to show of it."""

    k: Annotated[int, Option("--k", min=1, metavar="N", help="How many similar studies to show.")] = 5
    index: IndexFolder = None
    part: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Search only studies of this body part; may be repeated."),
    ] = None
    view: Annotated[
        list[str] | None, Option(metavar="NAME", help="Search only radiographs of this view; may be repeated.")
    ] = None
    patient: Annotated[
        str | None,
        Option(metavar="ID", help="The patient of the study. Other studies of this patient are left out."),
    ] = None
    heatmap: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write the radiograph to this PNG file, with a heatmap of what looks abnormal."),
    ] = None

    one_study: Annotated[
        bool, Option("--one-study", help="Take radiographs that name several patients or studies as one study.")
    ] = False

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The keyword arguments of a search, as the fields of `query.Scope`."""
        parts = [name.strip().lower() for name in self.part or ()]  # as `--part` of other commands
        where = {field: values for field, values in (("part", parts), ("view", self.view)) if values}
        return {"k": self.k, "patient": self.patient, "where": where or None}
