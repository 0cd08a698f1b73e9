"""What can be undone: the changes that readers made, as an index keeps them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from index.sqlite.reader import CaseReader

__all__ = ["Filed", "change_of", "filed_changes"]


@dataclass(frozen=True, slots=True)
class Filed:
    """A change that can be undone. `generation` names it; `at` is in UTC.

    `action` is "file", "relabel" or "set-aside". `former` and `label` are the study's label before and after, "" for a
    study that was not indexed before or is not afterwards. `finding` is what the study shows, or "".
    `cases` is the number of its radiographs.
    """

    generation: int
    at: str
    action: str
    study: str
    former: str
    label: str
    note: str
    cases: int
    finding: str = ""


def filed_changes(database: CaseReader) -> list[Filed]:
    """The changes that can be undone, newest first."""
    entries = database.filed()
    return [change_of(generation, json.loads(entries[generation])) for generation in sorted(entries, reverse=True)]


def change_of(generation: int, entry: Mapping[str, Any]) -> Filed:
    """A change as the table `filed` keeps it."""
    names = ("at", "action", "study", "former", "label", "note")
    known = {name: entry[name] for name in names}
    return Filed(generation, cases=len(entry["names"]), finding=entry.get("finding", ""), **known)
