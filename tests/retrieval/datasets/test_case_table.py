from collections.abc import Callable
from pathlib import Path

import pytest

from index.case import Case
from retrieval.datasets.case_table import read_lesions
from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError

Write = Callable[..., Path]


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


def read(table: Path) -> Collection:
    found = read_collection(table)
    assert found.layout == "csv"
    assert found.root == table.parent
    return found


def refusal(table: Path) -> str:
    with pytest.raises(CollectionError) as caught:
        read_collection(table)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_all_columns(write: Write) -> None:
    table = write(
        "path,label,patient,study,part,view,split,age",
        "a.png,abnormal,P1,S1,Finger,Lateral,Train,60",
        "b.png,normal,P2,S2,hand,,valid,",
    )
    found = read(table)
    folder = table.parent
    assert found.cases == (
        Case("a.png", "S1", "P1", 1, "finger", "lateral", "train", f"{folder}/a.png"),
        Case("b.png", "S2", "P2", 0, "hand", "", "valid", f"{folder}/b.png"),
    )
    assert found.notes == ()


def test_path_and_label_alone(write: Write) -> None:
    found = read(write("label,path", "1,a.png", "0,b.png"))
    assert [(case.study, case.patient, case.label) for case in found.cases] == [
        ("a.png", "a.png", 1),
        ("b.png", "b.png", 0),
    ]
    assert found.notes[0].startswith("rows that name no study: 2 of 2; each radiograph counts as one study")
    assert found.notes[1].startswith(
        "radiographs that name no patient: 2 of 2; each of their studies counts as one patient"
    )


def test_a_study_without_a_patient_is_one_patient(write: Write) -> None:
    found = read(write("path,label,study,patient", "a.png,0,S1,", "b.png,0,S1,", "c.png,0,S2,P"))
    assert [case.patient for case in found.cases] == ["S1", "S1", "P"]
    assert [note.split(":")[0] for note in found.notes] == ["radiographs that name no patient"]


@pytest.mark.parametrize(
    ("label", "want"),
    [("normal", 0), ("NEGATIVE", 0), (" 0", 0), ("Abnormal ", 1), ("positive", 1), ("1", 1)],
)
def test_labels(write: Write, label: str, want: int) -> None:
    assert read(write("path,label", f"a.png,{label}")).cases[0].label == want


def test_as_spreadsheets_write_it(write: Write) -> None:
    """A byte order mark, capitals, spaces, quotes, empty lines, and rows that end with their last value."""
    lines = (" Path ,LABEL,View,Patient", '"a.png",normal,"x, y; z"', "", ",,,", "b.png, 1 ")
    cases = read(write(*lines, encoding="utf-8-sig")).cases
    assert [(case.case, case.label, case.view) for case in cases] == [("a.png", 0, "x, y; z"), ("b.png", 1, "")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(write: Write, separator: str) -> None:
    case = read(write(separator.join(("path", "label", "view")), separator.join(("a.png", "1", "ap, left")))).cases[0]
    assert (case.case, case.label, case.view) == ("a.png", 1, "ap, left")


def test_where_paths_lead(write: Write, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    written = write("path,label", f"{tmp_path}/a.png,0", "../b.png,1", "deep/../c.png,1")
    (tmp_path / "tables/c.png").touch()
    cases = read(written.rename(tmp_path / "tables/t.csv")).cases
    assert [case.path for case in cases] == [f"{tmp_path}/a.png", f"{tmp_path}/b.png", f"{tmp_path}/tables/c.png"]
    assert [case.case for case in cases] == [f"{tmp_path}/a.png", "../b.png", "c.png"]


def test_a_column_missing(write: Write) -> None:
    assert "has no column 'label'; its first line must name its columns" in refusal(write("path,abnormal", "a.png,1"))
    assert "has no column 'path'" in refusal(write("a.png,1"))
    assert "has no column 'path'" in refusal(write())


def test_labels_that_are_none(write: Write) -> None:
    table = write("path,label", "a.png,fracture", "b.png,1", "c.png,", "d.png,2", "e.png,3", "f.png,4", "g.png,0.0")
    wanted = "labels other than normal, abnormal, 0, 1, positive, negative"
    assert wanted in refusal(table)
    assert refusal(table).endswith(
        "line 2 has 'fracture', line 4 has '', line 5 has '2', line 6 has '3', line 7 has '4' and 1 more"
    )


def test_paths_that_do_not_exist(write: Write) -> None:
    table = write("path,label", *(f"{name}.png,1" for name in ("a", "n", "o", "p", "q", "r", "s")))
    assert "names 6 of 7 radiographs that do not exist: n.png, o.png, p.png, q.png, r.png and 1 more" in refusal(table)


def test_rows_that_are_none(write: Write) -> None:
    assert "line 2 has 3 values for 2 columns" in refusal(write("path,label", "a.png,1,smith, john"[:-6]))
    assert "has rows without a path: line 3" in refusal(write("path,label", "a.png,1", ",1"))
    assert "lists 1 radiographs more than once: a.png" in refusal(write("path,label", "a.png,1", "./a.png,1"))
    assert "holds no radiographs" in refusal(write("path,label"))


def test_a_study_of_two_labels_or_patients(write: Write) -> None:
    table = write("path,label,study,patient", "a.png,1,S,P", "b.png,0,S,P")
    assert "study S has two labels: a.png is abnormal, b.png normal" in refusal(table)
    table = write("path,label,study,patient", "a.png,1,S,P", "b.png,1,S,Q")
    assert "study S has two patients: a.png is of P, b.png of Q" in refusal(table)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_no_utf8(write: Write, encoding: str) -> None:
    assert "is not a CSV table in UTF-8" in refusal(write("path,label,view", "a.png,1,schräg", encoding=encoding))


def test_a_quote_left_open(write: Write) -> None:
    assert "is not a CSV table in UTF-8: unexpected end of data" in refusal(write("path,label", '"a.png,1', "b.png,1"))


def test_kinds_of_lesions_are_named_by_case(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("path;lesion\na/1.png; Fracture\na/2.png;\n./b.png;cyst\n;cyst\n", encoding="utf-8")
    assert read_lesions(table) == {"a/1.png": "fracture", "b.png": "cyst"}
    table.write_text("path,label\na/1.png,1\n", encoding="utf-8")
    assert read_lesions(table) == {}
