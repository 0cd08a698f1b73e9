"""An audit as CSV: a finding a line, so that it can be sorted, filtered and worked off."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from retrieval.audit.audit import Audit
from retrieval.csv_format import number, yes

__all__ = ["COLUMNS", "findings_table"]

COLUMNS = (
    "finding",
    "case",
    "other_case",
    "study",
    "other_study",
    "label",
    "across_splits",
    "across_patients",
    "across_labels",
    "mirrored",
    "bits",
    "similarity",
    "match",
    "vote",
    "classifier",
    "other_label",
    "chance",
    "seconded",
    "detail",
)

Row = Mapping[str, object]


def findings_table(audit: Audit) -> str:
    """One line a finding, in the order of the terminal's lists; what a finding has no value for is empty.

    `finding` is one of: unreadable, warning, same file, near duplicate, suspect label, patient in two splits, leaking
    study. Of files that are the same each is set against the first. The columns are explained in docs/audit.md.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(audit))
    return text.getvalue()


def _rows(audit: Audit) -> Iterator[Row]:
    for kind, pairs in (("unreadable", audit.unreadable), ("warning", audit.warned)):
        yield from ({"finding": kind, "case": case, "detail": reason} for case, reason in pairs)
    for same in audit.duplicates:
        first, *others = same.cases
        sides = _sides(same.across_splits, same.across_patients, same.across_labels)
        yield from ({"finding": "same file", "case": first, "other_case": other, **sides} for other in others)
    if audit.deep:
        for twin in audit.deep.near_duplicates:
            yield {
                "finding": "near duplicate",
                **dict(zip(("case", "other_case"), twin.cases, strict=True)),
                **dict(zip(("study", "other_study"), twin.studies, strict=True)),
                **_sides(twin.across_splits, twin.across_patients, twin.across_labels),
                "mirrored": yes(twin.mirrored),
                "bits": twin.bits,
                "similarity": number(twin.similarity),
                "match": number(twin.match),
            }
        for suspect in audit.deep.labels.issues:
            yield {
                "finding": "suspect label",
                "case": suspect.cases[0],
                "study": suspect.study,
                "label": suspect.label,
                "vote": number(suspect.vote),
                "classifier": number(suspect.classifier),
                "other_label": number(suspect.other),
                "chance": number(suspect.chance),
                "seconded": yes(suspect.seconded),
                "detail": _neighbours([(one.study, one.label, one.similarity) for one in suspect.neighbours]),
            }
    for patient in audit.patients_in_two_splits:
        yield {"finding": "patient in two splits", "detail": patient}
    for leak in audit.leakage:
        yield from ({"finding": "leaking study", "study": study, "detail": leak.split} for study in leak.leaking)


def _sides(splits: bool, patients: bool, labels: bool) -> Row:
    return {"across_splits": yes(splits), "across_patients": yes(patients), "across_labels": yes(labels)}


def _neighbours(found: Sequence[tuple[str, str, float]]) -> str:
    return "; ".join(f"{study} {label} {similarity:.3f}" for study, label, similarity in found)
