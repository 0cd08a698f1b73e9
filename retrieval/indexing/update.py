"""Adding a collection to an index that is in use, with the model that encoded it and the rules that it has."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from index.atomic import MODEL
from index.case import Case
from index.writer import IndexWriter
from retrieval.answer import plain
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import encoded_batches, file_digest, shown_name
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError

__all__ = ["AddReport", "add_to_index", "require_same_key"]

SCHEMA = "mura-search/add/1"


@dataclass(frozen=True, slots=True)
class AddReport:
    """What was added, and what was not: `known` with the indexed case that has the same bytes, `refused` with why.

    `behind` changes have not reached Milvus yet, where that holds the vectors and does not answer.
    """

    path: str
    added: int
    known: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...]
    seconds: float
    behind: int = 0

    def to_dict(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            **plain(self),
            "known": [{"case": case, "indexed": indexed} for case, indexed in self.known],
            "refused": [{"case": case, "reason": reason} for case, reason in self.refused],
            "warnings": [{"case": case, "warning": warning} for case, warning in self.warnings],
        }


def add_to_index(
    collection: Collection,
    place: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AddReport:
    """Add the radiographs of a collection that the index does not hold yet; `progress` gets (done, all).

    A radiograph whose bytes are indexed already adds nothing. One that cannot be read, has the name of another one, or
    belongs to an indexed study that has another label or patient is refused, and the others go on. Every batch is on
    the disk when it is added, so the same call goes on where an interrupted one was. The decision rules stay those that
    were learned when the index was built. Raises IndexFailure, BundleError, CollectionError where the index names
    patients otherwise.
    """
    started = time.perf_counter()
    with IndexWriter.open(place) as edit:
        _require_site(edit.metadata("collection"), collection)
        if collection.synthetic:
            _keep_mark(edit)
        encoder = Encoder.open(edit.path / MODEL)
        admitted, known, refused = _admitted(collection.cases, edit)
        met, added = len(collection.cases) - len(admitted), 0
        warnings: list[tuple[str, str]] = []
        try:
            with closing(encoded_batches(admitted, encoder, workers=workers)) as batches:
                for batch in batches:
                    if batch.cases:
                        edit.add(
                            [*map(collection.stored, batch.cases)], batch.embeddings, batch.thumbnails, batch.logits
                        )
                    added += len(batch.cases)
                    refused += [(case.case, reason) for case, reason in batch.unreadable]
                    warnings += [(case.case, warning) for case, warning in batch.warnings]
                    met += len(batch.cases) + len(batch.unreadable)
                    if progress:
                        progress(met, len(collection.cases))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{added} radiographs were added; the same command goes on from there") from None
    seconds = time.perf_counter() - started
    behind = edit.behind if edit.remote else 0
    return AddReport(str(place), added, tuple(known), tuple(refused), tuple(warnings), seconds, behind)


def _keep_mark(edit: IndexWriter) -> None:
    """Mark the index as one that holds synthetic radiographs, before some are added."""
    about = edit.metadata("collection")
    if not (isinstance(about, dict) and about.get("synthetic")):
        edit.mark_synthetic()


def _require_site(about: object, collection: Collection) -> None:
    """Patients of one index are named in one way, or a patient would be two."""
    there = about.get("site", "") if isinstance(about, dict) and about.get("layout") == "dicom" else collection.site
    if collection.layout == "dicom" and there != collection.site:
        named = "as their headers name them" if not there else "by hashes with another site key"
        raise CollectionError(f"the index names its patients {named}; add with the same key, or build it again")


def require_same_key(one: object, other: object) -> None:
    """Raise CollectionError where two indexes hashed their patients with different site keys.

    one, other: what they say of their "collection".
    """
    sites = {about.get("site", "") for about in (one, other) if isinstance(about, dict)}
    if len(sites) > 1:
        raise CollectionError(
            "the indexes name their patients by different site keys, so one patient would be two; "
            "merge with --prefix where they are of two hospitals"
        )


def _admitted(
    cases: tuple[Case, ...], edit: IndexWriter
) -> tuple[list[Case], list[tuple[str, str]], list[tuple[str, str]]]:
    """The cases that may be added; those known, each with its like; and those refused, each with the reason."""
    found: list[tuple[Case, str]] = []
    refused: list[tuple[str, str]] = []
    for case in cases:
        try:
            found.append((case, file_digest(Path(case.path))))
        except OSError as error:
            refused.append((case.case, f"{shown_name(case)}: {error.strerror}"))
    digests = edit.known("digest", {digest for _, digest in found})
    names = edit.known("case", {case.case for case, _ in found})
    studies = {case.study: case for case in edit.find("study", {case.study for case, _ in found})}
    admitted: list[Case] = []
    known: list[tuple[str, str]] = []
    for case, digest in found:
        study = studies.get(case.study, case)
        if digest in digests:
            known.append((case.case, digests[digest]))
        elif case.case in names:
            refused.append((case.case, "another radiograph of this name is indexed; remove that, or rename this"))
        elif (study.label, study.patient) != (case.label, case.patient):
            refused.append(
                (case.case, f"study {case.study} is indexed as {study.label_name}, of patient {study.patient}")
            )
        else:
            digests[digest] = case.case
            studies.setdefault(case.study, case)
            admitted.append(case)
    return admitted, known, refused
