"""What the tests of DICOM folders share, and those of case tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import grey_square

Write = Callable[..., Path]


@pytest.fixture
def put(write_dicom: Write) -> Write:
    """Writes a plain square of the archive: `put("a/1", 200, study="1.2", patient="P")`."""

    def write(name: str, brightness: int, *, study: str, patient: str = "P", **elements: Any) -> Path:
        pixels = grey_square(brightness)
        return write_dicom(f"archive/{name}", pixels, StudyInstanceUID=study, PatientID=patient, **elements)

    return write


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., Path]:
    """Writes the table of labels, a row a text."""

    def write(*rows: str, columns: str = "study,label", name: str = "archive/labels.csv") -> Path:
        (tmp_path / name).write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def archive(put: Write, label: Callable[..., Path], tmp_path: Path) -> Path:
    """Four studies of three patients in nested folders, among other things."""
    put("DOE^JANE/IM1", 20, study="1.1", patient="A", BodyPartExamined="HAND", ViewPosition="PA", Laterality="L")
    put("DOE^JANE/IM2", 25, study="1.1", patient="A", BodyPartExamined="HAND", ViewPosition="LL")
    put("DOE^JANE/later/IM1", 210, study="1.2", patient="A", BodyPartExamined="WRIST")
    put("x/y/z.dcm", 230, study="1.3", patient="B", AccessionNumber="ACC")
    put("w/1.2.840.1", 40, study="1.4", patient="C")
    label("1.1,normal,", "1.2,abnormal,", ",positive,ACC", "1.4,0,", columns="study,label,accession")
    return tmp_path / "archive"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table beside the empty images a.png to h.png."""

    def write_table(*lines: str, encoding: str = "utf-8") -> Path:
        for letter in "abcdefgh":
            (tmp_path / f"{letter}.png").touch()
        table = tmp_path / "my table.csv"
        table.write_bytes("\n".join(lines).encode(encoding))
        return table

    return write_table
