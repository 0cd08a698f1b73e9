"""Faults of a collection that only its pictures show: near duplicates, and labels that look wrong."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexFailure
from retrieval.audit.label_issues import ASSUMED, LabelCheck, check_labels
from retrieval.audit.near_duplicates import (
    NearDuplicate,
    SimilarityLimit,
    joined_patients,
    near_duplicates,
    similarity_limit,
)
from retrieval.datasets.collection import Collection
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.batches import Batch, EncodedCase, EncodingOptions, Progress, case_digest, encode_all, stack
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError
from retrieval.formats.csv_format import Row
from retrieval.formats.json_format import plain
from retrieval.indexing.build import bundle_rules
from retrieval.notices import Notice
from retrieval.searcher import Searcher

__all__ = ["DeepFindings", "EncodedCollection", "deep_findings", "encode_collection"]


@dataclass(frozen=True, slots=True)
class EncodedCollection:
    """N radiographs of a collection, encoded: cases with their digests, embeddings (N, D), logits (N,), thumbnails.

    `reused` of them were in an index already. `rules` are that index's, None where they have to be learned.
    `unreadable` holds (case, reason); `notices` are about the other radiographs, and name their cases.
    """

    bundle: Bundle = field(repr=False)
    rules: Rules | None
    cases: tuple[Case, ...]
    embeddings: NDArray[np.float32] = field(repr=False)
    logits: NDArray[np.float32] = field(repr=False)
    thumbnails: tuple[bytes, ...] = field(repr=False)
    unreadable: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    reused: int = 0


@dataclass(frozen=True, slots=True)
class DeepFindings:
    """What a deep audit adds: near duplicates in the order of the collection, and label issues.

    `model` and `model_sha256` name the model that encoded the radiographs; `reused` of them were in an index already.
    """

    model: str
    model_sha256: str
    reused: int
    similarity_limit: SimilarityLimit
    near_duplicates: tuple[NearDuplicate, ...]
    labels: LabelCheck

    def rows(self) -> Iterator[Row]:
        """The findings as lines of the audit's table."""
        for pair in self.near_duplicates:
            names = dict(zip(("case", "other_case", "study", "other_study"), pair.cases + pair.studies, strict=True))
            yield {"finding": "near duplicate", **asdict(pair), **names}
        for issue in self.labels.issues:
            neighbours = "; ".join(f"{near.study} {near.label} {near.similarity:.3f}" for near in issue.neighbours)
            renamed = {"case": issue.cases[0], "other_label": issue.other, "detail": neighbours}
            yield {"finding": "suspect label", **asdict(issue), **renamed}


