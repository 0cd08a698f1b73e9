"""An audit as a page of pictures: doubled radiographs side by side, and studies whose labels look wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from index.case import Case
from retrieval.audit.audit import Audit, Duplicate
from retrieval.audit.label_issues import LabelCheck, LabelIssue
from retrieval.audit.near_duplicates import NearDuplicate
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError
from retrieval.images.radiograph import read_radiograph
from retrieval.reports.page import Html, Section, image, join, label_mark, page, paragraph, safe, table, warnings

__all__ = ["contact_sheet", "crossing", "duplicate_words", "label_words", "near_duplicate_words"]

MOST = 100  # findings of a kind, so that the page can be opened; CSV and JSON have all
_VIEWS = 4  # radiographs of a study


def contact_sheet(audit: Audit, collection: Collection) -> str:
    """The page. It holds pictures of radiographs, read again from the collection."""
    pictures = _Pictures({case.case: case for case in collection.cases})
    sections = [Section("counts", "What is there", _counts(audit)), Section("leakage", "Leakage", _leakage(audit))]
    if audit.deep:
        sections += [
            Section("labels", "Labels that look wrong", _labels(audit.deep.labels, pictures)),
            Section("copies", "Near duplicates", _twins(audit.deep.near_duplicates, pictures)),
        ]
    sections += [
        Section("files", "The same byte for byte", _files(audit.duplicates, pictures)),
        Section("reading", "Read with difficulty", _reading(audit)),
    ]
    foot = paragraph(
        "Not a medical device: research and teaching only. A finding is a reason to look, not a correction. This page "
        "holds radiographs; handle it as you handle those.",
        "quiet",
    )
    return page(f"Audit of {Path(audit.root).name}", _head(audit), sections, foot)


def near_duplicate_words(twin: NearDuplicate) -> str:
    """How alike two radiographs are, and what lies between them."""
    mirrored = "mirrored, " if twin.mirrored else ""
    alike = f"details {twin.match:.3f}, embeddings {twin.similarity:.3f}, {twin.bits} of 64 bits differ"
    between = crossing(twin.across_splits, twin.across_patients, twin.across_labels, twin.across_studies)
    return f"{mirrored}{between or 'within one study'}; {alike}"


def duplicate_words(one: Duplicate) -> str:
    """What lies between files that are the same."""
    return crossing(one.across_splits, one.across_patients, one.across_labels) or "within one patient"


def crossing(splits: bool, patients: bool, labels: bool, studies: bool = False) -> str:
    sides = {"splits": splits, "patients": patients, "studies": studies and not patients, "labels": labels}
    across = " and ".join(name for name, is_across in sides.items() if is_across)
    return f"across {across}" if across else ""


def label_words(check: LabelCheck) -> list[str]:
    """What has to be known of the list of issues, in sentences."""
    listed = f"{len(check.issues):,} of {check.studies:,}" if check.issues else f"none of {check.studies:,}"
    said = [f"Listed: {listed} studies, those whose label is wrong with a chance of at least {check.least:.0%}."]
    if check.issues:
        said.append(
            f"If {check.assumed:.0%} of all labels were wrong, some {check.expected:.0f} of these would be. The vote "
            "errs: look at each."
        )
    if not check.calibrated:
        said.append("Too few studies of either label to calibrate the vote: take the chances for an order, no more.")
    if check.trained_on:
        said.append(
            f"The model was trained on the patients of {check.trained_on:,} of these studies: there it may have "
            "learned wrong labels, and the classifier has no say."
        )
    return said


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures of cases, each read once."""

    cases: Mapping[str, Case]
    read: dict[str, bytes | None] = field(default_factory=dict)

    def item(self, name: str, words: str = "") -> Html:
        """A picture with its label, whatever words, and its name."""
        case = self.cases[name]
        alt = f"radiograph {name}, labelled {case.label_name}"
        data = self._data(case)
        if data is None:  # it was there a moment ago
            alt = f"{alt}, can no longer be read"
            picture = Html(f'<span class="blank" role="img" aria-label="{safe(alt)}"></span>')
        else:
            picture = image(data, alt)
        split = f", {case.split}" if case.split else ""
        told = "".join(f"{safe(text)}<br>" for text in (words,) if text)
        return Html(f"<li>{picture}{label_mark(case.label_name)}{safe(split)}<br>{told}{safe(name)}</li>")

    def _data(self, case: Case) -> bytes | None:
        if case.case not in self.read:
            try:
                self.read[case.case] = thumbnail(read_radiograph(Path(case.path)).pixels)
            except RadiographError:
                self.read[case.case] = None
        return self.read[case.case]


def _head(audit: Audit) -> Html:
    kind = f"layout {audit.layout}{', synthetic' if audit.synthetic else ''}"
    lede = f"{audit.images:,} radiographs of {audit.studies:,} studies and {audit.patients:,} patients ({kind})."
    trusted = not any(one.leaking for one in audit.leakage)
    cards = [("the same byte for byte", len(audit.duplicates)), ("unreadable", len(audit.unreadable))]
    if audit.deep:
        cards = [
            ("labels that look wrong", len(audit.deep.labels.issues)),
            ("near duplicates", len(audit.deep.near_duplicates)),
            *cards,
        ]
    items = "".join(f"<li>{safe(name)} <b>{count:,}</b></li>" for name, count in cards)
    return join(
        paragraph(lede, "lede"),
        Html(f'<ul class="cards">{items}</ul>'),
        paragraph(audit.verdict) if trusted else Html(""),
        warnings([*([] if trusted else [audit.verdict]), *audit.notes]),
    )


