"""Files become the views of a study: each is decoded in a process of its own, in its turn, within the limits."""

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MissingExtra, RadiographError
from retrieval.images.decoder_process import DecoderPool
from retrieval.images.grey_values import deeper_than_pixels
from retrieval.images.radiograph import Radiograph, memory_to_decode
from retrieval.images.windows import GreyValues
from retrieval.notices import Notice
from retrieval.query import Original, View, distinct_views, frame_notices, frame_views, left_out, mura_patient
from retrieval.searcher import Searcher
from web.errors import Refused
from web.models import shown_name, too_many_views
from web.service.admission import Share, busy
from web.service.searchers import Searchers, run_in
from web.settings import Limits

__all__ = ["Decoding", "Prepared", "Source", "require_few_pixels"]

Pictures = list[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file: the name to show, how its frames are read, names of its patient, and its bytes or its path."""

    name: str
    read: Callable[..., list[Radiograph]]
    patients: tuple[str, ...] = ()
    data: bytes = b""
    path: Path | None = None

    def original(self) -> bytes | Path | None:
        """What the viewer reads again for values of more than 8 bits; None if the pixels are all there is."""
        return self.path or (self.data if self.data and deeper_than_pixels(self.data, self.name) else None)

    def memory(self) -> int:
        """The bytes that decoding takes, as far as its header says; 0 for a file of this machine."""
        try:
            return memory_to_decode(self.data, self.name) if self.data else 0
        except MissingExtra:  # which decoding reports
            return 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Views that were read, their prepared pictures, one each, and the notices about their files."""

    views: list[View]
    pictures: Pictures
    notices: list[Notice]


class Decoding:
    """The processes that decode, as many at once as there are readers."""

    def __init__(self, limits: Limits, searchers: Searchers, readers: int) -> None:
        self.limits = limits
        self._searchers = searchers
        self._processes = DecoderPool(readers, limits.decode)
        self._turns = asyncio.Semaphore(readers)
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="decode")

    def start(self) -> None:
        """Start the processes."""
        self._processes.warm_up()

    def abandon(self) -> None:
        """End the processes, whatever they decode."""
        self._processes.close()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def uploads(self, files: Sequence[tuple[str, bytes]]) -> list[Source]:
        """Files that were sent, as (name, bytes)."""
        decode, most = self._processes.decode, self.limits.views
        return [Source(name, functools.partial(decode, data, name, most), (), data) for name, data in files]

    def files(self, files: Sequence[Path]) -> list[Source]:
        """Files of this machine; their names are shown without their folders."""
        read, most = self._processes.read, self.limits.views
        names = [shown_name(file.name, number) for number, file in enumerate(files, start=1)]
        return [
            Source(name, functools.partial(read, file, name, most), mura_patient(file), path=file)
            for name, file in zip(names, files, strict=True)
        ]

    async def read(self, sources: Sequence[Source], searcher: Searcher, share: Share) -> Prepared:
        """The distinct views that can be read. Raises RadiographError if none can be, Refused for too much."""
        views: list[View] = []
        pictures: Pictures = []
        notices: list[Notice] = []
        failures: list[tuple[str, RadiographError]] = []
        for source in sources:
            try:
                decoded = await self._decoded(searcher, source, share)
            except RadiographError as error:
                failures.append((source.name, error))
                continue
            require_few_pixels([*views, *decoded.views], self.limits)
            share.take(sum(view.pixels.nbytes for view in decoded.views))
            views += decoded.views
            if len(views) > self.limits.views:
                raise too_many_views(self.limits.views)
            pictures += decoded.pictures
            notices += decoded.notices
        if not views:
            raise failures[0][1]
        distinct, repeated = distinct_views(views)
        kept = {id(view) for view in distinct}
        pictures = [picture for view, picture in zip(views, pictures, strict=True) if id(view) in kept]
        return Prepared(distinct, pictures, [*notices, *repeated, *(left_out(*failure) for failure in failures)])

    async def _decoded(self, searcher: Searcher, source: Source, share: Share) -> Prepared:
        """A file as `_prepared` gives it, in its turn; if nobody waits for it any more, its process is ended.

        Raises Refused if its turn does not come in time.
        """
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(self.limits.wait):
                await self._turns.acquire()
        except TimeoutError as error:
            raise busy(self.limits.wait) from error
        try:
            with share.lend(await self._searchers.run(source.memory)):
                return await run_in(self._threads, _prepared, searcher, source, abandoned)
        finally:
            abandoned.set()
            self._turns.release()

    async def values(self, original: Original, longest: int) -> GreyValues:
        """The values of a frame of a file with all its bits, of at most `longest` pixels a side."""
        values = self._processes.values
        return await run_in(self._threads, values, original.source, original.name, original.frame, longest)


def require_few_pixels(views: Sequence[View], limits: Limits) -> None:
    """Raise Refused if the views have too many pixels together."""
    if sum(view.pixels.shape[0] * view.pixels.shape[1] for view in views) > limits.pixels:
        raise Refused(413, f"the radiographs have more than {limits.pixels:,} pixels together; send fewer")


def _prepared(searcher: Searcher, source: Source, abandoned: threading.Event) -> Prepared:
    """A file's views (several from multi-frame DICOM), their prepared pictures and the file's notices."""
    try:
        frames = source.read(abandoned=abandoned)
    except MissingExtra as error:
        raise RadiographError(
            f"{source.name} is DICOM, which this server cannot read; export it as PNG, JPEG or TIFF"
        ) from error
    pictures = [searcher.encoder.prepare(frame.pixels) for frame in frames]
    views = frame_views(source.name, frames, source.patients)
    if original := source.original():
        views = [replace(view, original=Original(original, source.name, n)) for n, view in enumerate(views, start=1)]
    return Prepared(views, pictures, frame_notices(source.name, views, frames))
