"""One indexed radiograph with its record."""

from dataclasses import dataclass, fields

__all__ = ["ABNORMAL", "FIELDS", "LABEL_NAMES", "NORMAL", "Case", "as_text"]

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


FIELDS = tuple(field.name for field in fields(Case))


def as_text(name: str) -> str:
    """Replace by ? what is not valid Unicode: a file's name may hold bytes that are not UTF-8."""
    return name.encode(errors="replace").decode()
