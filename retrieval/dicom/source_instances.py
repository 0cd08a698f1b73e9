"""The patient and the study of a query's DICOM files.

A result belongs to both. It copies the attributes of the Patient and General Study modules (PS3.3, C.7.1.1 and C.7.2.1)
that are read here, and no others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any, BinaryIO

from retrieval.errors import DicomResultError, MissingExtra
from retrieval.images.dicom_header import DicomError, text
from retrieval.images.dicom_reader import read_elements
from retrieval.images.radiograph import MAX_BYTES, file_and_frame, is_dicom

try:
    from pydicom import Dataset
except ImportError as error:
    raise MissingExtra(error.name or "pydicom", "dicom") from error

__all__ = ["UID", "InvalidUid", "Origin", "identifying_header", "read_origin", "read_origins"]

_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_OPTIONAL = (
    *("IssuerOfPatientID", "PatientBirthTime", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("StudyDescription", "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio"),
    *("LossyImageCompressionMethod", "Laterality"),
)
_READ = (
    *(*_PATIENT, *_STUDY, *_OPTIONAL),
    *("SpecificCharacterSet", "DeidentificationMethodCodeSequence", "ImageLaterality"),
)
_FORMS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "PatientBirthTime": r"\d{2}|\d{4}|\d{6}(\.\d{1,6})?",
    "StudyTime": r"\d{2}|\d{4}|\d{6}(\.\d{1,6})?",
    "PatientSex": "[MFO]",
    "PatientIdentityRemoved": "YES|NO",
    "BurnedInAnnotation": "YES|NO",
    "Laterality": "[LR]",
    "LossyImageCompression": "0[01]",
    "LossyImageCompressionRatio": r"\d{1,9}(\.\d{1,6})?(\\\d{1,9}(\.\d{1,6})?)*",
}
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")


class InvalidUid(DicomError):
    """A UID is missing or invalid, so that nothing can refer to the radiograph. `keyword` is its name."""

    def __init__(self, keyword: str) -> None:
        super().__init__(f"has no valid {keyword}; export it again")
        self.keyword = keyword


@dataclass(frozen=True, slots=True)
class Origin:
    """One view of a query: its file, its frame (0 if the file has only one), and its header's elements."""

    file: str
    frame: int
    header: Any = field(repr=False)


def read_origins(views: Sequence[str]) -> list[Origin]:
    """The origins of a query's views, named as `Query.files` names them.

    Raises DicomResultError, which names a file and nothing of its header: for a file that is not DICOM, has no valid
    UIDs, or is of another study or patient than the first.
    """
    origins = []
    for view in views:
        path, frame = file_and_frame(Path(view))
        try:
            if not (path.is_file() and is_dicom(path)):
                raise DicomResultError(f"{view} is not a DICOM file; a DICOM result needs a study to belong to")
            origins.append(Origin(view, frame or 0, read_origin(path)))
        except DicomError as error:
            raise DicomResultError(f"{view} {error}") from None
        except OSError as error:
            raise DicomResultError(f"{view} cannot be read: {error.strerror or error}") from error
    first = origins[0]
    for origin in origins[1:]:
        for keyword, level in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
            if origin.header.get(keyword) != first.header.get(keyword):
                raise DicomResultError(
                    f"{origin.file} is of another {level} than {first.file}; a result belongs to one: ask about each"
                )
    return origins


def read_origin(path: Path) -> Any:
    """What `identifying_header` gives of a file. Raises DicomError, OSError."""
    with path.open("rb") as file:
        return identifying_header(file)


def identifying_header(file: BinaryIO) -> Any:
    """A new Dataset of a radiograph's identifying elements, in Unicode; invalid values are empty.

    Raises InvalidUid for a UID that cannot be referred to, DicomError for what is not a readable radiograph.
    """
    ds = read_elements(file, _READ, MAX_BYTES)
    clean = Dataset()
    clean.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = text(ds, keyword)
        if not UID.fullmatch(value):
            raise InvalidUid(keyword)
        setattr(clean, keyword, value)
    for keyword in _PATIENT + _STUDY + _OPTIONAL:
        value = _value(ds, keyword)
        if value or keyword not in _OPTIONAL:
            setattr(clean, keyword, value)
    if (side := text(ds, "ImageLaterality")) in ("L", "R"):
        clean.Laterality = side
    if clean.get("PatientIdentityRemoved") == "YES" and (codes := ds.get("DeidentificationMethodCodeSequence")):
        clean.DeidentificationMethodCodeSequence = codes
    return clean


def _value(ds: Any, keyword: str) -> str:
    """An element as text; "" if the standard does not allow its value."""
    try:
        value = ds.get(keyword)
        several = value is not None and not isinstance(value, str | bytes) and hasattr(value, "append")
        value = "\\".join(map(str, value)) if several else text(ds, keyword)
        form = _FORMS.get(keyword)
        if (form and not re.fullmatch(form, value)) or (keyword.endswith("Name") and "\\" in value):
            return ""
        if keyword.endswith("Date") and value:
            date(int(value[:4]), int(value[4:6]), int(value[6:8]))
        if keyword.endswith("Time") and value:
            time(int(value[:2]), int(value[2:4] or 0), int(value[4:6] or 0))
    except (ValueError, TypeError, OverflowError):  # such as a ratio that is not a number, or 30 February
        return ""
    return str(value)
