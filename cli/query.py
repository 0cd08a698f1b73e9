"""`mura-search QUERY...`: a study's radiographs in, the answer out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import print_json, require_apart, require_ending, require_writable, write_file
from cli.options.common import AsJson, SearchOptions
from cli.options.dicom import ResultOptions

if TYPE_CHECKING:
    from retrieval.answer import Answer

__all__ = ["query", "show"]


def query(
    files: Annotated[list[Path], typer.Argument(metavar="QUERY", help="The radiographs of one study, or its folder.")],
    search: SearchOptions,
    results: ResultOptions,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the answer to this HTML file, with pictures, heatmaps and similar studies."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one study: a diagnosis, and the labelled studies it rests on."""
    from retrieval.searcher import Searcher

    if report:
        require_writable(report, search.heatmap)
        require_apart(report, files)
        require_ending([".html", ".htm"], report)
    archive = results.open()
    instances: Sequence[Any] = ()
    with Searcher.open(search.index) as searcher:
        if results.dicom_out or archive:
            from retrieval.dicom.results import search_for_archive

            found = search_for_archive(searcher, files, **search.arguments)
            answer, instances = found.answer, found.instances
        else:
            answer = searcher.search(files, **search.arguments)
        if report:
            from retrieval.reports.answer_report import answer_report

            page = answer_report(searcher, answer, files)
            answer = replace(answer, report=str(report))
    if report:
        write_file(report, page)
    show(answer, as_json)
    if instances:
        results.deliver(instances, archive)


def show(answer: "Answer", as_json: bool) -> None:
    """Print an answer."""
    if as_json:
        print_json(answer.to_dict())
        return
    from cli.render_answer import print_answer

    print_answer(answer)