def encode_collection(
    collection: Collection,
    source: Searcher | Encoder,
    *,
    cache: IndexBuilder | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> EncodedCollection:
    """Encode every radiograph. A searcher's index gives its model, and the radiographs that it holds already.

    Each encoded batch is added to `cache` (see `audit.resume_cache`), and what an interrupted call added there is not
    encoded again. `progress` is called with (radiographs done, all). Raises CollectionError where no radiograph can be
    read.
    """
    if isinstance(source, Searcher):
        encoder, rules, done = source.encoder, source.rules, _indexed(collection, source, workers)
    else:
        encoder, rules, done = source, None, {}
    reused = len(done)
    store = _Store(done, collection, cache)
    remaining = [case for case in collection.cases if case.case not in done]
    report = encode_all(
        remaining, encoder, store.add, EncodingOptions(workers=workers), done=len(done), progress=progress
    )
    rows = [done[case.case] for case in collection.cases if case.case in done]
    if not rows:
        first = report.unreadable[0][1]
        raise CollectionError(f"none of the {len(report.unreadable)} radiographs could be read; the first: {first}")
    encoded = stack(rows)
    return EncodedCollection(
        bundle=encoder.bundle,
        rules=rules,
        cases=tuple(row.case for row in rows),
        embeddings=encoded.embeddings,
        logits=encoded.logits,
        thumbnails=tuple(row.thumbnail for row in rows),
        unreadable=tuple(report.unreadable),
        notices=tuple(store.notices),
        reused=reused,
    )


class _Store:
    """Where encoded batches go: into `rows` by case, and to the resume cache as long as that can be written."""

    def __init__(self, rows: dict[str, EncodedCase], collection: Collection, cache: IndexBuilder | None) -> None:
        """`rows` gains what an interrupted call left in the cache."""
        self.rows = rows
        self.notices: list[Notice] = []
        self._collection = collection
        self._cache = cache
        if cache:
            cases = {case.case: case for case in collection.cases}
            for batch in cache.batches():
                named = [replace(cases[stored.case], digest=stored.digest) for stored in batch.cases]
                kept = Batch(named, batch.embeddings, batch.logits, list(batch.thumbnails), [], [])
                rows.update((row.case.case, row) for row in kept.rows())
            stored = cast(list[dict[str, Any]], cache.metadata("notices") or [])
            self.notices = [Notice(**notice) for notice in stored if notice["view"] in rows]

    def add(self, batch: Batch) -> bool:
        """Add a batch; gives whether it is in the cache. A full disk does not end an audit, which needs no cache."""
        self.rows.update((row.case.case, row) for row in batch.rows())
        self.notices += batch.notices
        if self._cache and batch.cases:
            try:
                self._cache.set_metadata(
                    "notices", plain(self.notices)
                )  # first: those of cases without a row do not count
                stored = [*map(self._collection.stored, batch.cases)]
                self._cache.add(stored, batch.embeddings, batch.thumbnails, batch.logits)
            except (IndexFailure, OSError):
                self._cache = None
        return self._cache is not None


def deep_findings(
    encoded: EncodedCollection,
    *,
    assumed: float = ASSUMED,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DeepFindings:
    """Find near duplicates, then vote on every study without its patient and patients who share a radiograph with it.

    assumed: the share of labels taken to be wrong. `progress` is called with (pairs compared, pairs to compare).
    """
    cases, bundle = encoded.cases, encoded.bundle
    limit = similarity_limit(cases, encoded.embeddings)
    pairs = near_duplicates(
        cases, encoded.embeddings, encoded.thumbnails, limit.limit, workers=workers, progress=progress
    )
    studies = LabelledStudies(cases, encoded.embeddings, encoded.logits, bundle.seen_in(cases, encoded.thumbnails))
    rules = encoded.rules or learn_rules(studies, fallback=bundle_rules(bundle), appearance=bundle.appearance())
    owners = joined_patients(cases, [*_same_files(cases), *(pair.cases for pair in pairs)])
    labels = check_labels(studies, rules, owners=owners, assumed=assumed)
    return DeepFindings(bundle.name, bundle.sha256, encoded.reused, limit, tuple(pairs), labels)


def _indexed(collection: Collection, searcher: Searcher, workers: int | None) -> dict[str, EncodedCase]:
    """The radiographs of the collection that the index holds, recognised by the bytes of their files."""
    rows = {case.digest: (row, case.case) for row, case in enumerate(searcher.index.cases()) if case.digest}
    embeddings, logits = searcher.index.embeddings(), searcher.index.logits()
    indexed: dict[str, EncodedCase] = {}
    for case, digest in zip(collection.cases, _digests(collection.cases, workers), strict=True):
        if digest in rows:
            row, name = rows[digest]
            if (picture := searcher.index.thumbnail(name)) is not None:
                record = replace(case, digest=digest)
                indexed[case.case] = EncodedCase(record, embeddings[row], float(logits[row]), picture)
    return indexed


def _digests(cases: Sequence[Case], workers: int | None) -> list[str]:
    """The digests of the files; "" for a file that cannot be read, which `encode_all` reports."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(case_digest, cases))


def _same_files(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """The pairs of cases whose files are the same: the first one of these bytes, and a later one."""
    first: dict[str, str] = {}
    return [(first[case.digest], case.case) for case in cases if first.setdefault(case.digest, case.case) != case.case]
