"""Near duplicates: the same radiograph twice, changed in size, brightness, crop, encoding, orientation or polarity.

Perceptual hashes and embeddings name candidates (`perceptual_hash`; all pairs, as blocks of NumPy). A candidate is a
near duplicate if the fine details of the two agree (`audit.registration`). Each step is finer and slower than the one
before, so that 40,000 radiographs take minutes. N radiographs, D numbers of an embedding; V versions: each radiograph,
and once more without its border if it has one.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.audit.perceptual_hash import (
    BITS,
    ORIENTATIONS,
    Orientation,
    distances,
    perceptual_hashes,
    without_border,
)
from retrieval.audit.registration import Match, detail_match
from retrieval.encoding.batches import Progress

__all__ = ["NearDuplicate", "Pictures", "SimilarityLimit", "joined_patients", "near_duplicates", "similarity_limit"]

SURE = 8  # bits: candidates without regard to their embeddings, since a strong compression can mislead the model
CHANGED = 14  # bits: the same for turned and inverted pictures, and within borders, whose embeddings say nothing
NEAR = 22  # bits: candidates if their embeddings are alike too, before those that are further apart
CLOSEST = 5  # candidates of each kind for one radiograph
# The same for a search in other radiographs: of 264 changed radiographs planted in FracAtlas one candidate finds 226;
# two find 237, and twice as many pairs are compared.
CLOSEST_ELSEWHERE = 1
_SHARE = 0.1  # of the pairs of different patients reach the limit of similarity
_PAIRS = 200_000  # from which that limit is learned
_INSIDE = 0.955  # correlation of aligned details within borders, where a thumbnail has fewer pixels for them
_AT_ONCE = 256  # comparisons between two reports of progress

Embeddings = NDArray[np.float32]
Grey = NDArray[np.uint8]


class Pictures(Protocol):
    """N pictures as JPEG or PNG, such as a list of them. Bytes that are no picture count as a blank picture."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __getitem__(self, row: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SimilarityLimit:
    """The cosine of embeddings from which two radiographs are candidates.

    `limit` is the cosine that 10 % of the pairs of different patients reach, `within` the share of the pairs of one
    patient that reach it. Both are None without such pairs; then all pairs are candidates.
    """

    limit: float | None
    within: float | None


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two radiographs that are the same. The first comes earlier in the collection.

    `bits` of 64 differ between the perceptual hashes, `similarity` is the cosine of the embeddings, `match` the
    correlation of the details. The second is the first `mirrored` left to right, then `turned` counter-clockwise by
    0, 90, 180 or 270 degrees, and `inverted`; `border` is True if either was compared without its border.
    """

    cases: tuple[str, str]
    studies: tuple[str, str]
    bits: int
    similarity: float
    match: float
    mirrored: bool
    turned: int
    inverted: bool
    border: bool
    across_splits: bool
    across_patients: bool
    across_studies: bool
    across_labels: bool

    @property
    def change(self) -> str:
        """How the two differ, in words, such as "inverted, turned by 90 degrees"; "" for the rest."""
        words = {
            "mirrored": self.mirrored,
            f"turned by {self.turned} degrees": self.turned > 0,
            "inverted": self.inverted,
            "without a border": self.border,
        }
        return ", ".join(word for word, applies in words.items() if applies)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Two radiographs by their rows, and how the first is changed before it is compared."""

    first: int
    second: int
    first_inside: bool  # without its border
    second_inside: bool
    orientation: Orientation
    inverted: bool
    bits: int

    def compare(self, pictures: tuple[bytes, bytes]) -> Match:
        whole = [_grey(picture) for picture in pictures]
        within = [without_border(picture) for picture in whole]
        sides = zip(whole, within, (self.first_inside, self.second_inside), strict=True)
        first, second = (inside if is_inside else outside for outside, inside, is_inside in sides)
        framed = all(outside.shape != inside.shape for outside, inside in zip(whole, within, strict=True))
        first = self.orientation.applied(255 - first if self.inverted else first)
        return detail_match(first, second, framed=framed and not (self.first_inside or self.second_inside))

    def accepts(self, match: Match) -> bool:
        """Whether the two are the same radiograph."""
        inside = self.first_inside or self.second_inside
        return match.same or (inside and match.aligned and match.correlation >= _INSIDE)

    def swapped(self) -> "_Candidate":
        return replace(
            self,
            first=self.second,
            second=self.first,
            first_inside=self.second_inside,
            second_inside=self.first_inside,
            orientation=self.orientation.inverse,
        )


