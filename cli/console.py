"""Where the output of commands goes: results to stdout; words, progress and errors to stderr; files in whole."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.atomic import write_whole
from index.case import as_text
from retrieval.errors import OutputError
from retrieval.wording import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "bare_table",
    "note",
    "note_few",
    "print_json",
    "print_result",
    "progress",
    "radiographs",
    "require_apart",
    "require_ending",
    "require_writable",
    "stages",
    "standard_output",
    "write_file",
]

LISTED = 20  # radiographs that are named of one kind; --json has all
PIPE_WIDTH = 160  # a pipe has room for whole paths
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def note(text: str) -> None:
    """Print a text of one or more lines on stderr."""
    print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr)


def note_few(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Print the first pairs of a radiograph and a reason on stderr, and how many more there are."""
    for case, reason in pairs[:LISTED]:
        note(f"{title}: {case}: {reason}")
    if len(pairs) > LISTED:
        note(f"{title}: {len(pairs) - LISTED:,} more; --json lists all")


def print_json(value: Mapping[str, object], *, lines: bool = False) -> None:
    """Print JSON, indented or on one of several `lines`. What could steer a terminal is escaped."""
    text = as_text(json.dumps(value, indent=None if lines else 2, ensure_ascii=False, allow_nan=False))
    # JSON itself escapes the control characters of ASCII, but not those of Unicode, nor marks that reverse a line.
    escaped = _NOT_ASCII.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)
    print(escaped, flush=lines)


def print_result(as_json: bool, schema: str, content: Mapping[str, object], *lines: str) -> None:
    """Print a result as JSON, or in these lines."""
    if as_json:
        print_json({"schema": schema, **content})
    else:
        print(*map(printable, lines), sep="\n")


def radiographs(count: int) -> str:
    return "1 radiograph" if count == 1 else f"{count:,} radiographs"


def standard_output() -> "Console":
    """Standard output for Rich. It has no colour unless it is a terminal. Texts are made printable, line by line."""
    from rich.console import Console

    class PrintableConsole(Console):
        def render_str(self, text: str, **options: Any) -> "Text":
            return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return PrintableConsole(
        width=PIPE_WIDTH if piped else None, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def bare_table(*headings: str) -> "Table":
    """A table without lines. Long cells are folded, not cut; texts are made printable."""
    from rich.table import Table

    class PrintableTable(Table):
        def add_row(self, *cells: "RenderableType | None", **options: Any) -> None:
            super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    table = PrintableTable(
        box=None, show_header=any(headings), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; gives the function to call with (done, total).

    Nothing is drawn, and Rich is not imported, unless stderr is a terminal.
    """
    with stages(title) as show:
        yield lambda done, total: show(title, done, total)


@contextmanager
def stages(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """The same for work of several stages: call with (stage, done, total). `first` is the first stage."""
    if not sys.stderr.isatty():
        yield lambda title, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(first, total=None)

        def advance(title: str, done: int, total: int) -> None:
            if bar.tasks[0].description != title:
                bar.reset(task, description=title)
            bar.update(task, completed=done, total=total)

        yield advance


def require_writable(*files: Path | None) -> None:
    """Raise OutputError before the long work if a file cannot be written, or if two of the files are the same."""
    named = [file for file in files if file is not None]
    for file in named:
        if file.is_dir():
            raise OutputError(f"{file} is a folder; name a file in it")
        if not file.absolute().parent.is_dir():
            raise OutputError(f"{file} cannot be written: there is no folder {file.parent}; make it first")
    if len({os.path.realpath(file) for file in named}) < len(named):
        raise OutputError("two results would be written to the same file; name another file for one of them")


def require_ending(endings: Sequence[str], *files: Path | None) -> None:
    """Raise OutputError if a file that is named has another ending; devices and pipes may have any name."""
    for file in files:
        if file is not None and file.suffix.lower() not in endings and (file.is_file() or not file.exists()):
            raise OutputError(f"{file} does not end in {' or '.join(endings)}, but that is what is written; rename it")


def require_apart(file: Path, read: Iterable[Path]) -> None:
    """Raise OutputError if a result would replace a file that is read, or a file in a folder that is read."""
    target = Path(os.path.realpath(file))  # unlike `resolve`, this survives links in a circle
    sources = [Path(os.path.realpath(source)) for source in read]
    if any(source == target or (file.exists() and source == target.parent) for source in sources):
        raise OutputError(f"{file} is a radiograph of the query; name another file for the result")


def write_file(file: Path, text: str, *, mark: bool = False) -> None:
    """Write a file, with a byte order mark or without, and say so on stderr. Raises OutputError."""
    text = f"\ufeff{text}" if mark else text
    try:
        write_whole(file, text.encode("utf-8", "replace"))  # a file's name need not be Unicode
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    note(f"Wrote {file}")
