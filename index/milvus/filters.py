"""Filters of a search as Milvus boolean expressions."""

import itertools
from collections.abc import Collection, Sequence

from index.case import LABEL_NAMES, Where, require_filter

__all__ = ["LONGEST", "expressions", "one_of", "storable"]

LONGEST = 4096  # bytes of UTF-8 in a value, as in a path; Milvus holds up to 65535
_AT_ONCE = 10_000  # values in a list; even the longest stay below the 64 MB that a server takes in one request


def expressions(where: Where | None, patients: Collection[str] = ()) -> list[str]:
    """The cases that match `where` and belong to none of the patients, as expressions that share no case.

    A field with very many values is split into several expressions. An empty list of values gives no expression, since
    nothing matches. No condition gives [""], which matches everything. Raises ValueError as `require_filter` does.
    """
    parts = [_parts(field, values) for field, values in (where or {}).items()]
    excluded = [one_of("patient", sorted(patients), negated=True)] if patients else []
    return [" and ".join([*chosen, *excluded]) for chosen in itertools.product(*parts)]


def one_of(field: str, values: Sequence[str], *, negated: bool = False) -> str:
    """`field in ["value", ...]`, every value taken literally.

    A value that Milvus cannot hold is left out.
    """
    literals = ", ".join(_literal(value) for value in values if storable(value))
    return f"{field} {'not in' if negated else 'in'} [{literals}]"


def _parts(field: str, allowed: Collection[str]) -> list[str]:
    require_filter(field, allowed)
    values = sorted(set(allowed))
    if field == "label":
        return [f"label in {[LABEL_NAMES.index(value) for value in values]}"] if values else []
    return [one_of(field, values[start : start + _AT_ONCE]) for start in range(0, len(values), _AT_ONCE)]


def storable(value: str) -> bool:
    """Whether Milvus can hold the text: valid Unicode of at most `LONGEST` bytes."""
    try:
        return len(value.encode()) <= LONGEST
    except UnicodeEncodeError:  # half of a surrogate pair, as in a file name that is not UTF-8
        return False


def _literal(value: str) -> str:
    # Milvus and Milvus Lite read these escapes alike, but not \u; all other characters stand for themselves.
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(character, escaped)
    return f'"{value}"'
