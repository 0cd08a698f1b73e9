"""Add a collection to an index in use, or correct its records; it keeps its model and its decision rules."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from index.case import Case, corrected, difference, prefixed, same_file
from index.errors import IndexFailure
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.decision.measure_limits import KEY, MeasureLimits, stored_limits
from retrieval.encoding.batches import (
    Batch,
    EncodingOptions,
    Progress,
    case_digest,
    encode_all,
    shown_name,
)
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError
from retrieval.images.radiograph import file_digest
from retrieval.indexing.build import Report
from retrieval.indexing.filing import preview_side
from retrieval.notices import Notice
from retrieval.query_checks.own_patients import stored_prefixes

__all__ = [
    "AddReport",
    "UpdateReport",
    "add_to_index",
    "refresh_limits",
    "require_same_key",
    "require_same_site",
    "update_index",
]


@dataclass(frozen=True, slots=True)
class AddReport(Report):
    """The result of an addition: `known` has (case, indexed case with the same bytes), `refused` (case, reason).

    `differing` has the known cases whose record is another than the indexed one, each with the difference in words.
    `notices` are about the collection and the added radiographs. If Milvus holds the vectors and does not answer,
    `behind` changes have not reached it yet.
    """

    schema: ClassVar[str] = "mura-search/add/1"
    path: str
    added: int
    known: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    seconds: float
    behind: int = 0
    differing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateReport(Report):
    """The result of an update: how many cases were `updated`, and how many `same` have this record already.

    `refused` has (case, reason): the index does not hold the radiograph, or holds it more than once.
    """

    schema: ClassVar[str] = "mura-search/update/1"
    path: str
    updated: int
    same: int
    refused: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    behind: int = 0


def add_to_index(
    collection: Collection,
    path: Path,
    *,
    keep_blank: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Add the radiographs of a collection that the index does not hold yet; `progress` gets (done, all).

    A radiograph whose bytes are indexed already is skipped. A radiograph is refused if it cannot be read, if it is
    blank (unless `keep_blank`), if its name is indexed with other bytes, and if its study is indexed with another label
    or patient. Every batch is on the disk when it is added, so the same call continues an interrupted one. The decision
    rules stay as they are.

    Raises IndexFailure, BundleError, and CollectionError if the index names its patients in another way.
    """
    started = time.perf_counter()
    with IndexWriter.open(path) as writer:
        require_same_site(writer.metadata("collection"), collection)
        if collection.synthetic:
            _mark_synthetic(writer)

        def store(batch: Batch) -> bool:
            if batch.cases:
                stored = [*map(collection.stored, batch.cases)]
                writer.add(stored, batch.embeddings, batch.thumbnails, batch.logits, batch.extras)
            return True

        encoder = Encoder.open(writer.model)
        admitted, known, refused, differing = _admitted(collection, writer)
        done = len(collection.cases) - len(admitted)
        options = EncodingOptions(keep_blank, preview_side(writer), workers)
        report = encode_all(admitted, encoder, store, options, done=done, progress=progress)
        if report.encoded:
            refresh_limits(writer)
    return AddReport(
        path=str(path),
        added=report.encoded,
        known=tuple(known),
        refused=(*refused, *report.unreadable),
        notices=(*collection.notices, *report.notices),
        seconds=time.perf_counter() - started,
        behind=writer.behind if writer.remote else 0,
        differing=tuple(differing),
    )


def refresh_limits(writer: IndexWriter) -> None:
    """Learn the limits of the plain measures anew, after radiographs were added or removed, unless they are local."""
    kept = MeasureLimits.from_dict(writer.metadata(KEY))
    if kept is not None and kept.local:
        return
    writer.set_metadata(KEY, stored_limits(writer).to_dict())


