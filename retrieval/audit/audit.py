"""What a collection holds, and what is wrong with it.

The quick audit opens every file and needs no model. The deep audit also encodes every radiograph, and finds near
duplicates and label issues (`retrieval.audit.deep_audit`).
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from index.case import ABNORMAL, LABEL_NAMES, NORMAL, Case
from retrieval.audit.deep_audit import DeepFindings, EncodedCollection, deep_findings
from retrieval.audit.label_issues import ASSUMED
from retrieval.audit.split_leakage import Leakage, leakages, verdict
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import Progress, shown_name
from retrieval.errors import RadiographError
from retrieval.formats.csv_format import Row, Tabular
from retrieval.images.radiograph import read_radiograph
from retrieval.notices import Notice, of_view
from retrieval.wording import sentence, warnings_of_files

__all__ = ["Audit", "Count", "Difference", "Duplicate", "audit", "deep_audit"]

# Rajpurkar et al. 2018, table 1, and the data set's own lists: studies normal and abnormal, in train and in valid.
_MURA_STUDIES = {
    (split, part): labels
    for part, *splits in (
        ("elbow", (1094, 660), (92, 66)),
        ("finger", (1280, 655), (92, 83)),
        ("hand", (1497, 521), (101, 66)),
        ("humerus", (321, 271), (68, 67)),
        ("forearm", (590, 287), (69, 64)),
        ("shoulder", (1364, 1457), (99, 95)),
        ("wrist", (2134, 1326), (140, 97)),
    )
    for split, labels in zip(("train", "valid"), splits, strict=True)
}
_MURA_IMAGES = {("train", "finger"): (3138, 1968), ("valid", "finger"): (214, 247)}  # published for this part alone
_MURA_ALL_IMAGES = {"train": 36808, "valid": 3197}


@dataclass(frozen=True, slots=True)
class Count:
    """How much of one split, part and label there is; "" where the collection names none."""

    split: str
    part: str
    label: str
    images: int
    studies: int
    patients: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A count that is not as published: `what` is "studies" or "images"; part and label "" mean all."""

    split: str
    part: str
    label: str
    what: str
    here: int
    published: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Radiographs whose files are the same, byte for byte, and what the group crosses."""

    cases: tuple[str, ...]
    across_splits: bool
    across_patients: bool
    across_labels: bool


@dataclass(frozen=True, slots=True)
class Audit(Tabular):
    """The findings; as a table, one a line.

    `unreadable` holds (case, reason). `notices` are about the collection, and about the radiographs whose cases they
    name. `published` says whether the counts were compared with MURA's, and `different` has the counts that differ.
    `leakage` is of the splits that are not trained on, or of those that `--split` would draw; `verdict` says in a
    sentence whether figures on them can be trusted. `deep` is None after a quick audit.
    """

    columns: ClassVar = (
        "finding case other_case study other_study label across_splits across_patients across_labels mirrored turned "
        "inverted border bits "
        "similarity match vote classifier other_label chance seconded detail"
    )

    root: str
    layout: str
    synthetic: bool
    notices: tuple[Notice, ...]
    images: int
    studies: int
    patients: int
    counts: tuple[Count, ...]
    published: bool
    different: tuple[Difference, ...]
    unreadable: tuple[tuple[str, str], ...]
    duplicates: tuple[Duplicate, ...]
    patients_in_two_splits: tuple[str, ...]
    leakage: tuple[Leakage, ...]
    verdict: str
    deep: DeepFindings | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The notices about the collection, as sentences."""
        return tuple(sentence(notice) for notice in self.notices if not notice.view)

    @property
    def warned(self) -> tuple[tuple[str, str], ...]:
        """The notices about radiographs, as (case, sentence)."""
        return warnings_of_files(self.notices)

    @property
    def title(self) -> str:
        return f"{self.images:,} radiographs of {self.studies:,} studies. {self.verdict}"

    def rows(self) -> Iterator[Row]:
        """The findings in the order of the terminal's lists; each of several identical files is paired with the first.

        `finding` is one of: unreadable, warning, same file, near duplicate, suspect label, patient in two splits,
        leaking study. docs/audit.md explains the columns.
        """
        for kind, pairs in (("unreadable", self.unreadable), ("warning", self.warned)):
            yield from ({"finding": kind, "case": case, "detail": reason} for case, reason in pairs)
        for same in self.duplicates:
            first, *others = same.cases
            yield from (
                {"finding": "same file", **asdict(same), "case": first, "other_case": duplicate} for duplicate in others
            )
        if self.deep:
            yield from self.deep.rows()
        for patient in self.patients_in_two_splits:
            yield {"finding": "patient in two splits", "detail": patient}
        for leak in self.leakage:
            yield from ({"finding": "leaking study", "study": study, "detail": leak.split} for study in leak.leaking)

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/audit/1"."""
        findings = asdict(self) | {"notes": list(self.notes)}
        for name, pairs in (("unreadable", self.unreadable), ("warned", self.warned)):
            findings[name] = [{"case": case, "reason": reason} for case, reason in pairs]
        if deep := findings["deep"]:  # the lists' first names stay, since programs may read them
            deep["twins"] = deep["near_duplicates"]
            deep["labels"]["suspects"] = deep["labels"]["issues"]
            deep["closeness"] = deep.pop("similarity_limit")
        return {"schema": "mura-search/audit/1", **findings}


