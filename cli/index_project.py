"""`mura-search index project`: make the map of an index, which the page shows as the atlas."""

from dataclasses import asdict
from typing import Annotated

import typer

from cli.console import print_result, stages
from cli.options.common import AsJson, IndexFolder, index_path

__all__ = ["project"]


def project(
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tsne (extra analysis) or pca. By default tsne if it is installed."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The random seed of t-SNE.")] = 0,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make the map of an index, for the atlas of the page: studies that look alike lie close together.

    Studies that are added later have no place until the map is made again.
    """
    from retrieval.indexing.projection import METHODS, project_index

    if method not in {None, *METHODS}:
        raise typer.BadParameter(f"--method is one of {', '.join(METHODS)}, not {method}")
    with stages("placing") as show:
        made = project_index(index_path(index), method=method, seed=seed, progress=show)
    text = f"Placed {made.studies:,} studies on the map by {made.method}, in {made.seconds:.1f} s."
    print_result(as_json, "mura-search/projection/1", asdict(made), text)
