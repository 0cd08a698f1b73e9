"""What the pictures of a collection show of its faults: near duplicates, and labels that look wrong."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexFailure
from index.sqlite.reader import Batch as Stored
from retrieval.audit.label_issues import ASSUMED, LabelCheck, check_labels
from retrieval.audit.near_duplicates import Closeness, NearDuplicate, closeness, joined_patients, near_duplicates
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import Rules, learn_rules
from retrieval.encoding.batches import Batch, encoded_batches, file_digest
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError
from retrieval.indexing.build import bundle_rules
from retrieval.searcher import Searcher

__all__ = ["DeepAudit", "Encoding", "deep_audit_of", "encode_collection"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Encoding:
    """N radiographs of a collection, encoded: cases with their digests, embeddings (N, D), logits (N,), thumbnails.

    `reused` of them were in an index already. `rules` are that index's, None where they are to be learned. `unreadable`
    and `warnings` hold (case, reason).
    """

    bundle: Bundle = field(repr=False)
    rules: Rules | None
    cases: tuple[Case, ...]
    embeddings: NDArray[np.float32] = field(repr=False)
    logits: NDArray[np.float32] = field(repr=False)
    thumbnails: tuple[bytes, ...] = field(repr=False)
    unreadable: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...]
    reused: int = 0


@dataclass(frozen=True, slots=True)
class DeepAudit:
    """What a deep audit adds: near duplicates in the order of the collection, and suspect labels.

    `model` and `model_sha256` encoded the radiographs, `reused` of which an index held already.
    """

    model: str
    model_sha256: str
    reused: int
    closeness: Closeness
    near_duplicates: tuple[NearDuplicate, ...]
    labels: LabelCheck


@dataclass(frozen=True, slots=True)
class _Encoded:
    case: Case
    embedding: NDArray[np.float32]
    logit: float
    thumbnail: bytes


def encode_collection(
    collection: Collection,
    source: Searcher | Encoder,
    *,
    keep: IndexBuilder | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Encoding:
    """Encode every radiograph; of a searcher, with its index's model, and but for those that the index holds already.

    What is encoded is added to `keep` at once, as long as the disk takes it, and what an interrupted call has added
    there is not encoded again (see `audit.resume_cache`). `progress` is called with (radiographs done, all). Raises
    CollectionError where none can be read.
    """
    encoder = source.encoder if isinstance(source, Searcher) else source
    done = _indexed(collection, source, workers) if isinstance(source, Searcher) else {}
    reused = len(done)
    unreadable: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    if keep:
        done |= _kept(keep, collection)
        noted = cast(list[list[str]], keep.metadata("warnings") or [])
        warnings = [(case, warning) for case, warning in noted if case in done]
    remaining = [case for case in collection.cases if case.case not in done]
    met = len(done)
    try:
        with closing(encoded_batches(remaining, encoder, workers=workers)) as batches:
            for batch in batches:
                done |= {one.case.case: one for one in _encoded(batch.cases, batch)}
                unreadable += [(case.case, reason) for case, reason in batch.unreadable]
                warnings += [(case.case, warning) for case, warning in batch.warnings]
                if keep and batch.cases and not _keep(keep, collection, batch, warnings):
                    keep = None
                met += len(batch.cases) + len(batch.unreadable)
                if progress:
                    progress(met, len(collection.cases))
    except KeyboardInterrupt:
        what = "are done; the same command goes on from there" if keep else "were encoded, and are lost"
        raise KeyboardInterrupt(f"{met} of {len(collection.cases)} radiographs {what}") from None
    found = [done[case.case] for case in collection.cases if case.case in done]
    if not found:
        raise CollectionError(f"none of the {len(unreadable)} radiographs could be read; the first: {unreadable[0][1]}")
    return Encoding(
        bundle=encoder.bundle,
        rules=source.rules if isinstance(source, Searcher) else None,
        cases=tuple(one.case for one in found),
        embeddings=np.stack([one.embedding for one in found]),
        logits=np.array([one.logit for one in found], np.float32),
        thumbnails=tuple(one.thumbnail for one in found),
        unreadable=tuple(unreadable),
        warnings=tuple(warnings),
        reused=reused,
    )


def deep_audit_of(
    encoding: Encoding, *, assumed: float = ASSUMED, workers: int | None = None, progress: Progress | None = None
) -> DeepAudit:
    """Find near duplicates, then vote on every study without its patient and without whoever shares a radiograph.

    assumed: the share of labels taken to be wrong. `progress` is called with (pairs compared, pairs to compare).
    """
    cases, bundle = encoding.cases, encoding.bundle
    limits = closeness(cases, encoding.embeddings)
    twins = near_duplicates(
        cases, encoding.embeddings, encoding.thumbnails, limits.limit, workers=workers, progress=progress
    )
    seen = bundle.seen()
    rules = encoding.rules or learn_rules(
        cases,
        encoding.embeddings,
        encoding.logits,
        trained_on=seen,
        fallback=bundle_rules(bundle),
        appearance=bundle.appearance(),
    )
    labels = check_labels(
        cases,
        encoding.embeddings,
        encoding.logits,
        rules,
        owners=joined_patients(cases, [*_same_files(cases), *(twin.cases for twin in twins)]),
        trained_on=seen,
        assumed=assumed,
    )
    return DeepAudit(bundle.name, bundle.sha256, encoding.reused, limits, tuple(twins), labels)


def _indexed(collection: Collection, searcher: Searcher, workers: int | None) -> dict[str, _Encoded]:
    """What the index holds of the collection, by the bytes of the files."""
    rows = {case.digest: (row, case.case) for row, case in enumerate(searcher.index.cases()) if case.digest}
    embeddings, logits = searcher.index.embeddings(), searcher.index.logits()
    found: dict[str, _Encoded] = {}
    for case, digest in zip(collection.cases, _digests(collection.cases, workers), strict=True):
        if digest in rows:
            row, indexed = rows[digest]
            if (picture := searcher.index.thumbnail(indexed)) is not None:
                found[case.case] = _Encoded(replace(case, digest=digest), embeddings[row], float(logits[row]), picture)
    return found


def _kept(keep: IndexBuilder, collection: Collection) -> dict[str, _Encoded]:
    """What an interrupted call has encoded of the collection."""
    cases = {case.case: case for case in collection.cases}
    found: dict[str, _Encoded] = {}
    for batch in keep.batches():
        named = [replace(cases[stored.case], digest=stored.digest) for stored in batch.cases]
        found |= {one.case.case: one for one in _encoded(named, batch)}
    return found


def _keep(keep: IndexBuilder, collection: Collection, batch: Batch, warnings: Sequence[tuple[str, str]]) -> bool:
    """Add a batch to what is kept; whether that could be done. A full disk does not end an audit, which needs none."""
    try:
        keep.set_metadata("warnings", warnings)  # first: those of cases that are not added do not count
        keep.add([*map(collection.stored, batch.cases)], batch.embeddings, batch.thumbnails, batch.logits)
    except (IndexFailure, OSError):
        return False
    return True


def _encoded(cases: Sequence[Case], batch: Batch | Stored) -> list[_Encoded]:
    """The rows of a batch, each with its case."""
    parts = zip(cases, batch.embeddings, batch.logits, batch.thumbnails, strict=True)
    return [_Encoded(case, embedding, float(logit), picture) for case, embedding, logit, picture in parts]


def _digests(cases: Sequence[Case], workers: int | None) -> list[str]:
    """The digests of the files, "" of one that cannot be read; whoever encodes it says why."""

    def digest(case: Case) -> str:
        try:
            return file_digest(Path(case.path))
        except OSError:
            return ""

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(digest, cases))


def _same_files(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """Each case whose file was there before, with the first one of these bytes."""
    first: dict[str, str] = {}
    return [(first[case.digest], case.case) for case in cases if first.setdefault(case.digest, case.case) != case.case]
