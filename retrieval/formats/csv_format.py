"""Tables: results as rows, and rows as CSV that a spreadsheet does not calculate.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and names come from files that anybody may have
written (CWE-1236). Such a text gets an apostrophe in front, which spreadsheets take for "this is text". The same holds
behind a semicolon, a tab and a line feed, where a spreadsheet of another language may begin a cell.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from retrieval.formats.data_frames import frame_of
from retrieval.wording import printable

if TYPE_CHECKING:
    from retrieval.formats.data_frames import DataFrame

__all__ = ["Row", "Tabular", "records_table", "safe_text", "table", "unsafe_text"]

_SIGNS = "=+@\uff1d\uff0b\uff0d\uff20-"  # also as a Japanese keyboard types them
_BEGINNINGS = rf"(?:^{{0}}(?='*[\t\r\n{_SIGNS}])|(?<=[;\t\r\n]){{0}}(?='*[{_SIGNS}]))"
_FORMULA, _SAFE = (_BEGINNINGS.format(mark) for mark in ("", "'"))

NOTEBOOK_ROWS = 20
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

    def to_frame(self) -> "DataFrame":
        """The table as a pandas DataFrame. Raises MissingExtra without the extra `analysis`."""
        return frame_of(self.rows(), self.columns.split())

    def _repr_html_(self) -> str:
        """The table for a notebook: its title, and the first rows."""
        rows, names = list(self.rows()), self.columns.split()
        shown = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
        cells = ["".join(f"<td>{_html(row.get(name))}</td>" for name in shown) for row in rows[:NOTEBOOK_ROWS]]
        head = "".join(f"<th>{_html(name)}</th>" for name in shown)
        more = f"<p>{len(rows) - NOTEBOOK_ROWS:,} more; to_frame() has all.</p>" if len(rows) > NOTEBOOK_ROWS else ""
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>{_html(self.title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    @property
    def title(self) -> str:
        """What the table is, in one sentence."""
        raise NotImplementedError


def table(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, each ended by a line feed; texts are safe in a spreadsheet."""
    return _written([safe_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def safe_text(text: str) -> str:
    """The text with an apostrophe before each start of a formula.

    >>> [safe_text(text) for text in ("=1+2", "-5", "a;@SUM(1)", "a-b", "'=1")]
    ["'=1+2", "'-5", "a;'@SUM(1)", 'a-b', "''=1"]
    """
    return re.sub(_FORMULA, "'", text)


def unsafe_text(text: str) -> str:
    """The text that `safe_text` made safe, to be read back.

    >>> unsafe_text(safe_text("'=1;-2"))
    "'=1;-2"
    """
    return re.sub(_SAFE, "", text)


def records_table(rows: Iterable[Row], columns: str) -> str:
    """A header and the rows as CSV: six decimals, yes or no for a bool, nothing for None."""
    names = columns.split()
    return _written([names, *([_cell(row.get(name)) for name in names] for row in rows)])


def _html(value: object) -> str:
    from html import escape

    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return escape(printable(f"{value:.3f}" if isinstance(value, float) else str(value)))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}"
    return safe_text(value) if isinstance(value, str) else value


def _written(rows: Iterable[Sequence[object]]) -> str:
    import csv  # a query, whose answer is a table too, need not wait for it
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