def audit(collection: Collection, progress: Progress | None = None, workers: int | None = None) -> Audit:
    """Open every file of a collection in `workers` threads, by default one a core.

    `progress` is called with (files done, all). A collection of the MURA layout that is not synthetic is compared with
    MURA's published counts, for the splits and parts that it has.
    """
    read: list[Case] = []
    unreadable: list[tuple[str, str]] = []
    notices: list[Notice] = []
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for done, (case, result) in enumerate(zip(collection.cases, pool.map(_look, collection.cases), strict=True), 1):
            if isinstance(result, str):
                unreadable.append((case.case, result))
            else:
                digest, file_notices = result
                read.append(replace(case, digest=digest))
                notices += of_view(case.case, file_notices)
            if progress:
                progress(done, len(collection.cases))
    finally:  # an interrupted audit reads no more files
        pool.shutdown(cancel_futures=True)
    return _gathered(collection, read, unreadable, notices)


def deep_audit(
    collection: Collection,
    encoded: EncodedCollection,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    assumed: float = ASSUMED,
) -> Audit:
    """The findings of `audit`, and those on the encoded collection; no file is opened again.

    assumed: the share of labels taken to be wrong, above 0 and below 0.5. `progress` is called with (pairs of
    radiographs compared, all).
    """
    deep = deep_findings(encoded, assumed=assumed, workers=workers, progress=progress)
    return _gathered(collection, encoded.cases, encoded.unreadable, encoded.notices, deep)


def _gathered(
    collection: Collection,
    read: Sequence[Case],
    unreadable: Sequence[tuple[str, str]],
    notices: Sequence[Notice],
    deep: DeepFindings | None = None,
) -> Audit:
    digests: dict[str, list[Case]] = {}
    for case in read:
        digests.setdefault(case.digest, []).append(case)
    duplicates = tuple(_duplicate(cases) for cases in digests.values() if len(cases) > 1)
    pairs = None if deep is None else [pair.cases for pair in deep.near_duplicates]
    divided = collection.divided()  # as --split would divide it
    leakage = leakages(divided.cases, [duplicate.cases for duplicate in duplicates], pairs)
    published = collection.layout == "mura" and not collection.synthetic
    return Audit(
        root=str(collection.root),
        layout=collection.layout,
        synthetic=collection.synthetic,
        notices=(*divided.notices, *notices),
        images=len(collection.cases),
        studies=_distinct(case.study for case in collection.cases),
        patients=_distinct(case.patient for case in collection.cases),
        counts=_counts(collection.cases),
        published=published,
        different=_differences(collection.cases) if published else (),
        unreadable=tuple(unreadable),
        duplicates=duplicates,
        patients_in_two_splits=_patients_in_two_splits(collection.cases),
        leakage=leakage,
        verdict=verdict(leakage, drawn=divided is not collection),
        deep=deep,
    )


def _look(case: Case) -> tuple[str, tuple[Notice, ...]] | str:
    """The digest of a file and the notices about it, or why it cannot be read."""
    try:
        radiograph = read_radiograph(Path(case.path), shown_name(case))
    except RadiographError as error:
        return str(error)
    return radiograph.digest, radiograph.notices


def _distinct(values: Iterable[Hashable]) -> int:
    return len(set(values))


def _counts(cases: Iterable[Case]) -> tuple[Count, ...]:
    groups: dict[tuple[str, str, int], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.split, case.part, case.label), []).append(case)
    return tuple(
        Count(
            split,
            part,
            LABEL_NAMES[label],
            images=len(group),
            studies=_distinct(case.study for case in group),
            patients=_distinct(case.patient for case in group),
        )
        for (split, part, label), group in sorted(groups.items())
    )


def _differences(cases: Iterable[Case]) -> tuple[Difference, ...]:
    """Against MURA's published counts, for the splits and parts that are here, and for a split that has all parts."""
    images = Counter((case.split, case.part, case.label) for case in cases)
    studies = Counter(key[:3] for key in {(case.split, case.part, case.label, case.study) for case in cases})
    here = {(split, part) for split, part, _ in images}
    compared = [
        Difference(split, part, LABEL_NAMES[label], unit, counts[split, part, label], published[split, part][label])
        for unit, counts, published in (("studies", studies, _MURA_STUDIES), ("images", images, _MURA_IMAGES))
        for split, part in published
        if (split, part) in here
        for label in (NORMAL, ABNORMAL)
    ]
    for split, total in _MURA_ALL_IMAGES.items():
        if all(key in here for key in _MURA_STUDIES if key[0] == split):
            held = sum(count for key, count in images.items() if key[0] == split)
            compared.append(Difference(split, "", "", "images", held, total))
    return tuple(difference for difference in compared if difference.here != difference.published)


def _duplicate(cases: list[Case]) -> Duplicate:
    return Duplicate(
        tuple(case.case for case in cases),
        across_splits=_distinct(case.split for case in cases if case.split) > 1,
        across_patients=_distinct(case.patient for case in cases) > 1,
        across_labels=_distinct(case.label for case in cases) > 1,
    )


def _patients_in_two_splits(cases: Iterable[Case]) -> tuple[str, ...]:
    pairs = {(case.patient, case.split) for case in cases if case.split}
    return tuple(sorted(patient for patient, splits in Counter(patient for patient, _ in pairs).items() if splits > 1))
