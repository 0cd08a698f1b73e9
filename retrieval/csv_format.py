"""The cells of CSV tables; a missing value is an empty cell."""

import csv
import io
from collections.abc import Iterable, Sequence

__all__ = ["call", "number", "table", "yes"]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def call(abnormal: bool | None) -> str:
    return {True: "abnormal", False: "normal", None: ""}[abnormal]


def yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def table(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, each ended by a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
