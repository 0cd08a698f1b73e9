"""`mura-search worklist FOLDER`: the studies of a folder in the order in which to read them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import (
    bare_table,
    note,
    print_json,
    progress,
    require_ending,
    require_writable,
    standard_output,
    write_file,
)
from cli.options.common import AsJson, Excel, IndexFolder, StudyTable, index_searcher
from retrieval.wording import DISCLAIMER, printable

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.searcher import Searcher
    from retrieval.worklist.worklist import Entry, Skipped, Worklist

__all__ = ["worklist"]


def worklist(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with the studies.")],
    index: IndexFolder = None,
    csv: StudyTable = None,
    excel: Excel = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for more studies, until Ctrl-C.")] = False,
    every: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="How often to look, and how long a file must be unchanged."),
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Rank the studies of a folder for reading: the most probably abnormal first.

    The rank is by the mean of the classifier's and the vote's probability. Each folder with radiographs, at any depth,
    is one study; each file in FOLDER itself is one study. Studies that cannot be read are listed and left out. With
    --watch each study is printed when it has come, with --json as one line of JSON, and the files of --csv and --html
    stay up to date.
    """
    from retrieval.worklist.worklist import worklist as rank_all

    require_writable(csv, html)
    require_ending([".csv"], csv)
    require_ending([".html", ".htm"], html)
    with index_searcher(index) as searcher:
        if watch:
            follow(searcher, folder, every, as_json, lambda result: write_results(result, searcher, csv, html, excel))
            return
        with progress("reading") as show:
            result = rank_all(searcher, folder, show)
        write_results(result, searcher, csv, html, excel)
    for skipped in result.skipped:
        note(f"left out: {skipped.study}: {skipped.reason}")
    if as_json:
        print_json(result.to_dict())
    else:
        print_worklist(result)


def write_results(result: "Worklist", searcher: "Searcher", csv: Path | None, html: Path | None, excel: bool) -> None:
    if csv:
        write_file(csv, result.to_csv(), mark=excel)
    if html:
        from retrieval.reports.worklist_report import worklist_report

        write_file(html, worklist_report(result, searcher))


def follow(
    searcher: "Searcher", folder: Path, every: float, as_json: bool, write: "Callable[[Worklist], None]"
) -> None:
    """Print each study when it has come, until Ctrl-C."""
    from retrieval.errors import RadiographError
    from retrieval.worklist.folder_watcher import Watch
    from retrieval.worklist.worklist import Entry, find_studies, query_study, ranked

    _, unread = find_studies(folder)  # no folder now is a mistake; one that goes away later may come back
    for skipped in unread:
        note(f"left out: {skipped.study}: {skipped.reason}")
    watch, started = Watch(folder, settle=every), time.perf_counter()
    known: dict[str, Entry | Skipped] = {}
    away = False
    note(f"watching {folder}; Ctrl-C ends it")
    try:
        while True:
            try:
                ready, gone = watch.look()
                away = False
            except (RadiographError, OSError) as error:  # a share that does not answer now may do so later
                if not away:
                    note(f"{folder} cannot be read now: {error.strerror}" if isinstance(error, OSError) else str(error))
                ready, gone, away = [], set(), True
            for name in gone:
                known.pop(name, None)
            for study in ready:
                known[study.study] = query_study(searcher, study)
                result = ranked(searcher, folder, known.values(), time.perf_counter() - started)
                print_entry(known[study.study], result, as_json)
            if ready or gone:
                write(ranked(searcher, folder, known.values(), time.perf_counter() - started))
            time.sleep(every)
    except KeyboardInterrupt:
        note(f"stopped; {sum(isinstance(entry, Entry) for entry in known.values()):,} studies were read")


def print_entry(entry: "Entry | Skipped", result: "Worklist", as_json: bool) -> None:
    """A study that has just come, in one line: its rank and its figures."""
    from retrieval.worklist.worklist import Entry

    if not isinstance(entry, Entry):
        note(f"left out: {entry.study}: {entry.reason}")
        return
    rank = result.entries.index(entry) + 1
    if as_json:
        print_json(entry.to_dict(rank), lines=True)
        return
    words = [f"{entry.mean:.2f}", call(entry), *filter(None, [mark(entry)]), entry.study]
    print(printable(f"{rank:,} of {len(result.entries):,}  {'  '.join(words)}"), flush=True)


def print_worklist(result: "Worklist") -> None:
    from retrieval.worklist.worklist import SYNTHETIC_ORDER

    out = standard_output()
    out.print(worklist_rows(result))
    out.print()
    strange = sum(entry.unfamiliar for entry in result.entries)
    if strange:
        out.print(f"{strange:,} of {len(result.entries):,} studies are unlike what is indexed.", style="yellow")
    for entry in result.entries:
        for warning in entry.warnings:
            out.print(printable(f"{entry.study}: {warning}."), style="yellow")
    if result.drift and result.drift.sentence:
        out.print(f"{result.drift.sentence}.", style="yellow")
    if result.index.synthetic:
        out.print(SYNTHETIC_ORDER, style="yellow")
    if result.skipped:
        out.print(f"{len(result.skipped):,} could not be read; look at them yourself.", style="yellow")
    model = result.model
    out.print(printable(f"Model {model.name} ({model.sha256[:8]}); {result.seconds:.1f} s."), style="dim")
    out.print(DISCLAIMER, style="dim")


def worklist_rows(result: "Worklist") -> "Table":
    table = bare_table("", "mean", "call", "classifier", "vote", "nearest", "", "study")
    for rank, entry in enumerate(result.entries, 1):
        answer = entry.answer
        nearest = f"{answer.cases[0].label} {answer.cases[0].similarity:.3f}" if answer.cases else "-"
        table.add_row(
            f"{rank:,}",
            f"{entry.mean:.2f}",
            call(entry),
            f"{answer.classifier.probability:.2f}",
            "-" if answer.knn.probability is None else f"{answer.knn.probability:.2f}",
            nearest,
            mark(entry),
            printable(entry.study),
        )
    return table


def call(entry: "Entry") -> str:
    """What both say; "undecided" where they do not agree."""
    answer = entry.answer
    return "undecided" if answer.agreement is False else "abnormal" if answer.classifier.abnormal else "normal"


def mark(entry: "Entry") -> str:
    """What qualifies a study's figures, in one word."""
    return "unfamiliar" if entry.unfamiliar else "borderline" if entry.answer.borderline else ""
