"""A query with a full header, and its answer read back from DICOM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
highdicom = pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from retrieval.dicom.results import ArchiveAnswer, write_instances  # noqa: E402  # only where they are installed

__all__ = ["FULL", "gradient", "read_back"]

FULL = {
    "PatientName": "Müller^Jürg",
    "PatientID": "Q7",
    "PatientBirthDate": "19700131",
    "PatientSex": "M",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "S1",
    "AccessionNumber": "ACC1",
    "ReferringPhysicianName": "Who^Doctor",
    "StudyDescription": "Hand, 2 views",
    "SpecificCharacterSet": "ISO_IR 100",
    "Laterality": "L",
    "BurnedInAnnotation": "NO",
}


def gradient(low: int = 40, high: int = 90) -> Any:
    return np.tile(np.linspace(low, high, 40, dtype=np.uint8), (48, 1))


def read_back(folder: Path, found: ArchiveAnswer) -> tuple[Any, list[Any]]:
    folder.mkdir()
    report, *captures = write_instances(folder, found.instances)
    return highdicom.sr.srread(report), [pydicom.dcmread(file) for file in captures]
