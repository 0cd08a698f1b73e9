"""`mura-search QUERY...`: a study's radiographs in, the answer out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.output import require_apart, require_places, write_file
from cli.terminal import AsJson, IndexPlace, print_json

__all__ = ["query"]


def query(
    files: Annotated[list[Path], typer.Argument(metavar="QUERY", help="The views of one study, or its folder.")],
    k: Annotated[int, typer.Option("--k", min=1, metavar="N", help="How many similar studies to show.")] = 5,
    index: IndexPlace = None,
    part: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only studies of this body part; repeat for several.")
    ] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only radiographs of this view; repeat for several.")
    ] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose study this is: the patient's other studies are left out.")
    ] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw what speaks for abnormal over the radiograph, into this PNG file."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the answer as a page: pictures, heatmaps, similar studies, in this HTML file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one study: a diagnosis, and the labelled studies it rests on."""
    from retrieval.searcher import Searcher

    where = {field: values for field, values in (("part", part), ("view", view)) if values}
    if report:
        require_places(report, heatmap)
        require_apart(report, files)
    with Searcher.open(index) as searcher:
        answer = searcher.search(files, k=k, patient=patient, where=where or None, heatmap=heatmap)
        if report:
            from retrieval.answer_report import answer_report

            page = answer_report(searcher, answer, files)
            answer = replace(answer, report=str(report))
    if report:
        write_file(report, page)
    if as_json:
        print_json(answer.to_dict())
    else:
        from cli.answer import print_answer

        print_answer(answer)
