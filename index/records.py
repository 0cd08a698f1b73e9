"""The case records of an index in memory, and which of them a search may find."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case
from index.database import Row

__all__ = ["FIELDS", "Records"]

FIELDS = tuple(field.name for field in fields(Case))


@dataclass(frozen=True, slots=True)
class _Column:
    """A field of all cases. `ranks` has each case's value as its place among the distinct values in sorted order."""

    ranks: NDArray[np.int64]
    places: dict[str, int]

    def one_of(self, values: Collection[str]) -> NDArray[np.bool_]:
        chosen = np.zeros(len(self.places) + 1, dtype=np.bool_)
        chosen[[self.places[value] for value in values if value in self.places]] = True
        return chosen[self.ranks]


class Records:
    """N case records by position, 0 to N-1 in row order."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._columns: dict[str, _Column] = {}
        self.studies = self._column("study").ranks  # (N,) one number a study, in the order of the studies' texts

    def __len__(self) -> int:
        return len(self._rows)

    def case(self, position: int) -> Case:
        return Case(*self._rows[position][1:-2])

    def cases(self) -> list[Case]:
        return [Case(*row[1:-2]) for row in self._rows]

    def logits(self) -> NDArray[np.float32]:
        return np.array([row[-2] for row in self._rows], dtype=np.float32)

    def find(self, field: str, value: str) -> list[int]:
        """The positions of the cases with this value."""
        column = self._column(field)
        return np.flatnonzero(column.one_of([value])).tolist() if value in column.places else []

    def row(self, position: int) -> int:
        """The row in cases.sqlite."""
        number: int = self._rows[position][0]
        return number

    def counts(self, field: str) -> dict[str, int]:
        """How many cases have each value of the field, in the values' order."""
        column = self._column(field)
        return dict(zip(column.places, np.bincount(column.ranks, minlength=len(column.places)).tolist(), strict=True))

    def matching(self, where: Mapping[str, Collection[str]]) -> NDArray[np.bool_]:
        """(N,) True where every field named has one of its allowed values; the label is "normal" or "abnormal".

        Raises ValueError for a field or label that does not exist, or where the values are one string.
        """
        found = np.ones(len(self), dtype=np.bool_)
        for field, allowed in where.items():
            if field not in FIELDS:
                raise ValueError(f"cases have no field {field!r}; the fields are {', '.join(FIELDS)}")
            if isinstance(allowed, str):
                raise ValueError(f"the values of {field} are a collection of strings, as in [{allowed!r}]")
            if field == "label" and not set(allowed) <= set(LABEL_NAMES):
                raise ValueError(f"a label is normal or abnormal, not one of {sorted(allowed)}")
            found &= self._column(field).one_of(allowed)
        return found

    def _column(self, field: str) -> _Column:
        if field not in self._columns:
            at = 1 + FIELDS.index(field)
            values = [LABEL_NAMES[row[at]] if field == "label" else row[at] for row in self._rows]
            places = {value: place for place, value in enumerate(sorted(set(values)))}
            ranks = np.fromiter(map(places.__getitem__, values), dtype=np.int64, count=len(values))
            self._columns[field] = _Column(ranks, places)
        return self._columns[field]
