"""Similar studies: what a search found, with the records of the cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.atomic import VECTORS
from index.case import Case
from index.errors import IndexDamaged
from index.generation import Generation
from index.sqlite.reader import CaseReader
from index.vectors.study_search import Neighbour

if TYPE_CHECKING:
    from index.milvus.sync import RemoteGeneration

__all__ = ["Hit", "read_hits"]

REMEMBERED = 50_000  # cases that are kept in memory after they were shown


@dataclass(frozen=True, slots=True)
class Hit:
    """A similar study: the cosine similarity, -1 to 1 to within rounding, of its nearest case."""

    similarity: float
    case: Case


def read_hits(
    searched: "Generation | RemoteGeneration",
    answers: Sequence[Sequence[Neighbour]],
    number: int | None,
    database: CaseReader,
) -> list[list[Hit]] | None:
    """The hits of each query, from what the search of a generation gave; None if the index has a later one by now.

    number: of the generation that cases.sqlite gave when the search last asked it; None if it did not ask. Raises
    IndexDamaged if a case is missing.
    """
    cases = _cases(searched, [row for answer in answers for _, row in answer], number, database)
    if cases is None:
        return None
    remaining = iter(cases)
    return [[Hit(similarity, next(remaining)) for similarity, _ in answer] for answer in answers]


def _cases(
    searched: "Generation | RemoteGeneration", rows: Sequence[int], number: int | None, database: CaseReader
) -> list[Case] | None:
    known = {row: case for row in rows if (case := searched.shown.get(row)) is not None}  # another thread may clear it
    missing = [row for row in rows if row not in known]
    records: dict[int, Case] = {}
    if missing:
        number, records = database.records(missing)
    elif number is None:
        number = database.generation()
    if number != searched.number:
        return None
    if missing:
        if len(records) < len(set(missing)):
            raise IndexDamaged(f"{database.path} is damaged: it lacks a case that {VECTORS} has; build it again")
        known |= records
        searched.shown.update(records)
        if len(searched.shown) > REMEMBERED:
            searched.shown.clear()
    return [known[row] for row in rows]
