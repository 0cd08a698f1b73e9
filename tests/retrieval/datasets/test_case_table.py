from collections.abc import Callable
from pathlib import Path

import pytest

from index.case import Case
from retrieval.datasets.case_table import parse_meanings, read_lesions
from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError
from retrieval.notices import Code

Write = Callable[..., Path]


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
    assert found.notes[0].startswith("radiographs that name no study: 2 of 2; each counts as one study")
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
    wanted = "labels other than normal, abnormal, negative, positive, false, true, 0, 1"
    assert wanted in refusal(table)
    listed = "line 2 has 'fracture', line 4 has '', line 5 has '2', line 6 has '3', line 7 has '4'; say"
    assert listed in refusal(table)


def test_paths_that_do_not_exist(write: Write) -> None:
    table = write("path,label", *(f"{name}.png,1" for name in ("a", "n", "o", "p", "q", "r", "s")))
    collection = read(table)
    (notice,) = (notice for notice in collection.notices if notice.code == Code.MISSING_FILES)
    assert notice.detail == {"count": 6, "total": 7, "names": "n.png, o.png, p.png, q.png, r.png and 1 more"}
    assert [case.case for case in collection.cases] == [
        f"{name}.png" for name in "anopqrs"
    ]  # they are listed as missing
    table = write("path,label", "x/a.png,1", "x/b.png,1")
    assert "none of the 2 radiographs that" in refusal(table)
    assert "paths are relative to the table's folder" in refusal(table)


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


def test_neither_utf8_nor_utf16_is_windows_1252_with_a_notice(write: Write) -> None:
    collection = read(write("path;label;view", "a.png;1;schräg\x96lateral", encoding="latin-1"))
    assert collection.cases[0].view == "schräg\u2013lateral"
    assert [notice.code for notice in collection.notices if "encoding" in notice.code] == [Code.GUESSED_ENCODING]
    table = write("path,label", "a.png,1", encoding="latin-1")
    assert Code.GUESSED_ENCODING not in [notice.code for notice in read(table).notices]
    assert "is not a CSV table in UTF-8" in refusal(write("path,label,view", "a.png,1,\x81", encoding="latin-1"))


def test_bars_between_values(write: Write) -> None:
    (case,) = read(write("path|label|view", "a.png|1|PA, erect")).cases
    assert (case.label, case.view) == (1, "pa, erect")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings(write: Write, encoding: str) -> None:
    """Excel's "Unicode text" is UTF-16 with tabs."""
    (case,) = read(write("path\tlabel\tview", "a.png\t1\tschräg", encoding=encoding)).cases
    assert (case.case, case.view) == ("a.png", "schräg")


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
def test_excels_line_of_the_separator(write: Write, line: str) -> None:
    table = write(line, "path;label;part", "a.png;0,0;hand, left")
    (case,) = read(table).cases
    assert (case.label, case.part) == (0, "hand, left")
    assert "line 3 has 'x'" in refusal(write(line, "path;label", "a.png;x"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_excels_line_may_name_a_tab(write: Write, encoding: str) -> None:
    (case,) = read(write("sep=\t", "path\tlabel\tpart", "a.png\t0\thand, left", encoding=encoding)).cases
    assert (case.label, case.part) == (0, "hand, left")


def test_empty_cells_beyond_the_header_are_ignored(write: Write) -> None:
    assert [case.label for case in read(write("path,label", "a.png,1,", "b.png,0,, ")).cases] == [1, 0]
    assert [case.label for case in read(write("path,label,,", "a.png,1,,", "b.png,0,,")).cases] == [1, 0]


@pytest.mark.parametrize("name", ["label", "Label", " LABEL ", "label.1", "label_duplicated_0"])
@pytest.mark.parametrize("column", ["path", "label", "patient", "split"])
def test_two_columns_of_one_name(write: Write, column: str, name: str) -> None:
    name = name.replace("label", column).replace("Label", column.title()).replace("LABEL", column.upper())
    table = write(f"path,label,patient,split,{name}", "a.png,1,p,train,x")
    assert refusal(table).endswith(f"has more than one column '{column}'; keep the right one")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("0", 0),
        ("1", 1),
        ("0.0", 0),
        ("1.0", 1),
        ("1,0", 1),
        ("True", 1),
        ("FALSE", 0),
        ("Positive", 1),
        ("NEGATIVE", 0),
    ],
)
def test_forms_of_labels(write: Write, text: str, label: int) -> None:
    assert read(write("path;label", f"a.png;{text}")).cases[0].label == label


