"""Many radiographs through the encoder: threads read and prepare the next ones while the present batch is encoded."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.images.radiograph import file_digest, read_radiograph

__all__ = ["Batch", "encoded_batches", "file_digest", "shown_name", "thumbnail", "usable"]

THUMBNAIL_SIDE = 160
# Read ahead by this many radiographs; prepared ones are small, so memory stays bounded by the threads at work.
_AHEAD = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """B encoded radiographs: cases with their digests, embeddings (B, D), logits (B,), JPEG thumbnails.

    `warnings` gives what was read with one, `unreadable` the others that were met on the way, with the reason.
    """

    cases: list[Case]
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]
    thumbnails: list[bytes]
    warnings: list[tuple[Case, str]]
    unreadable: list[tuple[Case, str]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    case: Case
    picture: NDArray[np.uint8]
    thumbnail: bytes
    warnings: tuple[str, ...]


def encoded_batches(
    cases: Sequence[Case], encoder: Encoder, *, size: int = 16, workers: int | None = None
) -> Generator[Batch, None, None]:
    """Read, prepare and encode cases in their order; a batch holds up to `size` readable ones."""
    prepared: list[_Prepared] = []
    unreadable: list[tuple[Case, str]] = []
    for one in _prepared(cases, encoder, workers):
        if isinstance(one, _Prepared):
            prepared.append(one)
        else:
            unreadable.append(one)
        if len(prepared) == size:
            yield _encode(prepared, unreadable, encoder)
            prepared, unreadable = [], []
    if prepared or unreadable:
        yield _encode(prepared, unreadable, encoder)


def usable(encoded: Encoded) -> NDArray[np.bool_]:
    """Which of B encoded radiographs have a finite logit and an embedding of unit length (B,)."""
    lengths = np.linalg.norm(encoded.embeddings, axis=1)
    return np.asarray((np.abs(lengths - 1) < 1e-3) & np.isfinite(encoded.logits), np.bool_)  # NaN is in no range


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A radiograph as read, as a JPEG of at most 160 pixels on the long side."""
    scale = min(1.0, THUMBNAIL_SIDE / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()


def shown_name(case: Case) -> str:
    """What messages call a case's file: its path, unless the case is not named by that, for then it is not to be shown.

    >>> shown_name(Case("a/1.png", "s", "p", 0, path="data/a/1.png"))
    'data/a/1.png'
    >>> shown_name(Case("5c1f", "s", "p", 0, path="archive/SMITH/1.dcm"))
    '5c1f'
    """
    return case.path if case.path.endswith(case.case) else case.case


def _prepared(
    cases: Sequence[Case], encoder: Encoder, workers: int | None
) -> Generator["_Prepared | tuple[Case, str]", None, None]:
    def prepare(case: Case) -> _Prepared | tuple[Case, str]:
        try:
            radiograph = read_radiograph(Path(case.path), shown_name(case))
        except RadiographError as error:
            return case, str(error)
        pixels = radiograph.pixels
        case = replace(case, digest=radiograph.digest)
        return _Prepared(case, encoder.prepare(pixels), thumbnail(pixels), radiograph.warnings)

    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Prepared | tuple[Case, str]]] = deque()
    try:
        for case in cases:
            waiting.append(pool.submit(prepare, case))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(prepared: list[_Prepared], unreadable: list[tuple[Case, str]], encoder: Encoder) -> Batch:
    if not prepared:
        empty = np.empty((0, encoder.bundle.dimension), np.float32)
        return Batch([], empty, np.empty(0, np.float32), [], [], unreadable)
    encoded = encoder.encode_prepared([one.picture for one in prepared])
    sound = usable(encoded)
    kept = [one for one, ok in zip(prepared, sound, strict=True) if ok]
    lost = [
        (one.case, f"{shown_name(one.case)}: the model makes no usable numbers of this radiograph")
        for one, ok in zip(prepared, sound, strict=True)
        if not ok
    ]
    return Batch(
        cases=[one.case for one in kept],
        embeddings=encoded.embeddings[sound],
        logits=encoded.logits[sound],
        thumbnails=[one.thumbnail for one in kept],
        warnings=[(one.case, warning) for one in kept for warning in one.warnings],
        unreadable=[*unreadable, *lost],
    )
