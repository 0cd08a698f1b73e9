"""Identifiers of patients and studies that other programs have changed: what looks wrong is named, not repaired."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from retrieval.datasets.pseudonyms import is_placeholder
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = ["identifier_notices", "look", "passed_over", "placeholder_notices"]

_MONTH = "(?:jan|feb|m[aä]r|mrz|a[pv]r|ma[iy]|ju[nl]|aug|sept?|o[ck]t|nov|de[cz])"
_CHANGED = re.compile(
    r"[+-]?\d+(?:[.,]\d+)?E[+-]?\d{1,3}|\d+[.,]0+"  # 1.23457E+14, 13.0
    rf"|\d{{1,2}}[-. /]+{_MONTH}(?:[-. /]+\d{{2,4}})?|{_MONTH}[-. /]+\d{{2,4}}"  # 2-Jan for 1-2, Mar-03
    r"|\d{1,2}([./])\d{1,2}\1(?:\d{2}|\d{4})|\d{4}-\d\d-\d\d[ T]00:00(?::00)?",  # 01/02/2024, 2024-01-02 00:00:00
    re.IGNORECASE,
)
_ROUNDED = re.compile(r"[1-9]\d{14}0+")  # a spreadsheet keeps 15 digits
_MANY, _OUTLYING = 4, 20  # studies of one patient, before they are remarkable beside all, and beside the next patient


def look(identifier: str) -> tuple[str, ...]:
    """What remains of an identifier without leading zeros, ".0", case, punctuation, white space and Unicode forms.

    >>> look("P-0012") == look("p12"), look("12.0") == look("012"), look("1-11") == look("11-1")
    (True, True, False)
    """
    text = unicodedata.normalize("NFKC", identifier).casefold()
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    return tuple(part.lstrip("0") or "0" for part in re.findall(r"\d+|[^\W\d_]+", text))


def identifier_notices(patients: Mapping[str, str], named: Iterable[str]) -> list[Notice]:
    """Notices about the patient of each study, and about the identifiers that the collection itself names.

    One patient with half of the studies, or with 20 and ten times as many as any other; identifiers as a spreadsheet
    writes numbers and dates; and identifiers that look alike.
    """
    notices = []
    ranked = Counter(patients.values()).most_common(2)
    for patient, count in ranked[:1]:
        following = sum(number for _, number in ranked[1:])
        if count >= max(_MANY, len(patients) / 2) or count >= max(_OUTLYING, 10 * following):
            notices.append(Notice(Code.ONE_PATIENT, detail={"count": count, "total": len(patients), "names": patient}))
    distinct = sorted(set(named))
    if changed := [name for name in distinct if _CHANGED.fullmatch(name)] + _rounded(distinct):
        notices.append(Notice(Code.CHANGED_IDENTIFIERS, detail={"count": len(changed), "names": listed(changed)}))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in distinct:
        groups[look(name)].append(name)
    if alike := [" and ".join(names) for key, names in groups.items() if key and len(names) > 1]:
        notices.append(Notice(Code.ALIKE_IDENTIFIERS, detail={"count": len(alike), "names": listed(alike)}))
    return notices


def _rounded(names: Iterable[str]) -> list[str]:
    """The numbers of 16 digits or more, if there are several and all end in zeros from the sixteenth digit on."""
    long = [name for name in names if len(name) > 15 and name.isdecimal()]
    return long if len(long) > 1 and all(map(_ROUNDED.fullmatch, long)) else []


def passed_over(images: Mapping[str, int]) -> list[Notice]:
    """A notice of the folders with images that are not read, each with the number of its images."""
    if not images:
        return []
    counts = {"count": sum(images.values()), "folders": len(images)}
    return [Notice(Code.PASSED_OVER, detail={**counts, "names": listed(images)})]


def placeholder_notices(patients: Iterable[str]) -> list[Notice]:
    """A notice of the placeholders among the patients that radiographs name; "" is none."""
    counts = Counter(patient for patient in patients if patient and is_placeholder(patient))
    if not counts:
        return []
    return [Notice(Code.PLACEHOLDERS, detail={"count": counts.total(), "names": listed(sorted(counts))})]