def test_what_labels_mean_can_be_said(write: Write) -> None:
    table = write("path,label", "a.png,Fracture", "b.png,no", "c.png,1")
    assert "--labels-are" in refusal(table)
    meanings = parse_meanings("fracture=abnormal, no=normal")
    assert [case.label for case in read_collection(table, labels_are=meanings).cases] == [1, 0, 1]
    for bad in ("fracture", "fracture=2", "=normal", ""):
        with pytest.raises(ValueError, match="is written like fracture=abnormal"):
            parse_meanings(bad)


def test_splits_by_their_usual_names(write: Write) -> None:
    given = ("train", "Training", "val", "validation", "DEV", "test", "trainset", "fold2", "")
    names = "abcdefghi"
    for name in names:
        (write("path,label").parent / f"{name}.png").touch()
    rows = (f"{name}.png,1,{split}" for name, split in zip(names, given, strict=True))
    collection = read(write("path,label,split", *rows))
    expected = ["train", "train", "valid", "valid", "valid", "test", "train", "fold2", ""]
    assert [case.split for case in collection.cases] == expected
    details = {notice.code: notice.detail for notice in collection.notices}
    assert details[Code.OTHER_SPLITS] == {"count": 1, "names": "fold2"}
    assert details[Code.WITHOUT_SPLIT] == {"count": 1, "total": 9}
    assert len(collection.select(split="Validation").cases) == 3


@pytest.mark.parametrize("patient", ["patient_id", "PatientID", "Patient ID", "Subject"])
@pytest.mark.parametrize("study", ["study_id", "StudyInstanceUID", "Study Instance UID"])
def test_other_names_of_columns(write: Write, patient: str, study: str) -> None:
    (case,) = read(write(f"path,label,{patient},{study},Body_Part", "a.png,1,p,s,Hand")).cases
    assert (case.patient, case.study, case.part) == ("p", "s", "hand")
    (case,) = read(write(f"path,label,{patient},patient,study,{study}", "a.png,1,p,q,t,s")).cases
    assert (case.patient, case.study) == ("q", "t")
    message = refusal(write(f"path,label,{patient},subject id", "a.png,1,p,q"))
    assert message.endswith("'subject id'; name one 'patient'")


def test_a_header_with_other_separators_in_a_name(write: Write) -> None:
    table = write('path;label;"remarks, if any, and so on, please"', "a.png;1;x", "b.png;0;y")
    assert [(case.case, case.label) for case in read(table).cases] == [("a.png", 1), ("b.png", 0)]


def test_blank_rows_are_ignored(write: Write) -> None:
    table = write("path,label,patient", "a.png,1,p", " ,\u00a0,\t", "", "b.png,0,q")
    assert [case.case for case in read(table).cases] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "given", ["img\\Gr\u00f6\u00dfe.PNG", "IMG/Gro\u0308\u00dfe.png", "./img//gr\u00f6\u00dfe.png"]
)
def test_paths_as_other_systems_write_them(tmp_path: Path, given: str) -> None:
    """Composed and decomposed umlauts, backslashes, another case."""
    (tmp_path / "img").mkdir()
    file = tmp_path / "img" / "Gro\u0308\u00dfe.png"
    file.touch()
    table = tmp_path / "cases.csv"
    table.write_text(f"path,label,lesion\n{given},1,fracture\n", encoding="utf-8")
    collection = read_collection(table)
    (case,) = collection.cases
    assert (case.path, case.case) == (str(file), "img/Gr\u00f6\u00dfe.png")
    assert collection.lesions() == {case.case: "fracture"}


def test_a_path_that_can_mean_two_files_is_missing(tmp_path: Path) -> None:
    for name in ("a.png", "A.png", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "cases.csv").write_text("path,label\na.PNG,1\nb.PNG,0\n", encoding="utf-8")
    (missing,) = (notice for notice in read_collection(tmp_path).notices if notice.code == Code.MISSING_FILES)
    assert missing.detail["names"] == "a.PNG"


def test_a_quote_left_open(write: Write) -> None:
    assert "is not a CSV table in UTF-8, UTF-16 or Windows-1252: unexpected end of data" in refusal(
        write("path,label", '"a.png,1', "b.png,1")
    )


def test_kinds_of_lesions_are_named_by_case(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("path;lesion\na/1.png; Fracture\na/2.png;\n./b.png;cyst\n;cyst\n", encoding="utf-8")
    assert read_lesions(table) == {"a/1.png": "fracture", "b.png": "cyst"}
    table.write_text("path,label\na/1.png,1\n", encoding="utf-8")
    assert read_lesions(table) == {}
