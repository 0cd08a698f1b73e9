"""`mura-search QUERY...`: a study's radiographs in, the answer out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import print_json, require_apart, require_ending, require_writable, write_file
from cli.options.common import AsJson, SearchOptions, index_searcher
from cli.options.dicom import ResultOptions

if TYPE_CHECKING:
    from retrieval.answer import Answer
    from retrieval.query import Images
    from retrieval.searcher import Searcher

__all__ = ["query", "show"]


def query(
    search: SearchOptions,
    results: ResultOptions,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="QUERY", help="The radiographs of one study, or its folder.", show_default=False),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Ask about this study of the index, or the study of this radiograph in it."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Search for what this rectangle of the radiograph shows, in its pixels."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the answer to this HTML file, with pictures, heatmaps and similar studies."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one study: a diagnosis, and the labelled studies it rests on.

    With --case an indexed study is the query, from its stored embeddings. Its own patient is left out.
    """
    if bool(files) == bool(case):
        raise typer.BadParameter("name the radiographs of one study, or an indexed study with --case")
    if region is not None:
        ask_region(files or [], region, search, as_json)
        return
    if report:
        require_report(report, search.heatmap, files or ())
    if case:
        ask_indexed(case, search, results, report, as_json)
        return
    images = files or []
    archive = results.open()
    instances: Sequence[Any] = ()
    with index_searcher(search.index) as searcher:
        if results.dicom_out or archive:
            from retrieval.dicom.results import search_for_archive
            from retrieval.query import Scope

            scope = Scope(**search.arguments)
            archived = search_for_archive(searcher, images, scope, heatmap=search.heatmap, one_study=search.one_study)
            answer, instances = archived.answer, archived.instances
        else:
            answer = searcher.search(images, **search.arguments, heatmap=search.heatmap, one_study=search.one_study)
        answer = with_report(searcher, answer, images, report)
    show(answer, as_json)
    if instances:
        results.deliver(instances, archive)


def require_report(report: Path, heatmap: Path | None, files: Sequence[Path]) -> None:
    """Raise unless the report can be written: as HTML, and over none of the files."""
    require_writable(report, heatmap)
    require_apart(report, files)
    require_ending([".html", ".htm"], report)


def with_report(searcher: "Searcher", answer: "Answer", images: "Images", report: Path | None) -> "Answer":
    """The answer with the name of its report, which is written if there is to be one."""
    if report is None:
        return answer
    from retrieval.reports.answer_report import answer_report

    write_file(report, answer_report(searcher, answer, images))
    return replace(answer, report=str(report))


def ask_indexed(case: str, search: SearchOptions, results: ResultOptions, report: Path | None, as_json: bool) -> None:
    """Ask about an indexed study."""
    from retrieval.search_by.indexed_study import pictures_of, search_indexed

    if results.dicom_out or results.store:
        raise typer.BadParameter("--dicom-out and --store need the study's DICOM files, not --case")
    with index_searcher(search.index) as searcher:
        answer, study = search_indexed(searcher, case, **search.arguments, heatmap=search.heatmap)
        answer = with_report(searcher, answer, pictures_of(study) if report else [], report)
    show(answer, as_json)


def ask_region(files: Sequence[Path], region: str, search: SearchOptions, as_json: bool) -> None:
    """Ask about a rectangle of one radiograph."""
    from retrieval.search_by.region import Box, search_region

    if len(files) != 1 or search.heatmap:
        raise typer.BadParameter("--region needs one radiograph, and draws no heatmap")
    try:
        box = Box.parse(region)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with index_searcher(search.index) as searcher:
        answer = search_region(searcher, list(files), box, **search.arguments)
    if as_json:
        print_json(answer.to_dict())
        return
    from cli.render_answer import print_regions

    print_regions(answer)


def show(answer: "Answer", as_json: bool) -> None:
    """Print an answer."""
    if as_json:
        print_json(answer.to_dict())
        return
    from cli.render_answer import print_answer

    print_answer(answer)
