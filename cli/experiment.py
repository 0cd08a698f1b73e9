"""`mura-search experiment`: a grid of training runs, compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import bare_table, note, print_json, stages, standard_output
from cli.options.common import AsJson
from cli.options.data import Cache, Layout, Part
from index.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["experiment"]

GRIDS = Path(__file__).parents[1] / "training" / "experiments" / "grids"


def included_grids() -> list[str]:
    """The names of the grids that are installed. Only their folder is listed: `training` would import torch."""
    return sorted(file.stem for file in GRIDS.glob("*.toml"))


def experiment(
    grid: Annotated[
        str,
        typer.Argument(
            metavar="GRID", help=f"A grid (TOML file), or the name of an included one: {', '.join(included_grids())}."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA", help="Collections. The first is for training and evaluation, others only for training."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Write the runs and the report to this folder.")],
    cache: Cache = None,
    part: Part = None,
    layout: Layout = None,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate each model of a grid, and write one report: Markdown, CSV and HTML.

    Runs that have a result in FOLDER are skipped. If this is interrupted, the same command continues.
    """
    try:
        from training.experiments.experiment import run_experiment
        from training.experiments.grid import grid_named, read_grid
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train") from error
    from cli.train import reporter
    from retrieval.datasets.collection import read_collection

    plan = read_grid(grid_named(grid))
    collection, *others = [
        read_collection(path, layout, part if number == 0 else None) for number, path in enumerate(data)
    ]
    with stages("training") as show:
        try:
            results = run_experiment(plan, collection, others, out, cache=cache, tell=note, report=reporter(show))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command continues") from None
    if as_json:
        print_json({"schema": "mura-search/experiment/1", "title": plan.title, "runs": results})
    else:
        print_results(results)
        print(f"The report: {out / 'report.html'}, report.md and results.csv beside it.")
    if all("error" in result for result in results):
        raise typer.Exit(1)


def print_results(results: "Sequence[Mapping[str, Any]]") -> None:
    from retrieval.evaluation.metrics import Estimate
    from retrieval.wording import estimate_text

    table = bare_table("run", "classifier", "vote", "precision at 5")
    for result in results:
        if "error" in result:
            table.add_row(result["name"], f"failed: {result['error']}")
            continue
        figures = (
            *(result["study"][by]["kappa"] for by in ("classifier", "knn")),
            result["retrieval"]["precision_at_5"],
        )
        table.add_row(result["name"], *(estimate_text(Estimate(**figure)) for figure in figures))
    out = standard_output()
    out.print("Cohen's kappa by study, with 95 % intervals by patient", style="bold")
    out.print(table)
