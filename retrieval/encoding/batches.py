"""Encode many radiographs: threads read and prepare the next ones while the present batch is encoded.

`encode_all` serves build, addition, deep audit and evaluation. B radiographs in a batch, D numbers of an embedding.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.images.measures import TABLE, Measures, packed
from retrieval.images.preprocessing import shrink
from retrieval.images.radiograph import file_digest, read_radiograph
from retrieval.notices import BLANKS, Notice, of_view
from retrieval.wording import predicate

__all__ = [
    "ENCODING",
    "Batch",
    "Change",
    "EncodedCase",
    "EncodingOptions",
    "EncodingReport",
    "Progress",
    "case_digest",
    "encode_all",
    "encoded_batches",
    "shown_name",
    "small_jpeg",
    "stack",
    "thumbnail",
    "usable",
]

Progress = Callable[[int, int], None]
"""Called with the number of radiographs that are done and the number of all."""

Change = Callable[[Case, NDArray[np.uint8]], NDArray[np.uint8]]
"""Gives a changed radiograph for a case and its pixels as read."""

THUMBNAIL_SIDE = 160
PREVIEW_SIDE = 512  # by default
# The number of radiographs read ahead. They are prepared and so small; memory is bounded by the working threads.
_AHEAD = 64


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """How many radiographs are read and encoded.

    `keep_blank`: whether blank radiographs are stored, and not among the unreadable ones. `preview`: pixels of the long
    side of the previews; 0 makes none. `workers`: the number of threads that read files, by default Python's.
    """

    keep_blank: bool = True
    preview: int = 0
    workers: int | None = None


ENCODING = EncodingOptions()


@dataclass(frozen=True, slots=True)
class EncodedCase:
    """One encoded radiograph: its record, embedding (D,) of unit length, classifier logit and JPEG thumbnail.

    `measures` are None where the radiograph was not read.
    """

    case: Case
    embedding: NDArray[np.float32]
    logit: float
    thumbnail: bytes
    measures: Measures | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """B encoded radiographs: cases with their digests, embeddings (B, D), logits (B,), JPEG thumbnails.

    `notices` are about these radiographs, and name their cases; `unreadable` has (case, reason) of the others.
    `previews` are larger JPEGs, if they were asked for.
    `measures` (B) are of the radiographs as read.
    """

    cases: list[Case]
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]
    thumbnails: list[bytes]
    notices: list[Notice]
    unreadable: list[tuple[Case, str]]
    previews: list[bytes] = field(default_factory=list)
    measures: list[Measures] | None = None

    @property
    def extras(self) -> dict[str, list[bytes]]:
        """What an index stores beside (`index.sqlite.schema.EXTRAS`)."""
        measures = {TABLE: [packed(measured) for measured in self.measures]} if self.measures else {}
        return measures | ({"previews": self.previews} if self.previews else {})

    def rows(self) -> list[EncodedCase]:
        measures: Sequence[Measures | None] = self.measures or [None] * len(self.cases)
        parts = zip(self.cases, self.embeddings, map(float, self.logits), self.thumbnails, measures, strict=True)
        return [EncodedCase(*part) for part in parts]


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """The result of `encode_all`: how many radiographs were encoded, (case, reason) of the others, and notices."""

    encoded: int
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Prepared:
    case: Case
    picture: NDArray[np.uint8]
    thumbnail: bytes
    notices: list[Notice]
    measures: Measures
    preview: bytes = b""


def encode_all(
    cases: Sequence[Case],
    encoder: Encoder,
    store: Callable[[Batch], bool],
    options: EncodingOptions = ENCODING,
    *,
    done: int = 0,
    progress: Progress | None = None,
    change: Change | None = None,
) -> EncodingReport:
    """Encode cases in their order, and pass each batch to `store`.

    store: returns whether the batch is on the disk, so that a later run need not encode it again. done: the number of
    radiographs that need no encoding; `progress` counts them as done. change: what to encode instead of a radiograph. A
    KeyboardInterrupt says how many radiographs are done, and whether the same command continues from there.
    """
    encoded, total, resumable = 0, done + len(cases), True
    unreadable: list[tuple[str, str]] = []
    notices: list[Notice] = []
    try:
        with closing(encoded_batches(cases, encoder, options, change=change)) as batches:
            for read_batch in batches:
                batch = read_batch if options.keep_blank else _without_blank(read_batch)
                resumable = store(batch)
                encoded += len(batch.cases)
                unreadable += [(case.case, reason) for case, reason in batch.unreadable]
                notices += batch.notices
                if progress:
                    progress(done + encoded + len(unreadable), total)
    except KeyboardInterrupt:
        fate = "done; the same command continues from there" if resumable else "encoded and lost; start again"
        raise KeyboardInterrupt(f"{done + encoded + len(unreadable)} of {total} radiographs are {fate}") from None
    return EncodingReport(encoded, unreadable, notices)


def encoded_batches(
    cases: Sequence[Case],
    encoder: Encoder,
    options: EncodingOptions = ENCODING,
    *,
    size: int = 16,
    change: Change | None = None,
) -> Generator[Batch, None, None]:
    """Read, prepare and encode cases in their order; a batch holds up to `size` readable ones, also blank ones."""
    prepared: list[_Prepared] = []
    unreadable: list[tuple[Case, str]] = []
    for item in _prepared(cases, encoder, options, change):
        if isinstance(item, _Prepared):
            prepared.append(item)
        else:
            unreadable.append(item)
        if len(prepared) == size:
            yield _encode(prepared, unreadable, encoder)
            prepared, unreadable = [], []
    if prepared or unreadable:
        yield _encode(prepared, unreadable, encoder)


def stack(rows: Sequence[EncodedCase]) -> Encoded:
    """The embeddings and logits of rows, as one array each; there must be at least one row."""
    return Encoded(np.stack([row.embedding for row in rows]), np.array([row.logit for row in rows], np.float32))


def usable(encoded: Encoded) -> NDArray[np.bool_]:
    """Which of B encoded radiographs have a finite logit and an embedding of unit length (B,)."""
    lengths = np.linalg.norm(encoded.embeddings, axis=1)
    return np.asarray((np.abs(lengths - 1) < 1e-3) & np.isfinite(encoded.logits), np.bool_)  # NaN is in no range


def _without_blank(batch: Batch) -> Batch:
    """The batch with its blank radiographs among the unreadable ones."""
    reasons = {notice.view: predicate(notice) for notice in batch.notices if notice.code in BLANKS}
    if not reasons:
        return batch
    kept = [row for row, case in enumerate(batch.cases) if case.case not in reasons]
    blank = [(case, f"{shown_name(case)} {reasons[case.case]}") for case in batch.cases if case.case in reasons]
    return Batch(
        cases=[batch.cases[row] for row in kept],
        embeddings=batch.embeddings[kept],
        logits=batch.logits[kept],
        thumbnails=[batch.thumbnails[row] for row in kept],
        previews=[batch.previews[row] for row in kept] if batch.previews else [],
        notices=batch.notices,
        unreadable=[*batch.unreadable, *blank],
        measures=batch.measures and [batch.measures[row] for row in kept],
    )


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A radiograph, (H, W) or (H, W, 3) BGR, as JPEG, at most 160 pixels on the long side."""
    return small_jpeg(pixels, THUMBNAIL_SIDE)


