from collections.abc import Callable
from pathlib import Path

import pytest

from index.case import Case
from retrieval.datasets.case_table import parse_meanings, read_lesions
from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError
from retrieval.notices import Code

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


@pytest.mark.parametrize(
    "placeholder",
    [
        *(
            "nan",
            "N/A",
            "ANONYMOUS",
            "0",
            "#N/A",
            "-",
            "None",
            "unknown",
            "#NV",
            "Unbekannt",
            "not known",
            "-1",
            "-99.0",
        ),
        *("#NAME?", "#DIV/0!", "k. A.", "n/d", "Test Patient", "Patient^Anonymous", "sin datos", "anonimizado", "xx"),
        *("-99.0", "not applicable", "\u4e0d\u660e", "\u043d\u0435\u0438\u0437\u0432\u0435\u0441\u0442\u043d\u043e"),
    ],
)
def test_a_placeholder_is_no_patient(write: Write, placeholder: str) -> None:
    table = write("path,label,study,patient", f"a.png,1,0,{placeholder}", f"b.png,0,1,{placeholder}")
    collection = read(table)
    assert [case.patient for case in collection.cases] == ["0", "1"]
    assert [case.study for case in collection.cases] == ["0", "1"]
    details = {notice.code: notice.detail for notice in collection.notices}
    assert details[Code.PLACEHOLDERS] == {"count": 2, "names": placeholder}
    assert details[Code.WITHOUT_PATIENT] == {"count": 2, "total": 2}


@pytest.mark.parametrize(
    "other", ["M\u00fcller^J\u00f6rg ", "Mu\u0308ller^Jo\u0308rg", "\u200bM\u00fcller^J\u00f6rg\u00ad"]
)
def test_one_patient_in_several_forms_of_unicode(write: Write, other: str) -> None:
    table = write("path,label,study,patient", "a.png,1,s,M\u00fcller^J\u00f6rg", f"b.png,0,t,{other}")
    assert {case.patient for case in read(table).cases} == {"M\u00fcller^J\u00f6rg"}


@pytest.mark.parametrize(
    ("one", "two"), [("12", "12.0"), ("00012", "12"), ("P12a", "p12A"), ("P-12", "P12"), ("Doe Jane", "doe\u00a0jane")]
)
def test_patients_that_look_alike_are_named(write: Write, one: str, two: str) -> None:
    table = write("path,label,study,patient", f"a.png,1,s,{one}", f"b.png,0,t,{two}")
    (alike,) = (notice for notice in read(table).notices if notice.code == Code.ALIKE_IDENTIFIERS)
    assert alike.detail["count"] == 1
    assert one in str(alike.detail["names"])


@pytest.mark.parametrize("name", ["KA", "#12", "-12", "9999", "Noah", "Anon-17", "Test 1", "Doe", "Doe Jane", "P-1"])
def test_names_that_are_no_placeholders(write: Write, name: str) -> None:
    (case,) = read(write("path,label,study,patient", f"a.png,1,s,{name}")).cases
    assert case.patient == name


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


def test_numbers_that_a_formula_keeps(write: Write) -> None:
    table = write("path,label,patient", 'a.png,1,="00012"', 'b.png,0,"=""00013"""')
    assert [case.patient for case in read(table).cases] == ["00012", "00013"]
    table = write(
        "path,label,patient,report", "a.png,1,'00012,'12 is \"\"'", "b.png,0,O'Neil,'Quoted'", '="c.png",0,\'-7,'
    )
    assert [(case.patient, case.report) for case in read(table).cases] == [
        ("00012", '12 is ""\''),
        ("O'Neil", "'Quoted'"),
        ("-7", ""),
    ]


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("02-Jan", "Mar-03"), 2),
        (("01/02/2024", "1.2.24"), 2),
        (("2024-01-02 00:00:00", "12,0"), 2),
        (("1234567890123450", "1234567890123460"), 2),
        (("1234567890123450", "1234567890123461"), 0),
        (("Maria 12", "Oct 1234567"), 0),
        (("1-2-3", "2024-01-02"), 0),
    ],
)
def test_dates_and_rounded_numbers_are_named(write: Write, names: tuple[str, str], count: int) -> None:
    table = write("path,label,study,patient", *(f'{n}.png,1,{n},"{name}"' for n, name in zip("ab", names, strict=True)))
    details = {notice.code: notice.detail for notice in read(table).notices}
    assert details.get(Code.CHANGED_IDENTIFIERS, {"count": 0})["count"] == count


def test_numbers_that_a_spreadsheet_wrote_are_named(write: Write) -> None:
    table = write("path,label,patient", "a.png,1,1.23457E+14", "b.png,0,1.23457E+14")
    (changed,) = (notice for notice in read(table).notices if notice.code == Code.CHANGED_IDENTIFIERS)
    assert changed.detail == {"count": 1, "names": "1.23457E+14"}
    table = write("path,label,study", "a.png,1,1.23457E+14", "b.png,1,1.23457E+14")
    assert any(notice.code == Code.CHANGED_IDENTIFIERS for notice in read(table).notices)


def test_one_patient_with_most_studies_is_named(write: Write) -> None:
    folder = write("path,label").parent
    for number in range(6):
        (folder / f"{number}.png").touch()
    owners = ("p", "p", "p", "p", "q", "r")
    rows = (f"{number}.png,1,s{number},{owner}" for number, owner in enumerate(owners))
    (notice,) = read(write("path,label,study,patient", *rows)).notices
    assert (notice.code, notice.detail) == (Code.ONE_PATIENT, {"count": 4, "total": 6, "names": "p"})


def test_one_patient_with_far_more_studies_than_others_is_named(write: Write) -> None:
    folder = write("path,label").parent
    owners = ["9999"] * 20 + [f"p{number // 2}" for number in range(40)]
    for number in range(60):
        (folder / f"{number}.png").touch()
    rows = [f"{number}.png,1,s{number},{owner}" for number, owner in enumerate(owners)]
    (notice,) = read(write("path,label,study,patient", *rows)).notices
    assert (notice.code, notice.detail) == (Code.ONE_PATIENT, {"count": 20, "total": 60, "names": "9999"})
    assert not read(write("path,label,study,patient", *rows[1:])).notices


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
