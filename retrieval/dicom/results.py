"""An answer as the DICOM instances that an archive keeps with the study: a report, and a heatmap a view."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from index.atomic import write_whole
from retrieval.answer import Answer
from retrieval.dicom.secondary_capture import secondary_capture
from retrieval.dicom.source_instances import read_origins
from retrieval.dicom.structured_report import priors_of, structured_report
from retrieval.errors import OutputError
from retrieval.images.radiograph import read_frames
from retrieval.notices import Notice
from retrieval.query import EVERYTHING, Reader, Scope
from retrieval.searcher import Searcher

__all__ = [
    "ArchiveAnswer",
    "encoded",
    "read_instances",
    "renamed",
    "require_folder",
    "search_for_archive",
    "write_instances",
]


@dataclass(frozen=True, slots=True)
class ArchiveAnswer:
    """An answer and its instances: pydicom Datasets, a structured report first, then a heatmap a view."""

    answer: Answer
    instances: tuple[Any, ...] = field(repr=False)


def search_for_archive(
    searcher: Searcher,
    images: Sequence[Path],
    scope: Scope = EVERYTHING,
    *,
    heatmap: Path | None = None,
    one_study: bool = False,
    read: Reader = read_frames,
) -> ArchiveAnswer:
    """Answer as `Searcher.search` does, and make the instances.

    A similar study is referred to if the index was built with kept identifiers and its file still exists, and named by
    its pseudonym if the index has pseudonyms. Otherwise only its label and similarity are written. read: reads a file.

    Raises DicomResultError unless the views are DICOM files of one study of one patient, and what `search` raises.
    """
    from pydicom.uid import generate_uid

    answer, overlays = searcher.search_with_overlays(
        list(images), scope, heatmap=heatmap, one_study=one_study, draw=True, read=read
    )
    origins = read_origins(answer.query.files)
    kept = searcher.layout == "dicom" and not searcher.site
    report = structured_report(answer, origins, priors_of(answer.cases) if kept else None, named=bool(searcher.site))
    series = generate_uid(prefix=None)
    common = {"study": origins[0].header, "series": series, "software": report.SoftwareVersions}
    captures = [
        secondary_capture(overlay, origin, number=number, **common)
        for number, (overlay, origin) in enumerate(zip(overlays, origins, strict=True), start=1)
    ]
    return ArchiveAnswer(answer, (report, *captures))


def encoded(instance: Any, as_it_is: bool = False) -> bytes:
    """An instance as the bytes of a DICOM file; `as_it_is` keeps the faults of a received one."""
    file = BytesIO()
    instance.save_as(file, enforce_file_format=not as_it_is)
    return file.getvalue()


def require_folder(folder: Path) -> None:
    """Make the folder if it is missing. Raises OutputError if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}; name another folder") from error


def write_instances(folder: Path, instances: Sequence[Any]) -> list[Path]:
    """Write each instance as MODALITY-UID.dcm, in whole or not at all. Raises OutputError."""
    files = []
    for instance in instances:
        file = folder / f"{instance.Modality}-{instance.SOPInstanceUID}.dcm"
        try:
            write_whole(file, encoded(instance))
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
        files.append(file)
    return files


def read_instances(files: Sequence[Path]) -> list[Any]:
    """The instances that `write_instances` wrote."""
    from pydicom import dcmread

    return [dcmread(file) for file in files]


def renamed(answer: Answer, names: Mapping[str, str]) -> Answer:
    """The answer with other names for the files of its query, such as files that were fetched and then removed."""

    def new(text: Any) -> Any:
        for old, name in names.items():
            text = text.replace(old, name) if isinstance(text, str) else text
        return text

    def new_notice(notice: Notice) -> Notice:
        return replace(notice, view=new(notice.view), detail={key: new(value) for key, value in notice.detail.items()})

    return replace(
        answer,
        query=replace(answer.query, files=tuple(map(new, answer.query.files))),
        views=tuple(replace(view, file=new(view.file)) for view in answer.views),
        notices=tuple(map(new_notice, answer.notices)),
    )
