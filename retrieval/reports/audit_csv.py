"""An audit as CSV, one line a finding, to sort and filter."""

import csv
import io
from collections.abc import Iterator, Mapping

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
    """One line a finding, in the order of the terminal's lists; a missing value is empty.

    `finding` is one of: unreadable, warning, same file, near duplicate, suspect label, patient in two splits, leaking
    study. Each of several identical files is paired with the first. The columns are explained in docs/audit.md.
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
        for pair in audit.deep.near_duplicates:
            yield {
                "finding": "near duplicate",
                **dict(zip(("case", "other_case"), pair.cases, strict=True)),
                **dict(zip(("study", "other_study"), pair.studies, strict=True)),
                **_sides(pair.across_splits, pair.across_patients, pair.across_labels),
                "mirrored": yes(pair.mirrored),
                "bits": pair.bits,
                "similarity": number(pair.similarity),
                "match": number(pair.match),
            }
        for issue in audit.deep.labels.issues:
            yield {
                "finding": "suspect label",
                "case": issue.cases[0],
                "study": issue.study,
                "label": issue.label,
                "vote": number(issue.vote),
                "classifier": number(issue.classifier),
                "other_label": number(issue.other),
                "chance": number(issue.chance),
                "seconded": yes(issue.seconded),
                "detail": "; ".join(f"{near.study} {near.label} {near.similarity:.3f}" for near in issue.neighbours),
            }
    for patient in audit.patients_in_two_splits:
        yield {"finding": "patient in two splits", "detail": patient}
    for leak in audit.leakage:
        yield from ({"finding": "leaking study", "study": study, "detail": leak.split} for study in leak.leaking)


def _sides(splits: bool, patients: bool, labels: bool) -> Row:
    return {"across_splits": yes(splits), "across_patients": yes(patients), "across_labels": yes(labels)}
