"""What a collection holds, and what is wrong with it, after opening every file.

The quick audit needs no model. The deep one encodes every radiograph too, and looks for near duplicates and for labels
that look wrong (`retrieval.audit.deep_audit`).
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from index.case import ABNORMAL, LABEL_NAMES, NORMAL, Case
from retrieval.audit.deep_audit import DeepFindings, EncodedCollection, deep_findings
from retrieval.audit.label_issues import ASSUMED
from retrieval.audit.split_leakage import Leakage, leakages, verdict
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import shown_name
from retrieval.errors import RadiographError
from retrieval.images.radiograph import read_radiograph
from retrieval.notices import Notice, of_view
from retrieval.wording import sentence, warnings_of_files

__all__ = ["Audit", "Count", "Difference", "Duplicate", "audit", "deep_audit"]

# Rajpurkar et al. 2018, table 1, and the data set's own lists: studies normal and abnormal.
_MURA_STUDIES = {
    ("train", "elbow"): (1094, 660),
    ("train", "finger"): (1280, 655),
    ("train", "hand"): (1497, 521),
    ("train", "humerus"): (321, 271),
    ("train", "forearm"): (590, 287),
    ("train", "shoulder"): (1364, 1457),
    ("train", "wrist"): (2134, 1326),
    ("valid", "elbow"): (92, 66),
    ("valid", "finger"): (92, 83),
    ("valid", "hand"): (101, 66),
    ("valid", "humerus"): (68, 67),
    ("valid", "forearm"): (69, 64),
    ("valid", "shoulder"): (99, 95),
    ("valid", "wrist"): (140, 97),
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
    """Radiographs whose files are the same, byte for byte, and what they lie on both sides of."""

    cases: tuple[str, ...]
    across_splits: bool
    across_patients: bool
    across_labels: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """The findings. `unreadable` holds (case, reason); `published` tells whether counts were compared.

    `notices` are about the collection, and about the radiographs whose cases they name.

    `patients_in_two_splits` is sorted; `different` is empty where all counts are as published. `leakage` is of the
    splits that are not trained on, `verdict` says in a sentence whether figures on them can be trusted. `deep` is what
    a deep audit adds.
    """

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

    def to_dict(self) -> dict[str, object]:
        """The same as JSON takes it, under the schema mura-search/audit/1."""
        findings = asdict(self) | {"notes": list(self.notes)}
        for name, pairs in (("unreadable", self.unreadable), ("warned", self.warned)):
            findings[name] = [{"case": case, "reason": reason} for case, reason in pairs]
        if deep := findings["deep"]:  # the lists' first names stay, since programs may read them
            deep["twins"] = deep["near_duplicates"]
            deep["labels"]["suspects"] = deep["labels"]["issues"]
            deep["closeness"] = deep.pop("similarity_limit")
        return {"schema": "mura-search/audit/1", **findings}


def audit(
    collection: Collection, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> Audit:
    """Open every file of a collection, in `workers` threads (one a core), and gather what a user should know of it.

    `progress` is called with (files done, files in all). A collection of the MURA layout that is not synthetic is
    compared with MURA's published counts, of the splits and parts that it has.
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
                digest, own = result
                read.append(replace(case, digest=digest))
                notices += of_view(case.case, own)
            if progress:
                progress(done, len(collection.cases))
    finally:  # an interrupted audit does not read on
        pool.shutdown(cancel_futures=True)
    return _gathered(collection, read, unreadable, notices)


def deep_audit(
    collection: Collection,
    encoded: EncodedCollection,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    *,
    assumed: float = ASSUMED,
) -> Audit:
    """The findings of `audit`, and those of `audit.deep_audit` on the encoded collection. No file is opened again.

    assumed: the share of labels taken to be wrong, above 0 and below 0.5. `progress` is called with (pairs of
    radiographs compared, pairs to compare).
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
    leakage = leakages(collection.cases, [duplicate.cases for duplicate in duplicates], pairs)
    published = collection.layout == "mura" and not collection.synthetic
    return Audit(
        root=str(collection.root),
        layout=collection.layout,
        synthetic=collection.synthetic,
        notices=(*collection.notices, *notices),
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
        verdict=verdict(leakage),
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
    studies = Counter(
        (split, part, label)
        for split, part, label, _ in {(case.split, case.part, case.label, case.study) for case in cases}
    )
    here = {(split, part) for split, part, _ in images}
    compared = [
        Difference(split, part, LABEL_NAMES[label], what, found[split, part, label], table[split, part][label])
        for what, found, table in (("studies", studies, _MURA_STUDIES), ("images", images, _MURA_IMAGES))
        for split, part in table
        if (split, part) in here
        for label in (NORMAL, ABNORMAL)
    ]
    for split, published in _MURA_ALL_IMAGES.items():
        if all(place in here for place in _MURA_STUDIES if place[0] == split):
            found = sum(count for (where, _, _), count in images.items() if where == split)
            compared.append(Difference(split, "", "", "images", found, published))
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
