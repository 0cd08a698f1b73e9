"""One indexed radiograph with its record."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of

__all__ = [
    "ABNORMAL",
    "FIELDS",
    "LABEL_NAMES",
    "NORMAL",
    "TEXTS",
    "Case",
    "Where",
    "as_text",
    "corrected",
    "difference",
    "prefixed",
    "require_filter",
    "same_file",
]

NORMAL, ABNORMAL = 0, 1
LABEL_NAMES = ("normal", "abnormal")


@dataclass(frozen=True, slots=True)
class Case:
    """A radiograph's record, as the user's table gives it.

    `case` is the path relative to the collection's folder, unique in its collection and index. `label` is that of the
    study: 1 (abnormal) or 0 (normal). `digest` is the SHA-256 of the file's bytes in hex, "" until the file was read.
    `laterality` is left, right, both or "". `finding` names what the study shows, several separated by ";". `report` is
    its report.
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
    finding: str = ""
    report: str = ""

    @property
    def label_name(self) -> str:
        return LABEL_NAMES[self.label]


Where = Mapping[str, Collection[str]]
"""Fields of `Case` to the values allowed, such as {"part": ["finger"]}; the label as "normal" or "abnormal"."""

FIELDS = tuple(field.name for field in fields_of(Case))
TEXTS = ("finding", "report")  # the last fields: no search filters by them


# The fields that a corrected record may change: not its name, and not the digest of its file.
CORRECTED = tuple(name for name in FIELDS if name not in {"case", "digest"})


def corrected(indexed: Case, given: Case) -> Case:
    """The indexed record with what is given of the same radiograph.

    An empty field is not given, and neither is a study named as its radiograph, or a patient named as the study: a
    table without these columns names them so.
    """
    values = {name: value for name in CORRECTED if (value := getattr(given, name)) != ""}
    if given.study == given.case:
        del values["study"]
    if given.patient == given.study:
        del values["patient"]
    return replace(indexed, **values)


def difference(indexed: Case, given: Case) -> str:
    """What `corrected` would change, in words; "" for nothing."""
    new = corrected(indexed, given)
    pairs = [(name, _shown(name, indexed), _shown(name, new)) for name in CORRECTED]
    return "; ".join(f"{name} is {was} in the index, {now} here" for name, was, now in pairs if was != now)


def _shown(name: str, case: Case) -> str:
    return case.label_name if name == "label" else getattr(case, name) or "empty"


def prefixed(case: Case, prefix: str) -> Case:
    """The record as a merge with a prefix stores it: the prefix is before the names of case, study and patient."""
    return replace(case, case=prefix + case.case, study=prefix + case.study, patient=prefix + case.patient)


def same_file(given: Case, indexed: Sequence[Case]) -> Case:
    """Of the indexed cases whose files have the same bytes, the one of the same name, else the first."""
    return next((case for case in indexed if case.case == given.case), indexed[0])


def require_filter(field: str, values: Collection[str]) -> None:
    """Raise ValueError for a field that no search filters by, one string for a collection, or an unknown label."""
    fields = FIELDS[: -len(TEXTS)]
    if field not in fields:
        raise ValueError(f"cases have no field {field!r} to choose by; the fields are {', '.join(fields)}")
    if isinstance(values, str):
        raise ValueError(f"the values of {field} are a collection of strings, as in [{values!r}]")
    if field == "label" and not set(values) <= set(LABEL_NAMES):
        raise ValueError(f"a label is normal or abnormal, not one of {sorted(values)}")


def as_text(name: str) -> str:
    """Replace by ? what is not valid Unicode: a file's name may hold bytes that are not UTF-8."""
    return name.encode(errors="replace").decode()
