"""Encodes the uploads of several requests together, which takes less time than one by one."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import redacted_traceback
from web.service.admission import busy

__all__ = ["Batcher"]

logger = logging.getLogger("mura-search")


@dataclass(frozen=True, slots=True)
class _Job:
    encoder: Encoder
    pictures: Sequence[NDArray[np.uint8]]
    done: "asyncio.Future[Encoded]"


class Batcher:
    """Encodes on one thread, up to `size` pictures together that came within `gather` seconds.

    While a batch is encoded, the next one gathers. A batch does not wait for more if `others`, the number of requests
    at work, says that none can come. More than `most` waiting pictures are refused.
    """

    def __init__(self, size: int, gather: float, most: int, others: Callable[[], float] = lambda: math.inf) -> None:
        self.size = size
        self._others = others
        self.gather = gather
        self.most = most
        self.waiting = 0
        self.batches = 0
        self.encoded = 0
        self._jobs: deque[_Job] = deque()
        self._has_jobs = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._task: asyncio.Task[None] | None = None

    async def encode(self, encoder: Encoder, pictures: Sequence[NDArray[np.uint8]]) -> Encoded:
        """What `encoder.encode_prepared` gives for the pictures. Raises Refused if too many wait already."""
        if self._jobs and self.waiting + len(pictures) > self.most:
            raise busy()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        job = _Job(encoder, pictures, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(pictures)
        self._has_jobs.set()
        return await job.done

    async def close(self) -> None:
        """Encode nothing more; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for job in self._jobs:
            job.done.cancel()
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_jobs.wait()
            if self.waiting < self.size and self._others() > len(self._jobs):
                await asyncio.sleep(self.gather)
            jobs = self._next()
            if not jobs:
                continue
            try:
                encoded = await loop.run_in_executor(self._thread, _encode, jobs)
            except Exception as error:  # broad: the requests raise it, and this loop goes on
                asking = [job for job in jobs if not job.done.done()]
                for job in asking:
                    job.done.set_exception(error)
                if not asking:
                    logger.error("%s", redacted_traceback(error))
                continue
            self.batches += 1
            start = 0
            for job in jobs:
                rows = slice(start, start := start + len(job.pictures))
                self.encoded += len(job.pictures)
                if not job.done.done():
                    job.done.set_result(Encoded(encoded.embeddings[rows], encoded.logits[rows]))

    def _next(self) -> list[_Job]:
        """The jobs of the next batch: at least the first, and those after it with the same encoder that fit."""
        jobs: list[_Job] = []
        count = 0
        while self._jobs:
            job = self._jobs[0]
            fits = not jobs or (job.encoder is jobs[0].encoder and count + len(job.pictures) <= self.size)
            if not job.done.done() and not fits:
                break
            self._jobs.popleft()
            self.waiting -= len(job.pictures)
            if not job.done.done():  # its client may have gone
                jobs.append(job)
                count += len(job.pictures)
        if not self._jobs:
            self._has_jobs.clear()
        return jobs


def _encode(jobs: Sequence[_Job]) -> Encoded:
    return jobs[0].encoder.encode_prepared([picture for job in jobs for picture in job.pictures])
