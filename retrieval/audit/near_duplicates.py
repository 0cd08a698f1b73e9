"""Near duplicates: the same radiograph twice, in another size, brightness, crop or encoding, or mirrored.

Three sieves, each finer and dearer than the one before, so that 40,000 radiographs take minutes, not days: perceptual
hashes and embeddings name candidates (`perceptual_hash`; all pairs, as blocks of NumPy), and a candidate is a near
duplicate where the fine details of the two agree (`audit.registration`). N radiographs, D numbers of an embedding.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.audit.perceptual_hash import BITS, distances, perceptual_hashes
from retrieval.audit.registration import Match, detail_match

__all__ = ["NearDuplicate", "Pictures", "SimilarityLimit", "joined_patients", "near_duplicates", "similarity_limit"]

SURE = 8  # bits: candidates whatever the model says; a strong compression can mislead it
NEAR = 22  # bits: candidates where their embeddings are alike too, before those further apart
CLOSEST = 5  # candidates of each kind for one radiograph
# The same where copies are looked for elsewhere only: of 264 copies planted among FracAtlas's radiographs one candidate
# finds 226, two find 237 and have twice as many pairs compared.
CLOSEST_ELSEWHERE = 1
_SHARE = 0.1  # of the pairs of different patients lie above the limit of similarity
_PAIRS = 200_000  # settle that limit
_AT_ONCE = 256  # comparisons between two reports of progress

Embeddings = NDArray[np.float32]


class Pictures(Protocol):
    """N pictures as JPEG or PNG, such as a list of them. What is no picture counts as a blank one."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __getitem__(self, row: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SimilarityLimit:
    """The cosine of embeddings from which two radiographs are candidates.

    `limit` is the cosine that 10 % of the pairs of different patients reach, `within` the share of the pairs of one
    patient that reach it. Both are None where there are no such pairs, and then all pairs are candidates.
    """

    limit: float | None
    within: float | None


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two radiographs that are one. The first comes earlier in the collection.

    `bits` of 64 differ between the perceptual hashes, `similarity` is the cosine of the embeddings, `match` the
    correlation of the details; `mirrored` where one is the other's mirror image.
    """

    cases: tuple[str, str]
    studies: tuple[str, str]
    bits: int
    similarity: float
    match: float
    mirrored: bool
    across_splits: bool
    across_patients: bool
    across_studies: bool
    across_labels: bool


@dataclass(frozen=True, slots=True)
class _Candidate:
    one: int
    two: int
    bits: int
    mirrored: bool


def similarity_limit(cases: Sequence[Case], embeddings: Embeddings, seed: int = 0) -> SimilarityLimit:
    """Learn the limit from the pairs of radiographs; a sample of the pairs where there are many."""
    patients = np.unique([case.patient for case in cases], return_inverse=True)[1]
    N = len(cases)
    if N * (N - 1) // 2 <= _PAIRS:
        one, two = np.triu_indices(N, 1)
    else:
        one, two = np.random.default_rng(seed).integers(0, N, (2, _PAIRS))
        one, two = one[one != two], two[one != two]
    apart = patients[one] != patients[two]
    if not apart.any():
        return SimilarityLimit(None, None)
    between = np.einsum("nd,nd->n", embeddings[one[apart]], embeddings[two[apart]])
    limit = float(np.quantile(between, 1 - _SHARE))
    neighbours = _within(patients)
    within = np.einsum("nd,nd->n", embeddings[neighbours[0]], embeddings[neighbours[1]])
    return SimilarityLimit(limit, float((within >= limit).mean()) if len(within) else None)


def _within(patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of one patient: each radiograph with the patient's next one."""
    order = np.argsort(patients, kind="stable")
    same = patients[order[:-1]] == patients[order[1:]]
    return order[:-1][same], order[1:][same]