def _counts(audit: Audit) -> Html:
    rows = []
    for one in audit.counts:
        name = ", ".join(word for word in (one.split, one.part, one.label) if word)
        rows.append([name, f"{one.images:,}", f"{one.studies:,}", f"{one.patients:,}"])
    return table("By split, part and label", ["", "radiographs", "studies", "patients"], rows)


def _leakage(audit: Audit) -> Html:
    if not audit.leakage:
        return paragraph(audit.verdict)
    rows = [
        [
            one.split,
            f"{one.studies:,}",
            f"{len(one.leaking):,}",
            f"{one.by_patient:,}",
            f"{one.by_file:,}",
            "not looked for" if one.by_copy is None else f"{one.by_copy:,}",
        ]
        for one in audit.leakage
    ]
    headings = ["split", "studies", "tied to another split", "by a patient", "by a file", "by a near copy"]
    return join(
        paragraph(audit.verdict),
        table("Studies of each split that share something with another split", headings, rows),
    )


def _labels(check: LabelCheck, pictures: _Pictures) -> Html:
    articles = [_suspect(suspect, pictures) for suspect in check.issues[:MOST]]
    return join(*map(paragraph, label_words(check)), *_cut(len(check.issues)), *articles)


def _suspect(suspect: LabelIssue, pictures: _Pictures) -> Html:
    opinion = "the classifier has no say"
    if suspect.classifier is not None:
        seconded = "agrees with them" if suspect.seconded else "agrees with the label"
        opinion = f"the classifier says {suspect.classifier:.2f} and {seconded}"
    about = ", ".join(text for text in (suspect.part, suspect.split) if text)
    words = (
        f"{f' ({about})' if about else ''}; its neighbours vote {suspect.vote:.2f} for abnormal, {opinion}. "
        f"Chance of a wrong label {suspect.chance:.0%}."
    )
    own = "".join(pictures.item(name) for name in suspect.cases[:_VIEWS])
    others = "".join(
        pictures.item(one.case, f"similarity {one.similarity:.3f}, {one.weight:.0%} of the vote")
        for one in suspect.neighbours
    )
    more = len(suspect.cases) - _VIEWS
    return join(
        Html("<article>"),
        Html(f"<h3>{safe(suspect.study)}</h3>"),
        Html(f"<p>Labelled {label_mark(suspect.label)}{safe(words)}</p>"),
        Html(f'<ul class="pictures">{own}</ul>'),
        paragraph(f"Radiographs not shown: {more}.", "quiet") if more > 0 else Html(""),
        paragraph("The studies of other patients with the largest parts in the vote:", "quiet"),
        Html(f'<ul class="pictures">{others}</ul>'),
        Html("</article>"),
    )


def _twins(twins: Sequence[NearDuplicate], pictures: _Pictures) -> Html:
    if not twins:
        return paragraph("None found.")
    worst = sorted(twins, key=lambda twin: (-_weight(twin), -twin.match))
    lead = (
        "Radiographs whose fine details agree when laid over each other; first those across splits, labels, patients."
    )
    articles = [_together(near_duplicate_words(twin), twin.cases, pictures) for twin in worst[:MOST]]
    return join(paragraph(lead), *_cut(len(twins)), *articles)


def _weight(one: NearDuplicate | Duplicate) -> int:
    return 4 * one.across_splits + 2 * one.across_labels + one.across_patients


def _files(same: Sequence[Duplicate], pictures: _Pictures) -> Html:
    if not same:
        return paragraph("None found.")
    worst = sorted(same, key=lambda one: -_weight(one))
    return join(*_cut(len(same)), *(_together(duplicate_words(one), one.cases, pictures) for one in worst[:MOST]))


def _together(words: str, names: Sequence[str], pictures: _Pictures) -> Html:
    items = "".join(pictures.item(name) for name in names[:_VIEWS])
    more = f" Not shown: {len(names) - _VIEWS}." if len(names) > _VIEWS else ""
    return join(
        Html("<article>"),
        paragraph(f"{words[:1].upper()}{words[1:]}.{more}"),
        Html(f'<ul class="pictures">{items}</ul>'),
        Html("</article>"),
    )


def _reading(audit: Audit) -> Html:
    rows = [[case, "unreadable", reason] for case, reason in audit.unreadable]
    rows += [[case, "read with a warning", reason] for case, reason in audit.warned]
    if not rows:
        return paragraph("All radiographs were read without a warning.")
    return join(*_cut(len(rows)), table("Radiographs", ["radiograph", "", "why"], rows[:MOST], "prose"))


def _cut(count: int) -> list[Html]:
    return (
        [paragraph(f"The first {MOST} of {count:,} are shown; CSV and JSON have all.", "quiet")] if count > MOST else []
    )
