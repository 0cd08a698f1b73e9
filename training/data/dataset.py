"""Labelled radiographs prepared for training: decoded and preprocessed once, lesions' boxes beside them."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import case_digest, shown_name, thumbnail
from retrieval.encoding.picture_hash import Hashes, picture_hash, picture_hashes
from retrieval.errors import RadiographError
from retrieval.images.preprocessing import Letterbox, Preprocessing, enhance, preprocess
from retrieval.images.radiograph import read_radiograph
from training.data.cache import PictureCache, Prepared, default_cache
from training.data.lesion_boxes import COVERAGE_STEP, Box, boxes_of, cover
from training.data.processing import processed
from training.distributed import rank_and_size
from training.errors import TrainingError

__all__ = ["TrainingSet", "listed_cases", "load_training_set"]

_AT_ONCE = 64  # radiographs prepared between two reports of progress

Progress = Callable[[int, int], None]


class _Made(NamedTuple):
    """A prepared radiograph: the digest of its file, its height and width, and its hash (64,)."""

    digest: str
    height: int
    width: int
    hash: Hashes


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """N prepared radiographs, in files or in memory.

    `known` (N,) says whose lesions are known: normal ones have none, abnormal ones where the collection gives boxes.
    `pictures` gives the picture of each case; its lesions are boxes in a radiograph of a size, or coverage as it is.
    `hashes` (N, 64) are those of the radiographs (`encoding.picture_hash`). `processed` gives each picture again as
    another hospital would have processed the radiograph, drawn from a generator; it is empty where nothing can.
    """

    cases: tuple[Case, ...]
    known: NDArray[np.bool_]
    hashes: Hashes
    pictures: tuple[Callable[[], NDArray[np.uint8]], ...]
    lesions: tuple[tuple[Sequence[Box], int, int] | NDArray[np.uint8], ...]
    processed: tuple[Callable[[np.random.Generator], NDArray[np.uint8]], ...] = ()

    @classmethod
    def of_arrays(
        cls, cases: Sequence[Case], pictures: NDArray[np.uint8], coverage: NDArray[np.uint8], known: NDArray[np.bool_]
    ) -> "TrainingSet":
        """A set in memory: pictures (N, S, S, 1 or 3), coverage (N, S/4, S/4) of 0 to 255."""
        hashes = picture_hashes(map(thumbnail, pictures))
        return cls(
            tuple(cases), known, hashes, tuple(partial(np.asarray, picture) for picture in pictures), tuple(coverage)
        )

    def rows(self, taken: NDArray[np.int64]) -> "TrainingSet":
        """Only the rows `taken` (n,), in this order, without a copy of the pictures."""
        return TrainingSet(
            tuple(self.cases[i] for i in taken),
            self.known[taken],
            self.hashes[taken],
            tuple(self.pictures[i] for i in taken),
            tuple(self.lesions[i] for i in taken),
            tuple(self.processed[i] for i in taken) if self.processed else (),
        )

    def of_part(self, part: str) -> "TrainingSet":
        """Only the radiographs of a body part; all of them where `part` is "". Raises TrainingError where none is."""
        if not part:
            return self
        rows = np.array([row for row, case in enumerate(self.cases) if case.part == part], np.int64)
        if not len(rows):
            there = ", ".join(sorted({case.part for case in self.cases}))
            raise TrainingError(f"there is no radiograph of {part} to learn from; there are: {there}")
        return self.rows(rows)

    def fingerprint(self) -> str:
        """SHA-256 of all that a run learns from: radiographs, identities, patients, lesions, and their order."""
        fingerprint = hashlib.sha256()
        for case, known, lesion in zip(self.cases, self.known, self.lesions, strict=True):
            listed = (case.digest, case.part, case.label, case.patient, case.study, bool(known))
            fingerprint.update(
                f"{listed}\n{lesion if isinstance(lesion, tuple) else ''}\n".encode(errors="surrogateescape")
            )
            fingerprint.update(b"" if isinstance(lesion, tuple) else lesion.tobytes())
        return fingerprint.hexdigest()

    def take(
        self, rows: Sequence[int], generator: np.random.Generator | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures (B, S, S, C), C 1 where all are grey and else 3, and coverage (B, S/4, S/4), 255 on a lesion.

        With a generator the pictures are processed as it draws, if the set has `processed`.
        """
        if generator is None or not self.processed:
            pictures = [self.pictures[i]() for i in rows]
        else:
            pictures = [self.processed[i](generator) for i in rows]
        channels = max(picture.shape[2] for picture in pictures)
        taken = np.empty((len(pictures), *pictures[0].shape[:2], channels), np.uint8)
        for number, picture in enumerate(pictures):
            taken[number] = picture
        size = taken.shape[1]
        coverage = np.empty((len(taken), size // COVERAGE_STEP, size // COVERAGE_STEP), np.uint8)
        for number, i in enumerate(rows):
            lesion = self.lesions[i]
            coverage[number] = cover(*lesion, size) if isinstance(lesion, tuple) else lesion
        return taken, coverage


def load_training_set(
    collections: Sequence[Collection],
    preprocessing: Preprocessing,
    progress: Progress | None = None,
    *,
    cache: Path | None = None,
    processing: float = 0.0,
) -> tuple[TrainingSet, list[tuple[str, str]]]:
    """Prepare every radiograph that `cache` does not hold yet; also the (name, reason) of those that cannot be read.

    `cache` is `default_cache()` unless named. With `processing` above 0 the radiographs are also kept without CLAHE, so
    that they can be changed before it (`data.processing`, with this strength). Patients, studies and cases of several
    collections are kept apart by the collection's number. Raises TrainingError where nothing can be read, or the disk
    has no room.
    """
    cases = listed_cases(collections)
    boxes = [boxes for collection in collections for boxes in boxes_of(collection)]
    store = PictureCache(default_cache() if cache is None else cache, preprocessing)
    results = _prepare(cases, store, preprocessing, progress)
    raw = replace(preprocessing, clahe=False)
    unenhanced = PictureCache(default_cache() if cache is None else cache, raw)
    if processing:
        _prepare(cases, unenhanced, raw, progress)
    everything = zip(cases, boxes, results, strict=True)
    listed = [(case, lesions, made) for case, lesions, made in everything if not isinstance(made, str)]
    if not listed:
        raise TrainingError("none of the radiographs can be read; `mura-search audit` lists the reasons")
    return TrainingSet(
        tuple(replace(case, digest=made.digest) for case, _, made in listed),
        np.array([case.label != ABNORMAL or bool(lesions) for case, lesions, _ in listed]),
        np.stack([made.hash for _, _, made in listed]),
        tuple(partial(_picture, store, made.digest) for _, _, made in listed),
        tuple((lesions, made.height, made.width) for _, lesions, made in listed),
        tuple(
            partial(_processed, store, unenhanced, made, preprocessing=preprocessing, strength=processing)
            for _, _, made in listed
            if processing
        ),
    ), [(shown_name(case), result) for case, result in zip(cases, results, strict=True) if isinstance(result, str)]


def listed_cases(collections: Sequence[Collection]) -> list[Case]:
    """The cases as `load_training_set` names them, none of them read."""
    if len(collections) == 1:
        return list(collections[0].cases)
    return [
        replace(case, case=f"{n}/{case.case}", patient=f"{n}/{case.patient}", study=f"{n}/{case.study}")
        for n, collection in enumerate(collections)
        for case in collection.cases
    ]


def _picture(store: PictureCache, digest: str) -> NDArray[np.uint8]:
    prepared = store.read(digest)
    if prepared is None:  # it was whole when the set was loaded
        raise TrainingError(f"{store.folder} was changed or damaged during the run; run the same command with --resume")
    return prepared.picture


def _processed(
    store: PictureCache,
    unenhanced: PictureCache,
    made: _Made,
    generator: np.random.Generator,
    *,
    preprocessing: Preprocessing,
    strength: float,
) -> NDArray[np.uint8]:
    """A picture changed at its size in the letterbox, before CLAHE; as it is kept where nothing is changed."""
    picture = _picture(unenhanced, made.digest)
    box = Letterbox.fit(made.height, made.width, preprocessing.size)
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    changed = processed(picture[rows, columns].mean(2).astype(np.uint8), generator, strength)
    if changed is None:
        return _picture(store, made.digest)
    result = np.zeros((*picture.shape[:2], 1), np.uint8)
    result[rows, columns, 0] = enhance(changed, preprocessing) if preprocessing.clahe else changed
    return result


def _prepare(
    cases: Sequence[Case], store: PictureCache, preprocessing: Preprocessing, progress: Progress | None
) -> list[_Made | str]:
    """What each radiograph is in the store, into which it is brought if it is missing there; or why it cannot be read.

    Each of several processes begins at another radiograph, and reads none that another process has prepared.
    """
    rank, size = rank_and_size()
    begin = len(cases) * rank // size
    order = [*range(begin, len(cases)), *range(begin)]
    results: list[_Made | str] = [""] * len(cases)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(case_digest, cases))
        _require_room(store, sum(not store.holds(digest) for digest in digests))
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            made = pool.map(lambda row: _prepared(cases[row], digests[row], store, preprocessing), rows)
            for row, result in zip(rows, made, strict=True):
                results[row] = result
            if progress is not None:
                progress(start + len(rows), len(cases))
    return results


def _prepared(case: Case, digest: str, store: PictureCache, preprocessing: Preprocessing) -> _Made | str:
    kept = store.read(digest)
    if kept is None:
        try:
            radiograph = read_radiograph(Path(case.path), shown_name(case))
        except RadiographError as error:
            return str(error)
        picture = preprocess(radiograph.pixels, preprocessing)
        grey = bool((picture == picture[:, :, :1]).all())
        hashed = picture_hash(thumbnail(radiograph.pixels))
        H, W = radiograph.pixels.shape[:2]
        kept = Prepared(picture[:, :, : 1 if grey else 3], H, W, hashed)
        digest = radiograph.digest
        store.write(digest, kept)
    return _Made(digest, kept.height, kept.width, kept.hash)


def _require_room(store: PictureCache, count: int) -> None:
    needed, free = count * store.size**2, shutil.disk_usage(store.folder).free
    if needed > free:
        raise TrainingError(
            f"{count:,} prepared radiographs need {needed / 2**30:.1f} GiB in {store.folder.parent}, where "
            f"{free / 2**30:.1f} GiB are free; name another folder with --cache or MURA_SEARCH_CACHE"
        )
