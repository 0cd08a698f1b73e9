"""What the commands share that put answers into an archive: their options, and the way there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import note, print_json

if TYPE_CHECKING:
    from retrieval.answer import Answer

__all__ = [
    "DicomOut",
    "DicomwebTls",
    "StoreUrl",
    "file_instances",
    "open_archive",
    "show",
    "tls_options",
    "where_of",
]

DicomOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Of DICOM: write the answer as a structured report, and a heatmap of each view as a secondary capture.",
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Of DICOM: send the same to this DICOMweb server. A token is taken from MURA_SEARCH_DICOMWEB_TOKEN.",
    ),
]
DicomwebTls = Annotated[
    list[str] | None,
    typer.Option("--dicomweb-tls", metavar="NAME=FILE", help="Of DICOMweb: ca, cert or key, each a PEM file."),
]


def tls_options(given: Sequence[str] | None) -> dict[str, str]:
    options = dict(pair.partition("=")[::2] for pair in given or ())
    if not all(options.values()):
        raise typer.BadParameter("give TLS options as NAME=FILE", param_hint="--dicomweb-tls")
    return options


def open_archive(url: str, tls: Sequence[str] | None) -> Any:
    from retrieval.dicom.dicomweb import WebArchive

    return WebArchive(url, tls_options(tls))


def show(answer: "Answer", as_json: bool) -> None:
    if as_json:
        print_json(answer.to_dict())
        return
    from cli.render_answer import print_answer

    print_answer(answer)


def file_instances(instances: Sequence[Any], folder: Path | None, archive: Any) -> None:
    """Write and send what is to be filed, and say so on stderr."""
    from retrieval.dicom.results import write_instances

    if folder:
        for file in write_instances(folder, instances):
            note(f"Wrote {file}")
    if archive:
        archive.store(instances)
        note(f"Stored {len(instances)} results at {archive.url}")


def where_of(part: list[str] | None, view: list[str] | None) -> Mapping[str, list[str]] | None:
    parts = [name.strip().lower() for name in part or ()]  # as `--part` of other commands
    where = {field: values for field, values in (("part", parts), ("view", view)) if values}
    return where or None
