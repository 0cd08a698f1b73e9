"""`mura-search dicomweb`: a study of an archive in, the answer out, and back into the archive where that is wanted."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli.console import AsJson, IndexPlace, Patient, QueryHeatmap, QueryPart, QueryView, Shown
from cli.options.dicom import DicomOut, DicomwebTls, StoreUrl, file_instances, open_archive, show, where_of

__all__ = ["dicomweb"]


def dicomweb(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The DICOMweb server, such as https://HOST/dicom-web. A token is taken from the environment: "
            "MURA_SEARCH_DICOMWEB_TOKEN.",
        ),
    ],
    study: Annotated[str, typer.Option(metavar="UID", help="The Study Instance UID.")],
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
    """Ask about a study of an archive: fetched, answered, and removed here again."""
    from retrieval.dicom.results import renamed, require_folder, search_for_archive
    from retrieval.errors import DicomResultError, RadiographError
    from retrieval.searcher import Searcher

    source = open_archive(url, dicomweb_tls)
    target = source if store == url else open_archive(store, dicomweb_tls) if store else None
    if dicom_out:
        require_folder(dicom_out)
    searcher = Searcher.open(index)
    with tempfile.TemporaryDirectory(prefix="mura-search-") as scratch:
        files = sorted(source.fetch(study, Path(scratch)))
        if not files:
            raise RadiographError(f"{source.url} has no radiograph of such a study; check its Study Instance UID")
        names = {str(file): f"image {number}" for number, file in enumerate(files, start=1)}
        try:
            found = search_for_archive(
                searcher, files, k=k, patient=patient, where=where_of(part, view), heatmap=heatmap
            )
        except (RadiographError, DicomResultError) as error:
            said = str(error)  # which names a file that will be gone
            for file, name in names.items():
                said = said.replace(file, name)
            raise type(error)(said) from None
    show(renamed(found.answer, names), as_json)
    file_instances(found.instances, dicom_out, target)