def small_jpeg(pixels: NDArray[np.uint8], side: int) -> bytes:
    """A radiograph, (H, W) or (H, W, 3) BGR, as JPEG, at most `side` pixels on the long side."""
    return cv2.imencode(".jpg", shrink(pixels, side), (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()


def case_digest(case: Case) -> str:
    """The digest of a case's file; "" if it cannot be read."""
    try:
        return file_digest(Path(case.path))
    except OSError:
        return ""


def shown_name(case: Case) -> str:
    """The name of a case's file for messages: its path, or the case's own name where that is a pseudonym.

    >>> shown_name(Case("a/1.png", "s", "p", 0, path="data/a/1.png"))
    'data/a/1.png'
    >>> shown_name(Case("5c1f", "s", "p", 0, path="archive/SMITH/1.dcm"))
    '5c1f'
    """
    return case.path if case.path.endswith(case.case) else case.case


def _prepared(
    cases: Sequence[Case], encoder: Encoder, options: EncodingOptions, change: Change | None
) -> Generator["_Prepared | tuple[Case, str]", None, None]:
    def prepare(case: Case) -> _Prepared | tuple[Case, str]:
        try:
            radiograph = read_radiograph(Path(case.path), shown_name(case))
        except RadiographError as error:
            return case, str(error)
        pixels = change(case, radiograph.pixels) if change else radiograph.pixels
        case = replace(case, digest=radiograph.digest)
        measures = encoder.measure(pixels)
        notices = of_view(case.case, radiograph.notices)
        preview = small_jpeg(pixels, options.preview) if options.preview else b""
        return _Prepared(case, encoder.prepare(pixels), thumbnail(pixels), notices, measures, preview)

    pool = ThreadPoolExecutor(options.workers)
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
    encoded = encoder.encode_prepared([item.picture for item in prepared])
    encoded = encoder.harmonised(encoded, [item.measures for item in prepared])
    sound = usable(encoded)
    kept = [item for item, good in zip(prepared, sound, strict=True) if good]
    broken = [item.case for item, good in zip(prepared, sound, strict=True) if not good]
    reason = "the model's output for this radiograph is not a number; leave it out"
    return Batch(
        cases=[item.case for item in kept],
        embeddings=encoded.embeddings[sound],
        logits=encoded.logits[sound],
        thumbnails=[item.thumbnail for item in kept],
        previews=[item.preview for item in kept] if any(item.preview for item in kept) else [],
        notices=[notice for item in kept for notice in item.notices],
        unreadable=[*unreadable, *((case, f"{shown_name(case)}: {reason}") for case in broken)],
        measures=[item.measures for item in kept],
    )
