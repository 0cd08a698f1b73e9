"""Options that put answers into a folder or an archive as DICOM, and the way there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cli.console import note

__all__ = ["DicomwebTls", "ResultOptions", "open_archive"]

DicomwebTls = Annotated[
    list[str] | None,
    Option(
        "--dicomweb-tls",
        metavar="NAME=FILE",
        help="DICOMweb only: a PEM file for TLS. NAME is ca, cert or key; may be repeated.",
    ),
]


def open_archive(url: str, tls: Sequence[str] | None) -> Any:
    """The archive at a DICOMweb address. Raises BadParameter and ArchiveError."""
    from retrieval.dicom.dicomweb import WebArchive

    options = dict(pair.partition("=")[::2] for pair in tls or ())
    if not all(options.values()):
        raise typer.BadParameter("write each TLS option as NAME=FILE", param_hint="--dicomweb-tls")
    return WebArchive(url, options)


@dataclass(frozen=True)
class ResultOptions:
    """Where the results go as DICOM objects: a structured report, and a heatmap of each view."""

    dicom_out: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            help="Write the answer to this folder as DICOM: a structured report, and a heatmap of each view as a "
            "secondary capture.",
        ),
    ] = None
    store: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Send the answer to this DICOMweb server, as the same objects. MURA_SEARCH_DICOMWEB_TOKEN may hold a "
            "token.",
        ),
    ] = None
    dicomweb_tls: DicomwebTls = None

    def open(self) -> Any:
        """The archive that --store names, or None. Also checks the folder, so that no work is done in vain."""
        if self.dicom_out:
            from retrieval.dicom.results import require_folder

            require_folder(self.dicom_out)
        return open_archive(self.store, self.dicomweb_tls) if self.store else None

    def deliver(self, instances: Sequence[Any], archive: Any) -> None:
        """Write and send the instances, and say so on stderr."""
        from retrieval.dicom.results import write_instances

        if self.dicom_out:
            for file in write_instances(self.dicom_out, instances):
                note(f"Wrote {file}")
        if archive:
            archive.store(instances)
            note(f"Stored {len(instances)} results at {archive.url}")
