"""An audit as a page of pictures: duplicates side by side, and studies whose labels look wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from index.case import Case
from retrieval.audit.audit import Audit, Duplicate
from retrieval.audit.label_issues import LabelCheck, LabelIssue
from retrieval.audit.near_duplicates import NearDuplicate
from retrieval.datasets.collection import Collection
from retrieval.reports.pictures import Picture, file_thumbnail
from retrieval.reports.templating import render

__all__ = ["audit_report", "crossing", "duplicate_words", "label_words", "near_duplicate_words"]

MOST = 100  # findings of a kind, so that a browser can open the page; CSV and JSON have all
_VIEWS = 4  # radiographs of a study


@dataclass(frozen=True, slots=True)
class _Group:
    """Radiographs that are shown together: a group of duplicates."""

    words: str
    pictures: Sequence[Picture]
    hidden: int


@dataclass(frozen=True, slots=True)
class _IssueCard:
    """A study whose label looks wrong, with the neighbours that contradict it."""

    issue: LabelIssue
    words: str
    pictures: Sequence[Picture]
    hidden: int
    neighbours: Sequence[Picture]


def audit_report(audit: Audit, collection: Collection) -> str:
    """The report. It holds pictures of radiographs, read again from the collection."""
    pictures = _Pictures({case.case: case for case in collection.cases})
    deep, groups, issues = audit.deep, [], []
    if deep:
        worst = sorted(deep.near_duplicates, key=lambda pair: (-_severity(pair), -pair.match))
        groups = [pictures.group(near_duplicate_words(pair), pair.cases) for pair in worst[:MOST]]
        issues = [pictures.issue(issue) for issue in deep.labels.issues[:MOST]]
    same = sorted(audit.duplicates, key=lambda duplicate: -_severity(duplicate))
    rows = [(case, "unreadable", reason) for case, reason in audit.unreadable]
    rows += [(case, "read with a warning", reason) for case, reason in audit.warned]
    return render(
        "audit.html",
        title=f"Audit of {Path(audit.root).name}",
        sections=[
            ("counts", "Counts"),
            ("leakage", "Leakage"),
            *([("labels", "Labels that look wrong"), ("near-duplicates", "Near duplicates")] if deep else []),
            ("files", "Identical files"),
            ("reading", "Read with difficulty"),
        ],
        audit=audit,
        trusted=not any(split.leaking for split in audit.leakage),
        near_duplicates=groups,
        label_words=label_words(deep.labels) if deep else [],
        issues=issues,
        same=[pictures.group(duplicate_words(duplicate), duplicate.cases) for duplicate in same[:MOST]],
        reading=rows,
        most=MOST,
    )


def near_duplicate_words(pair: NearDuplicate) -> str:
    """How alike two radiographs are, and what lies between them."""
    alike = f"details {pair.match:.3f}, embeddings {pair.similarity:.3f}, {pair.bits} of 64 bits differ"
    across = crossing(pair.across_splits, pair.across_patients, pair.across_labels, pair.across_studies)
    return f"{'; '.join(filter(None, (pair.change, across or 'within one study', alike)))}"


def duplicate_words(duplicate: Duplicate) -> str:
    """What lies between identical files."""
    return crossing(duplicate.across_splits, duplicate.across_patients, duplicate.across_labels) or "within one patient"


def crossing(splits: bool, patients: bool, labels: bool, studies: bool = False) -> str:
    """What a group of radiographs crosses, such as "across splits and patients"; empty where it crosses nothing."""
    sides = {"splits": splits, "patients": patients, "studies": studies and not patients, "labels": labels}
    across = " and ".join(name for name, is_across in sides.items() if is_across)
    return f"across {across}" if across else ""


def label_words(check: LabelCheck) -> list[str]:
    """What a reader must know about the list of label issues, as sentences."""
    count = f"{len(check.issues):,} of {check.studies:,}" if check.issues else f"none of {check.studies:,}"
    words = [f"Listed: {count} studies. The chance that their label is wrong is at least {check.least:.0%}."]
    if check.issues:
        words.append(
            f"If {check.assumed:.0%} of all labels were wrong, about {check.expected:.0f} of the listed labels would "
            "be. The vote makes errors: look at each study."
        )
    if not check.calibrated:
        words.append("The vote is not calibrated, since one label has too few studies: the chances only give an order.")
    if check.trained_on:
        words.append(
            f"The model was trained on the patients of {check.trained_on:,} of these studies. It may have learned "
            "their wrong labels, so the classifier's probability does not count there."
        )
    return words


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures of cases; each file is read once."""

    cases: Mapping[str, Case]
    read: dict[str, bytes | None] = field(default_factory=dict)

    def picture(self, name: str, words: str = "") -> Picture:
        case = self.cases[name]
        if name not in self.read:
            self.read[name] = file_thumbnail(case.path)
        data = self.read[name]
        alt = f"radiograph {name}, labelled {case.label_name}{', can no longer be read' if data is None else ''}"
        lines = (f", {case.split}" if case.split else "", *filter(None, (words,)), name)
        return Picture(data, alt, lines, case.label_name)

    def group(self, words: str, names: Sequence[str]) -> _Group:
        shown = [self.picture(name) for name in names[:_VIEWS]]
        return _Group(f"{words[:1].upper()}{words[1:]}.", shown, len(names) - len(shown))

    def issue(self, issue: LabelIssue) -> _IssueCard:
        opinion = "the classifier's probability does not count"
        if issue.classifier is not None:
            side = "the neighbours" if issue.seconded else "the label"
            opinion = f"the classifier's is {issue.classifier:.2f} and supports {side}"
        words = f"The vote's probability of abnormality is {issue.vote:.2f}; {opinion}."
        shown = [self.picture(name) for name in issue.cases[:_VIEWS]]
        neighbours = [
            self.picture(near.case, f"similarity {near.similarity:.3f}, {near.weight:.0%} of the vote")
            for near in issue.neighbours
        ]
        return _IssueCard(issue, words, shown, len(issue.cases) - len(shown), neighbours)


def _severity(finding: NearDuplicate | Duplicate) -> int:
    return 4 * finding.across_splits + 2 * finding.across_labels + finding.across_patients
