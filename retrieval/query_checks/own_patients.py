"""Whose indexed studies an answer leaves out: those of the query's own patient."""

from collections.abc import Sequence
from typing import Protocol

from index.reader import IndexReader
from retrieval.datasets.pseudonyms import KEY_VARIABLE, SiteKey, normalised, patient_names
from retrieval.notices import Code, Notice
from retrieval.query import View

__all__ = ["own_patients", "stored_prefixes"]


class _Stored(Protocol):
    def metadata(self, key: str) -> object | None: ...


def stored_prefixes(index: _Stored) -> list[str]:
    """The prefixes of the names of patients that came from other indexes."""
    prefixes = index.metadata("prefixes")
    return list(prefixes) if isinstance(prefixes, list) else []


def own_patients(
    index: IndexReader, views: Sequence[View], patient: str | None, site: str
) -> tuple[set[str], list[Notice]]:
    """The indexed patients to leave out of an answer about the views, and the notices about them.

    They are `patient`, those whom the views name, and those of whom the index holds the same file. site: the name of
    the site key that hashed the index's names; "" if they are not hashed.
    """
    # The user names a patient as the index does, or as the site does.
    asked = () if not patient else patient_names(patient) if site else (patient, normalised(patient))
    named = {name for view in views for name in view.patients}.union(asked)
    excluded = {case.patient for case in index.find("patient", named)} if named else set()
    from_others = {
        case.patient: prefix
        for prefix in stored_prefixes(index)
        for case in index.find("patient", {prefix + name for name in named})
        if case.patient not in excluded
    }
    notices = [
        Notice(Code.PATIENT_LEFT_OUT, detail={"patient": name, "prefix": prefix})
        for name, prefix in from_others.items()
    ]
    excluded |= from_others.keys()
    if patient and not excluded.intersection(asked):
        notices.append(Notice(Code.UNKNOWN_PATIENT, detail={"patient": patient}))
    if site and any(view.dicom for view in views):
        key = SiteKey.find()
        if key is None or key.name != site:
            notices.append(Notice(Code.UNKNOWN_SITE_KEY, detail={"variable": KEY_VARIABLE}))
    copies = [(view, case) for view in views for case in index.find_digest(view.digest)]
    notices += [
        Notice(Code.INDEXED_ITSELF, view.name, {"case": case.case, "patient": case.patient})
        for view, case in copies
        if case.case != view.case
    ]
    return excluded | {case.patient for _, case in copies}, notices
