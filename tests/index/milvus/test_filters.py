import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.milvus.filters import LONGEST, expressions, one_of


def read_back(expression: str) -> list[str]:
    """The values of an expression by Python's rules for string literals, which has the same escapes and more."""
    values: list[str] = ast.literal_eval(expression.partition(" in ")[2])
    return values


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_every_value_is_taken_literally(values: list[str]) -> None:
    assert read_back(one_of("study", values)) == values


def test_values_that_no_case_can_have_are_left_out() -> None:
    longest = "é" * (LONGEST // 2)
    assert read_back(one_of("path", ["a", "\ud800", longest, longest + "e", ""])) == ["a", longest, ""]


def test_conditions_are_joined() -> None:
    where = {"part": ["wrist", "hand"], "label": ["abnormal"]}
    assert expressions(where, ["p2", "p1"]) == [
        'part in ["hand", "wrist"] and label in [1] and patient not in ["p1", "p2"]'
    ]
    assert expressions(None) == expressions({}) == [""]
    assert expressions({"part": [], "view": ["pa"]}) == expressions({"label": []}) == []


def test_a_long_list_is_split_into_parts_that_share_nothing() -> None:
    values = [f"s{number}" for number in range(25_000)]
    parts = [read_back(part) for part in expressions({"study": values})]
    assert len(parts) == 3
    assert sorted(value for part in parts for value in part) == sorted(values)
    assert len(expressions({"study": values, "patient": values})) == 9


@pytest.mark.parametrize(
    "where", [{"colour": ["red"]}, {"row": ["1"]}, {"part": "wrist"}, {"label": ["abnormal", "broken"]}]
)
def test_a_wrong_condition_is_refused(where: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"no field|collection of strings|normal or abnormal"):
        expressions(where)
