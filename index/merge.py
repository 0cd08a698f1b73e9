"""Merges an index into another: which cases are new, and which are there already."""

from dataclasses import dataclass

from index.case import difference, prefixed, same_file
from index.reader import IndexReader
from index.sqlite.writer import CaseWriter

__all__ = ["Merged", "merge_cases"]


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: the number of cases added, and each other case with the case here that has the same bytes.

    differing: those of them whose records differ, each with the difference in words.
    """

    added: int
    known: list[tuple[str, str]]
    differing: list[tuple[str, str]]


def merge_cases(database: CaseWriter, source: IndexReader, prefix: str) -> Merged:
    """Add the cases of another index whose files are not indexed here, in a writing transaction.

    prefix: put before the names of case, study and patient. Raises ValueError for a case whose name is taken, and for a
    study with another label or patient.
    """
    known: list[tuple[str, str]] = []
    differing: list[tuple[str, str]] = []
    added = 0
    last = database.last()  # a file that the other index holds twice is added twice
    for batch in source.batches():
        here = database.known("digest", {case.digest for case in batch.cases} - {""}, last)
        new = []
        for n, case in enumerate(batch.cases):
            if case.digest in here:
                given = prefixed(case, prefix)
                indexed = same_file(given, here[case.digest])
                known.append((case.case, indexed.case))
                differing += [(case.case, words)] if (words := difference(indexed, given)) else []
            else:
                new.append(n)
        chosen = batch.select(new)
        cases = [prefixed(case, prefix) for case in chosen.cases]
        extras = {table: data for table, data in chosen.extras.items() if table != "projection"}
        database.insert(cases, chosen.embeddings, chosen.thumbnails, chosen.logits, extras)
        database.require_whole_studies(cases)
        added += len(new)
    if added:
        _record(database, source, prefix, added)
    return Merged(added, known, differing)


def _record(database: CaseWriter, source: IndexReader, prefix: str, added: int) -> None:
    """Note a merge in the history, its prefix, and whether the index holds synthetic radiographs from now on."""
    database.record("merge", {"cases": added}, added)
    values = database.metadata()["values"]
    if prefixes := sorted({*values.get("prefixes", []), prefix} - {""}):
        database.set_metadata(values=values | {"prefixes": prefixes})
    about = source.metadata("collection")
    if isinstance(about, dict) and about.get("synthetic"):
        database.mark_synthetic()
