"""What all commands share: options that are spelt once, and where their output goes.

Results go to stdout; words, progress and errors to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from index.case import as_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "AsJson",
    "Cache",
    "Data",
    "Group",
    "IndexPlace",
    "KeepIdentifiers",
    "Labels",
    "Layout",
    "Part",
    "Patient",
    "QueryHeatmap",
    "QueryPart",
    "QueryView",
    "Seed",
    "Shown",
    "Split",
    "StudyTable",
    "Workers",
    "bare_table",
    "note",
    "print_json",
    "printable",
    "progress",
    "radiographs",
    "standard_output",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Data = Annotated[Path, typer.Argument(metavar="DATA", help="A MURA, FracAtlas or DICOM folder, or a CSV case table.")]
IndexPlace = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="FOLDER",
        envvar="MURA_SEARCH_INDEX",
        help="The index; without it, the one in your user data folder.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="mura, fracatlas, csv or dicom, where DATA's layout is not recognised."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="Of DICOM: a CSV table with the columns study (Study Instance UID) or accession (Accession Number), and "
        "label; without it, DATA's labels.csv.",
    ),
]
KeepIdentifiers = Annotated[
    bool,
    typer.Option(
        "--keep-identifiers",
        help="Of DICOM: name patients, studies and files as they are, not by hashes with this site's key.",
    ),
]
Part = Annotated[str | None, typer.Option(metavar="NAME", help="Only this body part, such as finger.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only this split, such as train or valid.")]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        metavar="N",
        help="Another seed draws other fingers; 0 drew those that the bundled model learned from.",
    ),
]
StudyTable = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV table, a study a line.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where prepared radiographs are kept between runs; by default in the cache folder (MURA_SEARCH_CACHE).",
    ),
]
Shown = Annotated[int, typer.Option("--k", min=1, metavar="N", help="How many similar studies to show.")]
QueryPart = Annotated[
    list[str] | None,
    typer.Option("--part", metavar="NAME", help="Only studies of this body part; repeat for several."),
]
QueryView = Annotated[
    list[str] | None, typer.Option("--view", metavar="NAME", help="Only radiographs of this view; repeat for several.")
]
Patient = Annotated[
    str | None,
    typer.Option("--patient", metavar="ID", help="Whose study this is: the patient's other studies are left out."),
]
QueryHeatmap = Annotated[
    Path | None,
    typer.Option(
        "--heatmap", metavar="FILE", help="Draw what speaks for abnormal over the radiograph, into this PNG file."
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that read radiographs.")]


class Group(TyperGroup):
    """A group of commands whose help is quick. The contexts are of a class that Typer keeps to itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for parameter in self.get_params(ctx):
            if parameter.default is None:  # an unset flag of Typer's; to read None it would import Pydantic, 75 ms
                parameter.default = False
        return super().parse_args(ctx, args)


PIPE_WIDTH = 160  # a pipe has room for whole paths


def note(text: str) -> None:
    print(printable(text), file=sys.stderr)


def print_json(value: Mapping[str, object]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    print(as_text(text))


def printable(text: str) -> str:
    """Give back `text` without what a terminal would obey: names of files and patients are anybody's."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def radiographs(count: int) -> str:
    return "1 radiograph" if count == 1 else f"{count:,} radiographs"


def standard_output() -> "Console":
    """Standard output as Rich writes to it, without colour where it is no terminal."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=PIPE_WIDTH if piped else None, highlight=False, markup=False, emoji=False, soft_wrap=False)


def bare_table(*headings: str) -> "Table":
    """A table without lines, whose columns fold rather than cut; headings only where there are any."""
    from rich.table import Table

    table = Table(box=None, show_header=any(headings), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while something long runs; gives the function to call with (done, total).

    Where stderr is no terminal nothing is drawn, and Rich is not imported.
    """
    with stages(what) as show:
        yield lambda done, total: show(what, done, total)


@contextmanager
def stages(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """The same for what has several stages: call with (what, done, total). Each begins anew; `first` comes first."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(first, total=None)

        def advance(what: str, done: int, total: int) -> None:
            if bar.tasks[0].description != what:
                bar.reset(task, description=what)
            bar.update(task, completed=done, total=total)

        yield advance
