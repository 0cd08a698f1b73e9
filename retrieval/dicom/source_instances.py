"""What a query's own DICOM files say of patient and study: all that a result may say of them.

Results belong to the patient and the study of the radiographs that were asked about, and take over the attributes of
the Patient and General Study modules (PS3.3, C.7.1.1 and C.7.2.1) that are read here, and no others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from retrieval.errors import DicomResultError
from retrieval.images.dicom_header import DicomError, text
from retrieval.images.dicom_reader import read_elements
from retrieval.images.radiograph import MAX_BYTES, file_and_frame, is_dicom

try:
    from pydicom import Dataset
except ImportError as error:
    from retrieval.errors import MissingExtra

    raise MissingExtra(error.name or "pydicom", "dicom") from error

__all__ = ["Origin", "read_origin", "read_origins"]

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
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Origin:
    """One view that was asked about: its file, its frame (0 where the file has but one), and its header's elements."""

    file: str
    frame: int
    header: Any = field(repr=False)


def read_origins(views: Sequence[str]) -> list[Origin]:
    """The origins of a query's views, named as `Query.files` names them.

    Raises DicomResultError, which names the file and nothing of its header: where one is no DICOM, lacks what a
    reference to it needs, or is of another study or patient than the first.
    """
    origins = []
    for view in views:
        path, frame = file_and_frame(Path(view))
        try:
            known = path.is_file() and is_dicom(path)
            if not known:
                raise DicomResultError(f"{view} is no DICOM file, so there is no study that a result could be filed in")
            origins.append(Origin(view, frame or 0, read_origin(path)))
        except DicomError as error:
            raise DicomResultError(f"{view} {error}") from None
        except OSError as error:
            raise DicomResultError(f"{view} cannot be read: {error.strerror or error}") from error
    first = origins[0]
    for origin in origins[1:]:
        for keyword, what in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
            if origin.header.get(keyword) != first.header.get(keyword):
                raise DicomResultError(
                    f"{origin.file} is of another {what} than {first.file}; a result belongs to one: ask about each"
                )
    return origins


def read_origin(path: Path) -> Any:
    """A clean Dataset of one radiograph's identifying elements, in Unicode, empty where the file says nothing useful.

    Raises DicomError, OSError.
    """
    with path.open("rb") as file:
        ds = read_elements(file, _READ, MAX_BYTES)
    clean = Dataset()
    clean.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = text(ds, keyword)
        if len(value) > 64 or not _UID.fullmatch(value):
            raise DicomError(f"names no {keyword} that could be referred to; export it again")
        setattr(clean, keyword, value)
    for keyword in _PATIENT + _STUDY + _OPTIONAL:
        value = _value(ds, keyword)
        if value or keyword not in _OPTIONAL:
            setattr(clean, keyword, value)
    if (side := text(ds, "ImageLaterality")) in ("L", "R"):
        clean.Laterality = side
    if clean.get("PatientIdentityRemoved") == "YES":
        clean.DeidentificationMethodCodeSequence = ds.get("DeidentificationMethodCodeSequence") or []
        if not clean.DeidentificationMethodCodeSequence:
            del clean.DeidentificationMethodCodeSequence
    return clean


def _value(ds: Any, keyword: str) -> str:
    try:
        value = ds.get(keyword)
        several = value is not None and not isinstance(value, str | bytes) and hasattr(value, "append")
        value = "\\".join(map(str, value)) if several else text(ds, keyword)
    except (ValueError, TypeError, OverflowError):  # such as a ratio that is no number
        return ""
    form = _FORMS.get(keyword)
    if (form and not re.fullmatch(form, value)) or (keyword.endswith("Name") and "\\" in value):
        return ""
    return value if _exists(keyword, value) else ""


def _exists(keyword: str, value: str) -> bool:
    """Whether a date is one of the calendar and a time one of the day; what is neither exists."""
    try:
        if keyword.endswith("Date") and value:
            date(int(value[:4]), int(value[4:6]), int(value[6:8]))
        if keyword.endswith("Time") and value:
            time(int(value[:2]), int(value[2:4] or 0), int(value[4:6] or 0))
    except ValueError:
        return False
    return True
