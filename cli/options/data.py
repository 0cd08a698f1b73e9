"""A collection to be indexed: read where it is, or fetched by DICOMweb for as long as it is needed, or to be kept."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import note, progress
from cli.options.dicom import open_archive

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection

__all__ = ["DicomwebUrl", "SomeData", "collected", "read_noted"]

SomeData = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="A MURA, FracAtlas or DICOM folder, or a CSV case table; with --dicomweb, where to keep what is fetched.",
        show_default=False,
    ),
]
DicomwebUrl = Annotated[
    str | None,
    typer.Option(
        "--dicomweb",
        metavar="URL",
        help="Fetch the studies that --labels names from this DICOMweb server. A token is taken from the environment: "
        "MURA_SEARCH_DICOMWEB_TOKEN.",
    ),
]


@contextmanager
def collected(
    data: Path | None, url: str | None, tls: Sequence[str] | None, labels: Path | None, keep_identifiers: bool
) -> Iterator[Path]:
    """The folder to read: DATA, or what the archive sends, which is removed again unless DATA says where to keep it."""
    if url is None:
        if data is None or tls:
            raise typer.BadParameter("name DATA, or an archive with --dicomweb (--dicomweb-tls needs one)")
        yield data
        return
    if labels is None:
        raise typer.BadParameter("--dicomweb needs --labels, which names the studies to fetch")
    if keep_identifiers and data is None:
        raise typer.BadParameter("with --keep-identifiers, name a folder DATA in which the radiographs are kept")
    archive = open_archive(url, tls)
    with tempfile.TemporaryDirectory(prefix="mura-search-") as scratch:
        folder = data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with progress("fetching") as show:
            for text in archive.fetch_labelled(labels, folder, show):
                note(text)
        yield folder


def read_noted(
    data: Path, layout: str | None, part: str | None, split: str | None, labels: Path | None, keep_identifiers: bool
) -> "Collection":
    """The collection, what is to be said of it said on stderr. Raises CollectionError."""
    from retrieval.datasets.collection import read_collection

    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    for text in collection.notes:
        note(text)
    return collection
