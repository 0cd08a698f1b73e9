"""Options that choose a labelled collection, and the way to read it or to fetch it by DICOMweb."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from cli.console import note, progress
from cli.options.dicom import DicomwebTls, open_archive

if TYPE_CHECKING:
    from retrieval.datasets.case_table import Meanings
    from retrieval.datasets.collection import Collection

__all__ = [
    "Cache",
    "CollectionOptions",
    "Data",
    "FetchOptions",
    "KeepBlank",
    "LabelsAre",
    "Layout",
    "Part",
    "Split",
    "meanings",
]

Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="A MURA, FracAtlas or DICOM folder, folders of labels, or a CSV case table."),
]
Layout = Annotated[
    str | None,
    Option(metavar="NAME", help="The layout of DATA, if it is not recognised: mura, fracatlas, csv, folders or dicom."),
]
Part = Annotated[str | None, Option(metavar="NAME", help="Read only this body part, such as finger.")]
Split = Annotated[str | None, Option(metavar="NAME", help="Read only this split, such as train or valid.")]
Cache = Annotated[
    Path | None,
    Option(
        metavar="FOLDER",
        help="Keep prepared radiographs here between runs. By default in the cache folder (MURA_SEARCH_CACHE).",
    ),
]


KeepBlank = Annotated[
    bool,
    Option("--keep-blank", help="Index blank radiographs as well. By default they are listed, and left out."),
]


LabelsAre = Annotated[
    str | None,
    Option(
        metavar="VALUE=LABEL,...",
        help="What other labels mean, in tables and as names of folders: fracture=abnormal,no=normal.",
    ),
]


def meanings(labels_are: str | None) -> "Meanings | None":
    """What --labels-are says. Raises BadParameter."""
    from retrieval.datasets.case_table import parse_meanings

    try:
        return parse_meanings(labels_are) if labels_are else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True)
class CollectionOptions:
    """Which part of DATA to read, and how."""

    part: Part = None
    split: Split = None
    layout: Layout = None
    labels: Annotated[
        Path | None,
        Option(
            metavar="TABLE",
            help="DICOM only: a CSV table of labels. Its columns are label, and study (Study Instance UID) or "
            "accession (Accession Number). By default it is DATA/labels.csv, or the folders normal and "
            "abnormal in DATA.",
        ),
    ] = None
    labels_are: LabelsAre = None
    keep_identifiers: Annotated[
        bool,
        Option(
            "--keep-identifiers",
            help="DICOM only: keep the names of patients, studies and files. By default pseudonyms replace them.",
        ),
    ] = False

    def read(self, data: Path, layout: str | None = None) -> "Collection":
        """The collection; `layout` counts where the user names none. Raises CollectionError."""
        from retrieval.datasets.collection import read_collection

        return read_collection(
            data,
            self.layout or layout,
            self.part,
            self.split,
            labels=self.labels,
            labels_are=meanings(self.labels_are),
            keep_identifiers=self.keep_identifiers,
        )

    def read_noted(self, data: Path, layout: str | None = None) -> "Collection":
        """The collection, with its notes on stderr."""
        collection = self.read(data, layout)
        for text in collection.notes:
            note(text)
        return collection


@dataclass(frozen=True)
class FetchOptions:
    """A collection on this disk, or one to fetch from a DICOMweb server."""

    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A MURA, FracAtlas or DICOM folder, folders of labels, or a CSV case table. With --dicomweb, the "
            "folder in which to keep the radiographs.",
            show_default=False,
        ),
    ] = None
    dicomweb: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Fetch the studies that --labels names from this DICOMweb server. MURA_SEARCH_DICOMWEB_TOKEN may hold "
            "a token.",
        ),
    ] = None
    dicomweb_tls: DicomwebTls = None

    @contextmanager
    def collection(self, options: CollectionOptions) -> "Iterator[Collection]":
        """The collection, with its notes on stderr. Without DATA, fetched radiographs are removed afterwards."""
        if self.dicomweb is None:
            if self.data is None or self.dicomweb_tls:
                raise typer.BadParameter("name DATA, or a server with --dicomweb (--dicomweb-tls needs it)")
            yield options.read_noted(self.data)
            return
        if options.labels is None:
            raise typer.BadParameter("--dicomweb needs --labels, which names the studies to fetch")
        if options.keep_identifiers and self.data is None:
            raise typer.BadParameter("--keep-identifiers needs the folder DATA, in which the radiographs are kept")
        from retrieval.dicom.scratch import scratch_folder

        archive = open_archive(self.dicomweb, self.dicomweb_tls)
        with scratch_folder() as scratch:
            folder = self.data or scratch
            folder.mkdir(parents=True, exist_ok=True)
            with progress("fetching") as show:
                for text in archive.fetch_labelled(options.labels, folder, show, meanings(options.labels_are)):
                    note(text)
            yield options.read_noted(folder, "dicom")
