"""CSV that a spreadsheet does not calculate, and that still holds what was written."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.formats.csv_format import records_table, safe_text, table, unsafe_text

SIGNS = "=+-@＝＋－＠"


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", "a;", "a\t", "a\n"])
def test_no_cell_begins_with_a_formula(sign: str, before: str) -> None:
    assert safe_text(f"{before}{sign}1") == f"{before}'{sign}1"


@pytest.mark.parametrize("text", ["a-b", "patient 1+2", "x@y", "2026-01-01", "", "a; -b", "Müller", "'quoted'"])
def test_other_texts_stay(text: str) -> None:
    assert safe_text(text) == text


@given(st.text(st.sampled_from("=+-@';\t\r\n a1＝")))
def test_a_safe_text_can_be_read_back(text: str) -> None:
    safe = safe_text(text)
    assert unsafe_text(safe) == text
    assert not safe.startswith(tuple(f"{SIGNS}\t\r\n"))


def test_numbers_stay_numbers() -> None:
    text = records_table([{"a": -0.5, "b": True, "c": None, "d": -3, "e": "=1"}, {"b": False}], "a b c d e")
    assert text == "a,b,c,d,e\n-0.500000,yes,,-3,'=1\n,no,,,\n"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1))
def test_commas_and_quotes_are_kept(cells: list[str]) -> None:
    (row,) = csv.reader(io.StringIO(table([["x", *cells]])))
    assert [unsafe_text(cell) for cell in row[1:]] == cells