def update_index(collection: Collection, path: Path) -> UpdateReport:
    """Take the records of a collection over into an index, without encoding a radiograph, all in one transaction.

    A radiograph is known by its bytes, or by its name if its file is missing. Its label, patient, study, part, view,
    split, laterality, series and path become those of the collection; an empty field changes nothing, and the name of
    the radiograph stays. The decision rules stay as they are.

    Raises IndexFailure, also if a study would have two labels or two patients, and CollectionError as `add_to_index`.
    """
    changed: dict[str, Case] = {}
    refused: list[tuple[str, str]] = []
    same = 0
    with IndexWriter.open(path) as writer:
        require_same_site(writer.metadata("collection"), collection)
        prefixes = stored_prefixes(writer)
        digests = {case.case: case_digest(case) for case in collection.cases}
        by_digest = writer.known("digest", {*digests.values()} - {""})
        by_name = writer.known("case", {case.case for case in collection.cases})
        for case in collection.cases:
            digest = digests[case.case]
            indexed = by_digest.get(digest, []) if digest else by_name.get(case.case, [])
            if not indexed:
                refused.append((case.case, "the index does not hold it; add it with mura-search index add"))
                continue
            target = same_file(case, indexed)
            record = corrected(target, _as_merged(collection.stored(case), target, prefixes))
            if len(indexed) > 1 and target.case != case.case:
                refused.append((case.case, f"the index holds it {len(indexed)} times, under other names"))
            elif changed.setdefault(target.case, record) != record:
                refused.append((case.case, f"an earlier row has a different record of {target.case}"))
            else:
                same += record == target
        try:
            updated = writer.update([*changed.values()])
        except ValueError as error:
            raise IndexFailure(f"{error}; correct all radiographs of that study") from error
    behind = writer.behind if writer.remote else 0
    return UpdateReport(str(path), updated, same, tuple(refused), collection.notices, behind)


def _as_merged(given: Case, indexed: Case, prefixes: list[str]) -> Case:
    """A record with the prefix of the index that brought the radiograph: without it two patients might become one."""
    for prefix in prefixes:
        if indexed.patient.startswith(prefix) and not given.patient.startswith(prefix):
            return prefixed(given, prefix)
    return given


def _mark_synthetic(writer: IndexWriter) -> None:
    """Mark the index as one with synthetic radiographs, before any is added."""
    metadata = writer.metadata("collection")
    if not (isinstance(metadata, dict) and metadata.get("synthetic")):
        writer.mark_synthetic()


def require_same_site(metadata: object, collection: Collection) -> None:
    """Raise CollectionError if index and collection name patients in different ways: one patient would be two."""
    site = collection.site
    if isinstance(metadata, dict) and metadata.get("layout") == "dicom":
        site = metadata.get("site", "")
    if collection.layout == "dicom" and site != collection.site:
        named = "by hashes with another site key" if site else "as the DICOM headers name them"
        raise CollectionError(f"the index names its patients {named}; add with the same key, or build it again")


def require_same_key(first: object, second: object) -> None:
    """Raise CollectionError if two indexes hashed their patients with different site keys.

    first, second: the metadata "collection" of the two indexes.
    """
    sites = {metadata.get("site", "") for metadata in (first, second) if isinstance(metadata, dict)}
    if len(sites) > 1:
        raise CollectionError(
            "the indexes hash their patients' names with different site keys, so one patient would count as two; "
            "if the indexes are of two hospitals, merge them with --prefix"
        )


def _admitted(
    collection: Collection, writer: IndexWriter
) -> tuple[list[Case], list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    """The cases to add; and in pairs with the indexed case or a reason: the known, the refused and the differing."""
    readable: list[tuple[Case, str]] = []
    known, refused, differing = list[tuple[str, str]](), list[tuple[str, str]](), list[tuple[str, str]]()
    for case in collection.cases:
        try:
            readable.append((case, file_digest(Path(case.path))))
        except OSError as error:
            refused.append((case.case, f"{shown_name(case)}: {error.strerror}"))
    digests = writer.known("digest", {digest for _, digest in readable})
    names = writer.known("case", {case.case for case, _ in readable})
    studies = {case.study: case for case in writer.find("study", {case.study for case, _ in readable})}
    admitted: list[Case] = []
    prefixes = stored_prefixes(writer)
    for case, digest in readable:
        study = studies.get(case.study, case)
        if digest in digests:
            indexed = same_file(case, digests[digest])
            known.append((case.case, indexed.case))
            given = _as_merged(collection.stored(case), indexed, prefixes)
            differing += [(case.case, words)] if (words := difference(indexed, given)) else []
        elif case.case in names:
            refused.append((case.case, "another radiograph of this name is indexed; remove it, or rename this file"))
        elif (study.label, study.patient) != (case.label, case.patient):
            refused.append(
                (case.case, f"study {case.study} is indexed as {study.label_name}, of patient {study.patient}")
            )
        else:
            digests[digest] = [collection.stored(case)]
            studies.setdefault(case.study, case)
            admitted.append(case)
    return admitted, known, refused, differing
