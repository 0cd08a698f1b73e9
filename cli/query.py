"""`mura-search QUERY...`: a study's radiographs in, the answer out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import AsJson, IndexPlace, Patient, QueryHeatmap, QueryPart, QueryView, Shown
from cli.files import require_apart, require_places, write_file
from cli.options.dicom import DicomOut, DicomwebTls, StoreUrl, file_instances, open_archive, show, where_of

__all__ = ["query"]


def query(
    files: Annotated[list[Path], typer.Argument(metavar="QUERY", help="The views of one study, or its folder.")],
    k: Shown = 5,
    index: IndexPlace = None,
    part: QueryPart = None,
    view: QueryView = None,
    patient: Patient = None,
    heatmap: QueryHeatmap = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the answer as a page: pictures, heatmaps, similar studies, in this HTML file."
        ),
    ] = None,
    dicom_out: DicomOut = None,
    store: StoreUrl = None,
    dicomweb_tls: DicomwebTls = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one study: a diagnosis, and the labelled studies it rests on."""
    from retrieval.searcher import Searcher

    where = where_of(part, view)
    if report:
        require_places(report, heatmap)
        require_apart(report, files)
    archive = open_archive(store, dicomweb_tls) if store else None
    if dicom_out:
        from retrieval.dicom.results import require_folder

        require_folder(dicom_out)
    instances: Sequence[Any] = ()
    with Searcher.open(index) as searcher:
        if dicom_out or archive:
            from retrieval.dicom.results import search_for_archive

            found = search_for_archive(searcher, files, k=k, patient=patient, where=where, heatmap=heatmap)
            answer, instances = found.answer, found.instances
        else:
            answer = searcher.search(files, k=k, patient=patient, where=where, heatmap=heatmap)
        if report:
            from retrieval.reports.answer_report import answer_report

            page = answer_report(searcher, answer, files)
            answer = replace(answer, report=str(report))
    if report:
        write_file(report, page)
    show(answer, as_json)
    if instances:
        file_instances(instances, dicom_out, archive)
