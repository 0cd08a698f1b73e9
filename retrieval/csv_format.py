"""Tables: results as rows, and rows as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

__all__ = ["Row", "Tabular", "records_table", "table"]

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
    """The rows as CSV, each ended by a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def records_table(rows: Iterable[Row], columns: str) -> str:
    """A header and the rows as CSV: six decimals, yes or no for a bool, nothing for None."""
    names = columns.split()
    return table([names, *([_cell(row.get(name)) for name in names] for row in rows)])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6f}" if isinstance(value, float) else value
