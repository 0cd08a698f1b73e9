"""The cases of an index as a table: `IndexTable.open("my-index").to_frame()`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from index.case import Case
from index.reader import IndexReader
from retrieval.formats.csv_format import Row, Tabular
from retrieval.searcher import default_index

__all__ = ["IndexTable"]


@dataclass(frozen=True, slots=True)
class IndexTable(Tabular):
    """The cases of an index in the order in which they were added, as `mura-search index list` shows them."""

    columns: ClassVar = "case label part view study patient laterality split path digest"

    path: Path
    cases: tuple[Case, ...]

    @classmethod
    def open(cls, index: Path | str | None = None) -> Self:
        """The cases of the index at a path, or of the default index. Raises IndexFailure."""
        path = default_index() if index is None else Path(index)
        with IndexReader.open(path) as reader:
            return cls(path, tuple(reader.cases()))

    @property
    def title(self) -> str:
        return (
            f"{len(self.cases):,} radiographs of {len({case.study for case in self.cases}):,} studies in {self.path}."
        )

    def rows(self) -> list[Row]:
        names = self.columns.split()
        return [{name: getattr(case, name) for name in names} | {"label": case.label_name} for case in self.cases]
