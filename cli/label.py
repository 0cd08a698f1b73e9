"""`mura-search label DATA`: unlabelled studies in the order in which their labels teach most."""

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
from cli.options.common import AsJson, Excel, IndexFolder, index_searcher
from retrieval.wording import printable

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.worklist.label_queue import LabelQueue

__all__ = ["label"]

SHOWN = 50  # studies in the terminal; --csv and --json have all


def label(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder with the unlabelled studies.")],
    index: IndexFolder = None,
    order: Annotated[
        str, typer.Option(metavar="NAME", help="The order: disagreement, borderline, unlike or mixed.")
    ] = "disagreement",
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a case table to fill in, with one line per radiograph."),
    ] = None,
    excel: Excel = False,
    as_json: AsJson = False,
) -> None:
    """Say which unlabelled studies to label first: those whose labels teach an index most.

    Each folder with radiographs, at any depth, is one study; each file in DATA itself is one study. First come studies
    on which classifier and vote disagree; --order chooses otherwise. A study like an
    earlier one comes late. Fill in labels in the table of --csv, delete the other lines, and add it to the index with
    mura-search index add FILE.
    """
    from retrieval.worklist.label_queue import ORDERS, label_queue

    if order not in ORDERS:
        raise typer.BadParameter(f"--order is one of {', '.join(ORDERS)}, not {order}")
    require_writable(csv)
    require_ending([".csv"], csv)
    with index_searcher(index) as searcher, progress("reading") as show:
        queue = label_queue(searcher, data.resolve(), order, show)
    if csv:
        write_file(csv, queue.to_csv(), mark=excel)
    for skipped in queue.skipped:
        note(f"left out: {skipped.study}: {skipped.reason}")
    if as_json:
        print_json(queue.to_dict())
        return
    standard_output().print(table(queue))
    if len(queue.studies) > SHOWN:
        note(f"{len(queue.studies) - SHOWN:,} studies more; --csv and --json have all")


def table(queue: "LabelQueue") -> "Table":
    shown = bare_table("rank", "study", "classifier", "vote", "similarity", "why")
    for rank, queued in enumerate(queue.studies[:SHOWN], 1):
        figures = (queued.answer.classifier.probability, queued.answer.knn.probability)
        similarity = queued.answer.familiarity.similarity
        shown.add_row(
            str(rank),
            printable(queued.study),
            *("-" if figure is None else f"{figure:.2f}" for figure in figures),
            "-" if similarity is None else f"{similarity:.3f}",
            ", ".join(queued.reasons) or "-",
        )
    return shown