def near_duplicates(
    cases: Sequence[Case],
    embeddings: Embeddings,
    thumbnails: Pictures,
    limit: float | None,
    *,
    asked: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[NearDuplicate]:
    """Find near duplicates; files that are the same byte for byte (by their digests) are not listed again.

    thumbnails: N pictures, read once in their order, then those of candidates; limit: as of `similarity_limit`
    gives it; asked: look only for copies of the first so many radiographs among the others, by default for copies of
    any among all. In the order of the collection. `progress` is called with (pairs compared, pairs to compare).
    """
    candidates = [
        one
        for one in _candidates(thumbnails, embeddings, limit, asked)
        if not cases[one.one].digest or cases[one.one].digest != cases[one.two].digest
    ]

    def compare(pair: _Candidate, pictures: tuple[bytes, bytes]) -> Match:
        one, two = map(_grey, pictures)
        return detail_match(np.ascontiguousarray(one[:, ::-1]) if pair.mirrored else one, two)

    best: dict[tuple[int, int], NearDuplicate] = {}
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for start in range(0, len(candidates), _AT_ONCE):
            some = candidates[start : start + _AT_ONCE]
            pictures = [(thumbnails[pair.one], thumbnails[pair.two]) for pair in some]
            for pair, match in zip(some, pool.map(compare, some, pictures), strict=True):
                known = best.get((pair.one, pair.two))
                if match.copy and (known is None or match.correlation > known.match):
                    similarity = float(embeddings[pair.one] @ embeddings[pair.two])
                    best[pair.one, pair.two] = _twin(cases, pair, similarity, match.correlation)
            if progress:
                progress(start + len(some), len(candidates))
    finally:  # an interrupted audit does not go on comparing
        pool.shutdown(cancel_futures=True)
    return [best[pair] for pair in sorted(best)]


def joined_patients(cases: Sequence[Case], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """For each case its patient, where patients who share a radiograph count as one: by `pairs` of case names."""
    joined = {case.patient: case.patient for case in cases}

    def root(patient: str) -> str:
        while joined[patient] != patient:
            joined[patient] = patient = joined[joined[patient]]
        return patient

    patient_of = {case.case: case.patient for case in cases}
    for one, two in pairs:
        joined[root(patient_of[two])] = root(patient_of[one])
    return [root(case.patient) for case in cases]


def _grey(thumbnail: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE) if thumbnail else None
    return np.zeros((1, 1), np.uint8) if picture is None else np.asarray(picture, np.uint8)


def _candidates(
    thumbnails: Pictures, embeddings: Embeddings, limit: float | None, asked: int | None = None
) -> list[_Candidate]:
    """Pairs worth comparing, each once for either way round; blank pictures are like anything and left out."""
    hashed = [perceptual_hashes(_grey(thumbnail)) for thumbnail in thumbnails]
    rows = np.array([row for row, pair in enumerate(hashed) if pair], np.int64)
    upright = np.array([pair[0] for pair in hashed if pair], np.uint64)
    mirrored = np.array([pair[1] for pair in hashed if pair], np.uint64)
    own = None if asked is None else int(np.searchsorted(rows, asked))
    found: dict[tuple[int, int, bool], int] = {}
    for of_two, is_mirrored in ((upright, False), (mirrored, True)):
        for one, two, bits in _close(upright, of_two, embeddings[rows], limit, own, is_mirrored=is_mirrored):
            first, second = sorted((int(rows[one]), int(rows[two])))
            found[first, second, is_mirrored] = bits
    return [_Candidate(one, two, bits, is_mirrored) for (one, two, is_mirrored), bits in sorted(found.items())]


def _close(
    hashes: NDArray[np.uint64],
    others: NDArray[np.uint64],
    embeddings: Embeddings,
    limit: float | None,
    asked: int | None,
    *,
    is_mirrored: bool,
) -> Iterator[tuple[int, int, int]]:
    """For each row the others nearest by hash, nearest by embedding, and so among those that hashes put near."""
    everyone = np.arange(len(hashes))
    most = CLOSEST if asked is None else CLOSEST_ELSEWHERE
    for start, bits in distances(hashes[:asked], others):
        own = everyone[start : start + len(bits)]
        bits[own - start, own] = BITS + 1  # a radiograph is not its own twin
        bits[:, : asked or 0] = BITS + 1
        yield from _least(bits.astype(np.float32), start, bits, bits <= SURE, most)
        products = embeddings[own] @ embeddings.T
        alike = (products >= (-2 if limit is None else limit)) & (bits <= BITS)
        yield from _least(-products, start, bits, alike & (bits <= NEAR), most)
        if not is_mirrored:  # whose embeddings would not be the nearest
            yield from _least(-products, start, bits, alike, most)


def _least(
    costs: NDArray[np.float32], start: int, bits: NDArray[np.uint8], allowed: NDArray[np.bool_], most: int
) -> Iterator[tuple[int, int, int]]:
    """Of every row the few allowed columns of the lowest costs: (row, column, bits)."""
    for row in np.flatnonzero(allowed.any(axis=1)):
        columns = np.flatnonzero(allowed[row])
        if len(columns) > most:
            columns = columns[np.argpartition(costs[row, columns], most - 1)[:most]]
        for column in columns:
            yield start + int(row), int(column), int(bits[row, column])


def _twin(cases: Sequence[Case], pair: _Candidate, similarity: float, match: float) -> NearDuplicate:
    one, two = cases[pair.one], cases[pair.two]
    return NearDuplicate(
        cases=(one.case, two.case),
        studies=(one.study, two.study),
        bits=pair.bits,
        similarity=similarity,
        match=match,
        mirrored=pair.mirrored,
        across_splits=len({one.split, two.split} - {""}) > 1,
        across_patients=one.patient != two.patient,
        across_studies=one.study != two.study,
        across_labels=one.label != two.label,
    )
