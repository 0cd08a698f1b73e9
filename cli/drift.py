"""`mura-search drift`: whether the scores of studies differ from those of the index."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import bare_table, note, print_json, progress, standard_output
from cli.options.common import AsJson, Excel, IndexFolder, ScoreTable, index_searcher
from cli.options.data import CollectionOptions, Data
from retrieval.wording import score_title

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.datasets.collection import Collection
    from retrieval.evaluation.drift import Drift

__all__ = ["drift"]


def drift(
    data: Data,
    options: CollectionOptions,
    index: IndexFolder = None,
    csv: ScoreTable = None,
    excel: Excel = False,
    as_json: AsJson = False,
) -> None:
    """Compare the scores of studies with those of the index's own studies. Labels are not needed.

    A folder without labels is read as mura-search worklist reads it. With fewer than 30 studies nothing is concluded.
    """
    from cli.console import require_ending, require_writable, write_file
    from retrieval.worklist.asked_studies import drift_of

    require_writable(csv)
    require_ending([".csv"], csv)
    asked = read_studies(data, options)
    with index_searcher(index) as searcher, progress("asking") as show:
        result, skipped = drift_of(searcher, asked, show)
    for study in skipped:
        note(f"left out: {study.study}: {study.reason}")
    if csv:
        write_file(csv, result.to_csv(), mark=excel)
    if as_json:
        content = {"skipped": [{"study": study.study, "reason": study.reason} for study in skipped]}
        print_json({"schema": "mura-search/drift/1", **result.to_dict(), **content})
    else:
        print_drift(result)


def read_studies(data: Path, options: CollectionOptions) -> "Collection | Path":
    """The labelled collection, or the folder where its layout is not recognised and no option asks for one."""
    from retrieval.errors import CollectionError

    try:
        return options.read(data)
    except CollectionError:
        if options != CollectionOptions() or not data.is_dir():
            raise
        return data


def print_drift(result: "Drift") -> None:
    out = standard_output()
    out.print(f"{result.studies:,} studies beside {result.indexed:,} of the index.\n")
    out.print(drift_table(result))
    out.print()
    if result.sentence:
        out.print(f"{result.sentence}.", style="yellow")
    elif result.enough:
        out.print("No score differs from those of the index.")
    else:
        out.print("These are too few studies to conclude anything: 30 are needed.")


def drift_table(result: "Drift") -> "Table":
    table = bare_table("score", "median", "of the index", "PSI", "KS", "chance", "")
    for comparison in result.comparisons:
        table.add_row(
            score_title(comparison.score),
            f"{comparison.median:.3f}",
            f"{comparison.indexed_median:.3f}",
            f"{comparison.psi:.2f}",
            f"{comparison.ks:.2f}",
            f"{comparison.chance:.2g}",
            "differs" if comparison.parted else "",
        )
    for name in ("classifier", "knn"):
        if name in result.abnormal and name in result.indexed_abnormal:
            shares = f"{result.abnormal[name]:.0%}", f"{result.indexed_abnormal[name]:.0%}"
            table.add_row(f"called abnormal by the {score_title(name)}", *shares, "", "", "", "")
    return table
