"""Patients and studies of a case table: placeholders, what spreadsheets change, and names that look alike."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.datasets.collection import read_collection as read
from retrieval.notices import Code

Write = Callable[..., Path]


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
