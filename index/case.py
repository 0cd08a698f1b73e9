"""One indexed radiograph with its record."""

from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import fields as fields_of

__all__ = ["ABNORMAL", "FIELDS", "LABEL_NAMES", "NORMAL", "Case", "as_text", "require_filter"]

NORMAL, ABNORMAL = 0, 1
LABEL_NAMES = ("normal", "abnormal")


@dataclass(frozen=True, slots=True)
class Case:
    """A radiograph's record, as the user's table gives it.

    `case` is the path relative to the collection's folder, unique in its collection and index. `label` is that of the
    study: 1 (abnormal) or 0 (normal). `digest` is the SHA-256 of the file's bytes in hex, "" until the file was read.
    `laterality` is left, right, both or "".
    """

    case: str
    study: str
    patient: str
    label: int
    part: str = ""
    view: str = ""
    split: str = ""
    path: str = ""
    digest: str = ""
    laterality: str = ""
    series: str = ""

    @property
    def label_name(self) -> str:
        return LABEL_NAMES[self.label]


FIELDS = tuple(field.name for field in fields_of(Case))


def require_filter(field: str, values: Collection[str]) -> None:
    """Raise ValueError for an unknown field, one string instead of a collection, or an unknown label."""
    if field not in FIELDS:
        raise ValueError(f"cases have no field {field!r}; the fields are {', '.join(FIELDS)}")
    if isinstance(values, str):
        raise ValueError(f"the values of {field} are a collection of strings, as in [{values!r}]")
    if field == "label" and not set(values) <= set(LABEL_NAMES):
        raise ValueError(f"a label is normal or abnormal, not one of {sorted(values)}")


def as_text(name: str) -> str:
    """Replace by ? what is not valid Unicode: a file's name may hold bytes that are not UTF-8."""
    return name.encode(errors="replace").decode()
