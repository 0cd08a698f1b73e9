"""`mura-search phantom`: synthetic finger radiographs, in MURA's layout."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import print_result, progress
from cli.options.common import AsJson, Seed

__all__ = ["phantom"]


def phantom(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    patients: Annotated[int, typer.Option(min=1, metavar="N", help="How many patients to draw.")] = 100,
    seed: Seed = 1,
    abnormal: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="The share of abnormal studies.")
    ] = 0.4,
    valid: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="The share of patients in valid/.")
    ] = 0.15,
    as_json: AsJson = False,
) -> None:
    """Draw synthetic finger radiographs, to try the program without data."""
    from retrieval.datasets.collection import read_collection
    from retrieval.synthetic.dataset import write_collection

    with progress("drawing") as show:
        write_collection(folder, patients=patients, seed=seed, abnormal=abnormal, valid=valid, progress=show)
    cases = read_collection(folder).cases
    studies = {case.study: case.label for case in cases}
    counts = {"radiographs": len(cases), "studies": len(studies), "abnormal_studies": sum(studies.values())}
    print_result(
        as_json,
        "mura-search/phantom/1",
        {"path": str(folder), "patients": patients, **counts},
        f"Drew {len(cases):,} radiographs of {len(studies):,} studies, {sum(studies.values()):,} abnormal: {folder}",
        "They are synthetic: no figure measured on them says anything about patients.",
    )
