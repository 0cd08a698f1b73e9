"""Tables: results as rows, and rows as CSV that a spreadsheet does not calculate.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and names come from files that anybody may have
written (CWE-1236). Such a text gets an apostrophe in front, which spreadsheets take for "this is text". The same holds
behind a semicolon, a tab and a line feed, where a spreadsheet of another language may begin a cell.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

__all__ = ["Row", "Tabular", "records_table", "safe_text", "table", "unsafe_text"]

_SIGNS = "=+@\uff1d\uff0b\uff0d\uff20-"  # also as a Japanese keyboard types them
_BEGINNINGS = rf"(?:^{{0}}(?='*[\t\r\n{_SIGNS}])|(?<=[;\t\r\n]){{0}}(?='*[{_SIGNS}]))"
_FORMULA, _SAFE = (re.compile(_BEGINNINGS.format(mark)) for mark in ("", "'"))

Row = Mapping[str, object]
"""A line of a table by column. A missing column is empty."""


class Tabular:
    """A result that is a table too: `rows`, and the names of its columns with blanks between them."""

    __slots__ = ()
    columns: ClassVar[str]

    def rows(self) -> Iterable[Row]:
        raise NotImplementedError

    def to_csv(self) -> str:
        return records_table(self.rows(), self.columns)


def table(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, each ended by a line feed; texts are safe in a spreadsheet."""
    return _written([safe_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def safe_text(text: str) -> str:
    """The text with an apostrophe before each start of a formula.

    >>> [safe_text(text) for text in ("=1+2", "-5", "a;@SUM(1)", "a-b", "'=1")]
    ["'=1+2", "'-5", "a;'@SUM(1)", 'a-b', "''=1"]
    """
    return _FORMULA.sub("'", text)


def unsafe_text(text: str) -> str:
    """The text that `safe_text` made safe, to be read back.

    >>> unsafe_text(safe_text("'=1;-2"))
    "'=1;-2"
    """
    return _SAFE.sub("", text)


def records_table(rows: Iterable[Row], columns: str) -> str:
    """A header and the rows as CSV: six decimals, yes or no for a bool, nothing for None."""
    names = columns.split()
    return _written([names, *([_cell(row.get(name)) for name in names] for row in rows)])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}"
    return safe_text(value) if isinstance(value, str) else value


def _written(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