@dataclass(frozen=True, slots=True)
class _Versions:
    """The hashes (V, 8) of V versions in each of `ORIENTATIONS`, their rows (V,), and which lack a border (V,)."""

    hashes: NDArray[np.uint64]
    rows: NDArray[np.int64]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, pictures: Pictures) -> "_Versions":
        """The versions in the order of the pictures; blank pictures are like anything and have none."""
        hashes, rows, inside = [], [], []
        for row, data in enumerate(pictures):
            picture = _grey(data)
            within = without_border(picture)
            for is_inside, version in ((False, picture), (True, within))[: 1 + (within.shape != picture.shape)]:
                if version_hashes := perceptual_hashes(version):
                    hashes.append(version_hashes)
                    rows.append(row)
                    inside.append(is_inside)
        shape = (len(rows), len(ORIENTATIONS))
        return cls(np.array(hashes, np.uint64).reshape(shape), np.array(rows, np.int64), np.array(inside, np.bool_))


def similarity_limit(cases: Sequence[Case], embeddings: Embeddings) -> SimilarityLimit:
    """Learn the limit from the pairs of radiographs, or from a sample of many pairs."""
    patients = np.unique([case.patient for case in cases], return_inverse=True)[1]
    N = len(cases)
    if N * (N - 1) // 2 <= _PAIRS:
        first, second = np.triu_indices(N, 1)
    else:
        first, second = np.random.default_rng(0).integers(0, N, (2, _PAIRS))
        first, second = first[first != second], second[first != second]
    apart = patients[first] != patients[second]
    if not apart.any():
        return SimilarityLimit(None, None)
    between = np.einsum("nd,nd->n", embeddings[first[apart]], embeddings[second[apart]])
    limit = float(np.quantile(between, 1 - _SHARE))
    order = np.argsort(patients, kind="stable")  # each radiograph with the patient's next one
    same = patients[order[:-1]] == patients[order[1:]]
    within = np.einsum("nd,nd->n", embeddings[order[:-1][same]], embeddings[order[1:][same]])
    return SimilarityLimit(limit, float((within >= limit).mean()) if len(within) else None)


