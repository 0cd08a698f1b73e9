"""Which cases a search may find, written as Milvus boolean expressions."""

import itertools
from collections.abc import Collection, Mapping, Sequence

from index.case import FIELDS, LABEL_NAMES

__all__ = ["LONGEST", "expressions", "one_of", "storable"]

LONGEST = 4096  # bytes of UTF-8 in a value: what a path may have. Milvus itself would hold 65535
_AT_ONCE = 10_000  # values in a list; even of the longest, they stay below the 64 MB that a server takes in one request


def expressions(where: Mapping[str, Collection[str]] | None, patients: Collection[str] = ()) -> list[str]:
    """The cases that match `where` and are of none of the patients, as expressions no two of which share a case.

    where: field of `Case` to the values allowed, the label as "normal" or "abnormal". A field with very many values is
    split, and every part is an expression of its own; an empty list of values gives no expression, since nothing
    matches; no condition gives [""], everything. Raises ValueError for a field or label that does not exist, or where
    the values are one string.
    """
    parts = [_parts(field, values) for field, values in (where or {}).items()]
    excluded = [one_of("patient", sorted(patients), negated=True)] if patients else []
    return [" and ".join([*chosen, *excluded]) for chosen in itertools.product(*parts)]


def one_of(field: str, values: Sequence[str], *, negated: bool = False) -> str:
    """`field in ["value", ...]`, every value taken literally.

    A value that no case in Milvus can have, being too long or no Unicode, is left out.
    """
    literals = ", ".join(_literal(value) for value in values if storable(value))
    return f"{field} {'not in' if negated else 'in'} [{literals}]"


def _parts(field: str, allowed: Collection[str]) -> list[str]:
    if field not in FIELDS:
        raise ValueError(f"cases have no field {field!r}; the fields are {', '.join(FIELDS)}")
    if isinstance(allowed, str):
        raise ValueError(f"the values of {field} are a collection of strings, as in [{allowed!r}]")
    values = sorted(set(allowed))
    if field == "label":
        if not set(values) <= set(LABEL_NAMES):
            raise ValueError(f"a label is normal or abnormal, not one of {values}")
        return [f"label in {[LABEL_NAMES.index(value) for value in values]}"] if values else []
    return [one_of(field, values[start : start + _AT_ONCE]) for start in range(0, len(values), _AT_ONCE)]


def storable(value: str) -> bool:
    """Whether Milvus can hold it."""
    try:
        return len(value.encode()) <= LONGEST
    except UnicodeEncodeError:  # half of a surrogate pair, as a file name of other bytes than UTF-8 has
        return False


def _literal(value: str) -> str:
    # Milvus and Milvus Lite read these escapes alike, but not \u; all other characters stand for themselves.
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(character, escaped)
    return f'"{value}"'
