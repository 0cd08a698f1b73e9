"""Labelled radiographs prepared for training: decoded and preprocessed once, lesions' boxes beside them."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import file_digest, shown_name
from retrieval.errors import RadiographError
from retrieval.images.preprocessing import Preprocessing, preprocess
from retrieval.images.radiograph import read_radiograph
from training.data.cache import Entry, PictureCache, default_cache
from training.data.lesion_boxes import COVERAGE_STEP, Box, boxes_of, cover
from training.distributed import rank_and_size
from training.errors import TrainingError

__all__ = ["TrainingSet", "listed_cases", "load_training_set"]

_AT_ONCE = 64  # radiographs decoded between two writes to the cache

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """N prepared radiographs, in files or in memory.

    `known` (N,) says whose lesions are known: normal ones have none, abnormal ones where the collection gives boxes.
    The pictures of case i are `sources[i][0][sources[i][1]]`; its lesions are boxes in a radiograph of a size, or
    coverage as it is.
    """

    cases: tuple[Case, ...]
    known: NDArray[np.bool_]
    sources: tuple[tuple[NDArray[np.uint8], int], ...]
    lesions: tuple[tuple[Sequence[Box], int, int] | NDArray[np.uint8], ...]

    @classmethod
    def of_arrays(
        cls, cases: Sequence[Case], pictures: NDArray[np.uint8], coverage: NDArray[np.uint8], known: NDArray[np.bool_]
    ) -> "TrainingSet":
        """One of arrays in memory: pictures (N, S, S, 1 or 3), coverage (N, S/4, S/4) of 0 to 255."""
        return cls(tuple(cases), known, tuple((pictures, row) for row in range(len(cases))), tuple(coverage))

    def rows(self, taken: NDArray[np.int64]) -> "TrainingSet":
        """Only these rows, in this order. No picture is copied."""
        return TrainingSet(
            tuple(self.cases[i] for i in taken),
            self.known[taken],
            tuple(self.sources[i] for i in taken),
            tuple(self.lesions[i] for i in taken),
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
        found = hashlib.sha256()
        for case, known, lesion in zip(self.cases, self.known, self.lesions, strict=True):
            listed = (case.digest, case.part, case.label, case.patient, case.study, bool(known))
            found.update(f"{listed}\n{lesion if isinstance(lesion, tuple) else ''}\n".encode(errors="surrogateescape"))
            found.update(b"" if isinstance(lesion, tuple) else lesion.tobytes())
        return found.hexdigest()

    def take(self, rows: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures (B, S, S, C), C 1 where all are grey and else 3, and coverage (B, S/4, S/4), 255 on a lesion."""
        pictures = [source[row] for source, row in (self.sources[i] for i in rows)]
        channels = max(picture.shape[2] for picture in pictures)
        taken = np.empty((len(pictures), *pictures[0].shape[:2], channels), np.uint8)
        for place, picture in zip(taken, pictures, strict=True):
            place[:] = picture
        size = taken.shape[1]
        coverage = np.empty((len(taken), size // COVERAGE_STEP, size // COVERAGE_STEP), np.uint8)
        for number, i in enumerate(rows):
            lesion = self.lesions[i]
            coverage[number] = cover(*lesion, size) if isinstance(lesion, tuple) else lesion
        return taken, coverage


def load_training_set(
    collections: Sequence[Collection],
    how: Preprocessing,
    progress: Progress | None = None,
    *,
    cache: Path | None = None,
) -> tuple[TrainingSet, list[tuple[str, str]]]:
    """Prepare every radiograph that `cache` does not hold yet; also the (name, reason) of those that cannot be read.

    `cache` is `default_cache()` unless named. Patients, studies and cases of several collections are kept apart by the
    collection's number. Raises TrainingError where nothing can be read, or the disk has no room.
    """
    boxes = [boxes for collection in collections for boxes in boxes_of(collection)]
    jobs = list(zip(listed_cases(collections), boxes, strict=True))
    store = PictureCache(default_cache() if cache is None else cache, how)
    digests = _digests([case for case, _ in jobs])
    failed = _prepare([case for case, _ in jobs], digests, store, how, progress)
    entries = store.entries()
    kept = [(case, boxes, digests[case.path]) for case, boxes in jobs if case.path not in failed]
    if not kept:
        raise TrainingError("none of the radiographs can be read; `mura-search audit` lists the reasons")
    maps = {kind: store.pictures(kind) for kind in {entries[digest].kind for _, _, digest in kept}}
    found: list[Entry] = [entries[digest] for _, _, digest in kept]
    return TrainingSet(
        tuple(replace(case, digest=digest) for case, _, digest in kept),
        np.array([case.label != ABNORMAL or bool(boxes) for case, boxes, _ in kept]),
        tuple((maps[entry.kind], entry.row) for entry in found),
        tuple((boxes, entry.height, entry.width) for (_, boxes, _), entry in zip(kept, found, strict=True)),
    ), [(shown_name(case), failed[case.path]) for case, _ in jobs if case.path in failed]


def listed_cases(collections: Sequence[Collection]) -> list[Case]:
    """The cases as `load_training_set` names them, none of them read."""
    return [
        _apart(case, number if len(collections) > 1 else None)
        for number, collection in enumerate(collections)
        for case in collection.cases
    ]


def _digests(cases: Sequence[Case]) -> dict[str, str]:
    """SHA-256 of each file by its path, "" where it cannot be read."""

    def digest(path: str) -> str:
        try:
            return file_digest(Path(path))
        except OSError:
            return ""

    paths = [case.path for case in cases]
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


def _prepare(
    cases: Sequence[Case], digests: dict[str, str], store: PictureCache, how: Preprocessing, progress: Progress | None
) -> dict[str, str]:
    """Bring into the store what it lacks; the reason of each path that cannot be read.

    Of several processes each begins elsewhere, and leaves out what another has brought in.
    """
    there = store.entries()
    missing = [case for case in cases if digests[case.path] not in there]
    _require_room(store, len(missing))
    failed: dict[str, str] = {}
    done = len(cases) - len(missing)
    rank, size = rank_and_size()
    begin = len(missing) * rank // size
    missing = missing[begin:] + missing[:begin]
    with ThreadPoolExecutor() as pool:
        for listed in (missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)):
            there = store.entries() if size > 1 else {}
            chunk = [case for case in listed if digests[case.path] not in there]
            made = []
            for case, result in zip(chunk, pool.map(lambda case: _read(case, how), chunk), strict=True):
                if isinstance(result, str):
                    failed[case.path] = result
                else:
                    made.append(result)
                    digests[case.path] = result[0]
            store.append(made)
            done += len(listed)
            if progress is not None:
                progress(done, len(cases))
    return failed


def _read(case: Case, how: Preprocessing) -> tuple[str, NDArray[np.uint8], int, int] | str:
    try:
        radiograph = read_radiograph(Path(case.path), shown_name(case))
    except RadiographError as error:
        return str(error)
    picture = preprocess(radiograph.pixels, how)
    grey = bool((picture == picture[:, :, :1]).all())
    H, W = radiograph.pixels.shape[:2]
    return radiograph.digest, picture[:, :, :1] if grey else picture, H, W


def _require_room(store: PictureCache, count: int) -> None:
    needed, free = count * store.size**2, shutil.disk_usage(store.folder).free
    if needed > free:
        raise TrainingError(
            f"{count:,} prepared radiographs need {needed / 2**30:.1f} GiB in {store.folder.parent}, where "
            f"{free / 2**30:.1f} GiB are free; name another folder with --cache or MURA_SEARCH_CACHE"
        )


def _apart(case: Case, number: int | None) -> Case:
    if number is None:
        return case
    return replace(
        case, case=f"{number}/{case.case}", patient=f"{number}/{case.patient}", study=f"{number}/{case.study}"
    )
