"""Add a collection to an index in use, which keeps its model and its decision rules."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from index.atomic import MODEL
from index.case import Case
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import Batch, Progress, encode_all, file_digest, shown_name
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError
from retrieval.indexing.build import Report
from retrieval.notices import Notice

__all__ = ["AddReport", "add_to_index", "require_same_key"]


@dataclass(frozen=True, slots=True)
class AddReport(Report):
    """The result of an addition: `known` has (case, indexed case with the same bytes), `refused` (case, reason).

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
        _require_site(writer.metadata("collection"), collection)
        if collection.synthetic:
            _mark_synthetic(writer)

        def store(batch: Batch) -> bool:
            if batch.cases:
                writer.add([*map(collection.stored, batch.cases)], batch.embeddings, batch.thumbnails, batch.logits)
            return True

        encoder = Encoder.open(writer.path / MODEL)
        admitted, known, refused = _admitted(collection.cases, writer)
        done = len(collection.cases) - len(admitted)
        report = encode_all(
            admitted, encoder, store, done=done, keep_blank=keep_blank, workers=workers, progress=progress
        )
    return AddReport(
        path=str(path),
        added=report.encoded,
        known=tuple(known),
        refused=(*refused, *report.unreadable),
        notices=(*collection.notices, *report.notices),
        seconds=time.perf_counter() - started,
        behind=writer.behind if writer.remote else 0,
    )


def _mark_synthetic(writer: IndexWriter) -> None:
    """Mark the index as one with synthetic radiographs, before any is added."""
    metadata = writer.metadata("collection")
    if not (isinstance(metadata, dict) and metadata.get("synthetic")):
        writer.mark_synthetic()


def _require_site(metadata: object, collection: Collection) -> None:
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
    cases: tuple[Case, ...], writer: IndexWriter
) -> tuple[list[Case], list[tuple[str, str]], list[tuple[str, str]]]:
    """The cases to add; the known ones, each with the indexed case; and the refused ones, each with the reason."""
    readable: list[tuple[Case, str]] = []
    refused: list[tuple[str, str]] = []
    for case in cases:
        try:
            readable.append((case, file_digest(Path(case.path))))
        except OSError as error:
            refused.append((case.case, f"{shown_name(case)}: {error.strerror}"))
    digests = writer.known("digest", {digest for _, digest in readable})
    names = writer.known("case", {case.case for case, _ in readable})
    studies = {case.study: case for case in writer.find("study", {case.study for case, _ in readable})}
    admitted: list[Case] = []
    known: list[tuple[str, str]] = []
    for case, digest in readable:
        study = studies.get(case.study, case)
        if digest in digests:
            known.append((case.case, digests[digest]))
        elif case.case in names:
            refused.append((case.case, "another radiograph of this name is indexed; remove it, or rename this file"))
        elif (study.label, study.patient) != (case.label, case.patient):
            refused.append(
                (case.case, f"study {case.study} is indexed as {study.label_name}, of patient {study.patient}")
            )
        else:
            digests[digest] = case.case
            studies.setdefault(case.study, case)
            admitted.append(case)
    return admitted, known, refused
