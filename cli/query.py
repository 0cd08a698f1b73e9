"""`mura-search QUERY...`: a study's radiographs in, the answer out."""

from pathlib import Path
from typing import Annotated

import typer

from cli.filing import DicomOut, DicomwebTls, StoreUrl, file_instances, open_archive, show, where_of
from cli.terminal import AsJson, IndexPlace, Patient, QueryHeatmap, QueryPart, QueryView, Shown

__all__ = ["query"]


def query(
    files: Annotated[list[Path], typer.Argument(metavar="QUERY", help="The views of one study, or its folder.")],
    k: Shown = 5,
    index: IndexPlace = None,
    part: QueryPart = None,
    view: QueryView = None,
    patient: Patient = None,
    heatmap: QueryHeatmap = None,
    dicom_out: DicomOut = None,
    store: StoreUrl = None,
    dicomweb_tls: DicomwebTls = None,
    as_json: AsJson = False,
) -> None:
    """Ask about one study: a diagnosis, and the labelled studies it rests on."""
    from retrieval.searcher import Searcher

    where = where_of(part, view)
    if dicom_out is None and store is None:
        show(Searcher.open(index).search(files, k=k, patient=patient, where=where, heatmap=heatmap), as_json)
        return
    from retrieval.dicomresult import require_folder, search_for_archive

    archive = open_archive(store, dicomweb_tls) if store else None
    if dicom_out:
        require_folder(dicom_out)
    found = search_for_archive(Searcher.open(index), files, k=k, patient=patient, where=where, heatmap=heatmap)
    show(found.answer, as_json)
    file_instances(found.instances, dicom_out, archive)
