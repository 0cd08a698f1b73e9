"""Identifiers of patients and studies that other programs have changed: what looks wrong is named, not repaired."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from retrieval.datasets.pseudonyms import is_placeholder
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = ["identifier_notices", "look", "passed_over", "placeholder_notices"]

_CHANGED = re.compile(r"[+-]?\d+(?:[.,]\d+)?E[+-]?\d{1,3}|\d+\.0+", re.IGNORECASE)  # 1.23457E+14, 13.0
_MANY = 4  # studies of one patient, before they are remarkable


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

    One patient with most studies, identifiers as a spreadsheet writes numbers, and identifiers that look alike.
    """
    notices = []
    studies = Counter(patients.values())
    for patient, count in studies.most_common(1):
        if count >= max(_MANY, len(patients) / 2):
            notices.append(Notice(Code.ONE_PATIENT, detail={"count": count, "total": len(patients), "names": patient}))
    distinct = sorted(set(named))
    if changed := [name for name in distinct if _CHANGED.fullmatch(name)]:
        notices.append(Notice(Code.CHANGED_IDENTIFIERS, detail={"count": len(changed), "names": listed(changed)}))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in distinct:
        groups[look(name)].append(name)
    if alike := [" and ".join(names) for key, names in groups.items() if key and len(names) > 1]:
        notices.append(Notice(Code.ALIKE_IDENTIFIERS, detail={"count": len(alike), "names": listed(alike)}))
    return notices


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