def near_duplicates(
    cases: Sequence[Case],
    embeddings: Embeddings,
    thumbnails: Pictures,
    limit: float | None,
    *,
    asked: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[NearDuplicate]:
    """Find near duplicates, in the order of the collection; files with the same digest are not listed again.

    thumbnails: N pictures, read once in their order, then those of candidates. limit: that of `similarity_limit`.
    asked: search the other radiographs for the first so many, by default all for all. `progress` is called with (pairs
    compared, all).
    """
    candidates = [
        pair
        for pair in _candidates(thumbnails, embeddings, limit, asked)
        if not cases[pair.first].digest or cases[pair.first].digest != cases[pair.second].digest
    ]
    best: dict[tuple[int, int], tuple[_Candidate, Match]] = {}
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for start in range(0, len(candidates), _AT_ONCE):
            batch = candidates[start : start + _AT_ONCE]
            pictures = [(thumbnails[pair.first], thumbnails[pair.second]) for pair in batch]
            for pair, match in zip(batch, pool.map(_Candidate.compare, batch, pictures), strict=True):
                rows = pair.first, pair.second
                if pair.accepts(match) and (rows not in best or match.correlation > best[rows][1].correlation):
                    best[rows] = pair, match
            if progress:
                progress(start + len(batch), len(candidates))
    finally:  # an interrupted audit compares no more
        pool.shutdown(cancel_futures=True)
    return [
        _near_duplicate(cases[pair.first], cases[pair.second], pair, match, embeddings)
        for _, (pair, match) in sorted(best.items())
    ]


def joined_patients(cases: Sequence[Case], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """For each case its patient, where patients who share a radiograph count as one: by `pairs` of case names."""
    joined = {case.patient: case.patient for case in cases}

    def root(patient: str) -> str:
        while joined[patient] != patient:
            joined[patient] = patient = joined[joined[patient]]
        return patient

    patient_of = {case.case: case.patient for case in cases}
    for first, second in pairs:
        joined[root(patient_of[second])] = root(patient_of[first])
    return [root(case.patient) for case in cases]


def _grey(thumbnail: bytes) -> Grey:
    picture = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE) if thumbnail else None
    return np.zeros((1, 1), np.uint8) if picture is None else np.asarray(picture, np.uint8)


def _candidates(
    thumbnails: Pictures, embeddings: Embeddings, limit: float | None, asked: int | None = None
) -> list[_Candidate]:
    """Pairs worth comparing, each once for each way to change the first, the first rows first."""
    versions = _Versions.of(thumbnails)
    named = set()
    for pair in _close(versions, embeddings[versions.rows], limit, asked):
        named.add(pair if pair.first < pair.second else pair.swapped())
    return sorted(named, key=lambda pair: (pair.first, pair.second, pair.bits))


def _close(versions: _Versions, embeddings: Embeddings, limit: float | None, asked: int | None) -> Iterator[_Candidate]:
    """For each version the others nearest by hash; if alike by embedding too, further ones that hashes put near.

    embeddings (V, D). A turned or inverted radiograph has another embedding, so there the hash alone decides.
    """
    most = CLOSEST if asked is None else CLOSEST_ELSEWHERE
    rows, inside, upright = versions.rows, versions.inside, versions.hashes[:, 0]
    count = len(rows) if asked is None else int(np.searchsorted(rows, asked))
    for number, orientation in enumerate(ORIENTATIONS):
        for start, distance in distances(upright[:count], versions.hashes[:, number]):
            here = slice(start, start + len(distance))
            others = rows[here, None] != rows
            others[:, : 0 if asked is None else count] = False
            sure = others & (distance <= (CHANGED if orientation.turns else SURE))
            if not orientation.turns and inside.any():
                sure |= others & (inside[here, None] | inside) & (distance <= CHANGED)
            kinds: list[tuple[NDArray[np.bool_], NDArray[Any], bool]] = [
                (sure, distance, False),
                (others & (distance >= BITS - CHANGED), BITS - distance, True),
            ]
            if orientation.turns == 0:
                products = embeddings[here] @ embeddings.T
                alike = others & (products >= (-2 if limit is None else limit))
                kinds.append((alike & (distance <= NEAR), -products, False))
                if not orientation.mirrored:  # the embeddings of mirror images are not the nearest
                    kinds.append((alike, -products, False))
            for allowed, costs, inverted in kinds:
                for row, second in _least(costs, allowed, most):
                    first, differing = start + row, int(distance[row, second])
                    differing = BITS - differing if inverted else differing
                    names = int(rows[second]), int(rows[first]), bool(inside[second]), bool(inside[first])
                    yield _Candidate(*names, orientation, inverted, differing)


def _least(costs: NDArray[Any], allowed: NDArray[np.bool_], most: int) -> Iterator[tuple[int, int]]:
    """In every row the few allowed columns of the lowest costs: (row, column)."""
    for row in np.flatnonzero(allowed.any(axis=1)):
        columns = np.flatnonzero(allowed[row])
        if len(columns) > most:
            columns = columns[np.argpartition(costs[row, columns], most - 1)[:most]]
        yield from ((int(row), int(column)) for column in columns)


def _near_duplicate(first: Case, second: Case, pair: _Candidate, match: Match, embeddings: Embeddings) -> NearDuplicate:
    return NearDuplicate(
        cases=(first.case, second.case),
        studies=(first.study, second.study),
        bits=pair.bits,
        similarity=float(embeddings[pair.first] @ embeddings[pair.second]),
        match=match.correlation,
        mirrored=pair.orientation.mirrored,
        turned=90 * pair.orientation.turns,
        inverted=pair.inverted,
        border=pair.first_inside or pair.second_inside,
        across_splits=len({first.split, second.split} - {""}) > 1,
        across_patients=first.patient != second.patient,
        across_studies=first.study != second.study,
        across_labels=first.label != second.label,
    )
