"""`mura-search dicomweb`: asks about a study of an archive, and stores the answer where that is wanted."""

from typing import Annotated

import typer

from cli.options.common import AsJson, SearchOptions, index_searcher
from cli.options.dicom import ResultOptions, open_archive
from cli.query import show

__all__ = ["dicomweb"]


def dicomweb(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The DICOMweb server, such as https://HOST/dicom-web. MURA_SEARCH_DICOMWEB_TOKEN may hold a token.",
        ),
    ],
    study: Annotated[str, typer.Option(metavar="UID", help="The Study Instance UID.")],
    search: SearchOptions,
    results: ResultOptions,
    as_json: AsJson = False,
) -> None:
    """Ask about a study of a DICOMweb archive. Its radiographs are removed from this machine afterwards."""
    from retrieval.dicom.results import renamed, search_for_archive
    from retrieval.dicom.scratch import scratch_folder
    from retrieval.errors import DicomResultError, RadiographError
    from retrieval.query import Scope

    source = open_archive(url, results.dicomweb_tls)
    target = results.open()
    with index_searcher(search.index) as searcher, scratch_folder() as scratch:
        files = sorted(source.fetch(study, scratch))
        if not files:
            raise RadiographError(f"{source.url} has no radiograph of this study; check its Study Instance UID")
        names = {str(file): f"image {number}" for number, file in enumerate(files, start=1)}
        try:
            result = search_for_archive(
                searcher, files, Scope(**search.arguments), heatmap=search.heatmap, one_study=search.one_study
            )
        except (RadiographError, DicomResultError) as error:
            message = str(error)  # it names a file that is removed now
            for file, name in names.items():
                message = message.replace(file, name)
            raise type(error)(message) from None
    show(renamed(result.answer, names), as_json)
    results.deliver(result.instances, target)
