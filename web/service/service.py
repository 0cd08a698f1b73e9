"""What the routes ask for: the way of a request through decoding, encoding and the index, all of it bounded."""

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from retrieval.answer import Answer
from retrieval.errors import MissingExtra, RadiographError
from retrieval.explain.smooth_grad_cam import explain_class, explain_similarity
from retrieval.images.radiograph import Radiograph, decode_frames, read_frames, read_radiograph
from retrieval.notices import Notice, of_view
from retrieval.query import View, frame_views, left_out, mura_patient
from retrieval.searcher import Searcher
from web.errors import Refused
from web.pictures import heat_png, png
from web.routes.query_form import Asked, Upload, shown_name, too_many_views
from web.service.admission import Admission, Share
from web.service.batcher import Batcher
from web.service.searcher_pool import SearcherPool
from web.service.study_store import StudyStore, Study
from web.settings import Limits

__all__ = ["Service"]

P = ParamSpec("P")
R = TypeVar("R")

_DRAWINGS = 16  # heatmaps that may wait to be drawn


@dataclass(frozen=True, slots=True)
class _Source:
    """A file by the name it is shown by, how its frames are read, and its patient where that is known otherwise."""

    name: str
    read: Callable[[], list[Radiograph]]
    patients: tuple[str, ...] = ()


class Service:
    """One server's engine, threads and queues; belongs to the event loop that calls it."""

    def __init__(self, engine: SearcherPool, limits: Limits, *, files: bool = False) -> None:
        """files: whether pictures of indexed cases are read from the collection's files."""
        self.pool = engine
        self.limits = limits
        self.files = files
        self.admission = Admission(limits.requests, limits.memory)
        self.studies = StudyStore(limits.kept, limits.kept_time)
        self.batcher = Batcher(limits.batch, limits.gather, limits.pictures)
        self._drawings = Admission(_DRAWINGS, limits.memory)
        self._readers = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="read")
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="draw")

    async def close(self) -> None:
        await self.batcher.close()
        for pool in (self._readers, self._drawer):
            pool.shutdown(wait=True, cancel_futures=True)
        self.pool.close()

    async def ask(self, upload: Upload, share: Share) -> tuple[Answer, str]:
        """Answer for one study; also the name it is remembered by, "" unless a heatmap was asked for.

        Files that cannot be read are left out with a warning. Raises RadiographError where none can be, Refused.
        """
        read, most = decode_frames, self.limits.views
        sources = [_Source(name, functools.partial(read, data, name, most)) for name, data in upload.files]
        answer, study = await self._asked(sources, upload.asked, share)
        return answer, self.studies.add(study) if upload.asked.heatmap else ""

    async def ask_files(self, files: Sequence[Path], asked: Asked, share: Share) -> tuple[Answer, Study]:
        """As `ask`, about the views in files of this machine, of which no more is told than their last names."""
        names = [shown_name(file.name, number) for number, file in enumerate(files, start=1)]
        sources = [
            _Source(name, functools.partial(read_frames, file, name, self.limits.views), mura_patient(file))
            for name, file in zip(names, files, strict=True)
        ]
        return await self._asked(sources, asked, share)

    async def _asked(self, sources: Sequence[_Source], asked: Asked, share: Share) -> tuple[Answer, Study]:
        try:
            async with asyncio.timeout(self.limits.answer):
                return await self._ask(sources, asked, share)
        except TimeoutError as error:
            raise Refused(503, f"this took longer than {self.limits.answer:.0f} s; try again later", retry=5) from error

    async def trouble(self) -> str:
        """Why the index as it is now cannot be used; "" where it can."""
        async with self._searcher():
            return self.pool.trouble

    async def again(self, name: str, asked: Asked) -> Answer:
        """Answer anew for a study that is remembered. Raises Refused."""
        study = self.studies.get(name)
        asked = replace(asked, patient=asked.patient or study.patient)
        async with self._searcher() as searcher:
            _require_model(searcher, study)
            return await self._in_thread(_answer, searcher, study, asked)

    async def picture(self, name: str, number: int) -> bytes:
        """A view, 1 to V, of a study that is remembered, as PNG. Raises Refused."""
        return await self._in_thread(png, self._view(name, number).pixels)

    async def class_heatmap(self, name: str, number: int, target: str) -> bytes:
        """What speaks for the target in a view of a study that is remembered, as PNG. Raises Refused."""
        study, view = self.studies.get(name), self._view(name, number)

        def draw(searcher: Searcher) -> bytes:
            _require_model(searcher, study)
            return heat_png(explain_class(searcher.encoder, view.pixels, target=target))

        return await self._draw(draw)

    async def likeness(self, name: str, number: int, case: str, *, inside: bool) -> bytes:
        """What makes a view and an indexed case alike: where in the view, or where inside the case, as PNG.

        Raises Refused.
        """
        study, view = self.studies.get(name), self._view(name, number)

        def draw(searcher: Searcher) -> bytes:
            _require_model(searcher, study)
            if inside:
                pixels = self._case_pixels(searcher, require_case(searcher, case))
                return heat_png(explain_similarity(searcher.encoder, pixels, study.encoded.embeddings[number - 1]))
            other = searcher.index.embedding(case)
            if other is None:
                raise _no_case()
            return heat_png(explain_similarity(searcher.encoder, view.pixels, other))

        return await self._draw(draw)

    async def nearest_view(self, name: str, case: str) -> tuple[int, float]:
        """Which view, 1 to V, of a study that is remembered is most like an indexed case, and how similar they are.

        Raises Refused.
        """
        study = self.studies.get(name)

        def look(searcher: Searcher) -> tuple[int, float]:
            _require_model(searcher, study)
            other = searcher.index.embedding(case)
            if other is None:
                raise _no_case()
            similarities = study.encoded.embeddings @ other
            return int(similarities.argmax()) + 1, float(similarities.max())

        async with self._searcher() as searcher:
            return await self._in_thread(look, searcher)

    async def report(self, name: str, asked: Asked, make: Callable[[Searcher, Study, Answer], str]) -> str:
        """A study that is remembered, made into a report. Raises Refused."""
        study = self.studies.get(name)
        asked = replace(asked, patient=asked.patient or study.patient)

        def write(searcher: Searcher) -> bytes:
            _require_model(searcher, study)
            return make(searcher, study, _answer(searcher, study, asked)).encode("utf-8", "replace")

        return (await self._draw(write)).decode()

    async def case(self, name: str) -> Case:
        """The record of an indexed case. Raises Refused with 404."""
        async with self._searcher() as searcher:
            return await self._in_thread(require_case, searcher, name)

    async def case_picture(self, name: str, *, small: bool) -> tuple[bytes, str]:
        """An indexed case's picture and its media type: the stored small one, or a full one where that is allowed.

        Raises Refused with 404.
        """

        def picture(searcher: Searcher) -> tuple[bytes, str]:
            if self.files and not small:
                return png(_file_pixels(require_case(searcher, name))), "image/png"
            stored = searcher.index.thumbnail(name)
            if stored is None:
                raise _no_case()
            return stored, "image/png" if stored.startswith(b"\x89PNG") else "image/jpeg"

        async with self._searcher() as searcher:
            return await self._in_thread(picture, searcher)

    async def about(self) -> dict[str, object]:
        """What the index holds: `IndexReader.info`, the views, the model, and whether all of it is synthetic."""

        def look(searcher: Searcher) -> dict[str, object]:
            info = searcher.index.info()
            return {
                "name": searcher.index.path.name,
                **{key: info[key] for key in ("cases", "studies", "patients", "parts", "labels", "generation")},
                "views": searcher.index.counts("view"),
                "model": {"name": searcher.model.name, "sha256": searcher.model.sha256},
                "synthetic": searcher.source.synthetic,
            }

        async with self._searcher() as searcher:
            return await self._in_thread(look, searcher)

    @asynccontextmanager
    async def _searcher(self) -> AsyncIterator[Searcher]:
        lent = self.pool.borrow()
        entering = asyncio.ensure_future(self._in_thread(lent.__enter__))
        try:
            searcher = await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(lambda _: lent.__exit__(None, None, None))
            raise
        try:
            yield searcher
        finally:
            lent.__exit__(None, None, None)

    async def _ask(self, sources: Sequence[_Source], asked: Asked, share: Share) -> tuple[Answer, Study]:
        started = time.perf_counter()
        async with self._searcher() as searcher:
            views, pictures, notices = await self._read(sources, searcher, share)
            encoded = await self.batcher.encode(searcher.encoder, pictures)
            study = Study(
                tuple(views), encoded, tuple(notices), asked.patient, searcher.encoder.bundle.sha256,
                time.perf_counter() - started,
            )  # fmt: skip
            return await self._in_thread(_answer, searcher, study, asked), study

    async def _read(
        self, sources: Sequence[_Source], searcher: Searcher, share: Share
    ) -> tuple[list[View], list[NDArray[np.uint8]], list[Notice]]:
        """The views that can be read, their prepared pictures, and what there is to say about them."""
        views: list[View] = []
        pictures: list[NDArray[np.uint8]] = []
        notices: list[Notice] = []
        failures: list[RadiographError] = []
        pixels = 0
        for source in sources:
            try:
                read, prepared, said = await self._in_thread(_decoded, searcher, source)
            except RadiographError as error:
                failures.append(error)
                continue
            pixels += sum(view.pixels.shape[0] * view.pixels.shape[1] for view in read)
            if pixels > self.limits.pixels:
                raise Refused(413, f"the radiographs have more than {self.limits.pixels:,} pixels together; send fewer")
            share.take(sum(view.pixels.nbytes for view in read))
            views += read
            if len(views) > self.limits.views:
                raise Refused(413, too_many_views(self.limits.views))
            pictures += prepared
            notices += of_view(source.name, said)
        if not views:
            raise failures[0]
        return views, pictures, notices + [left_out(failure) for failure in failures]

    def _view(self, name: str, number: int) -> View:
        views = self.studies.get(name).views
        if not 1 <= number <= len(views):
            raise Refused(404, f"this study has views 1 to {len(views)}")
        return views[number - 1]

    def _case_pixels(self, searcher: Searcher, case: Case) -> NDArray[np.uint8]:
        """The case's radiograph where its file may be read, else the stored small one."""
        if self.files:
            return _file_pixels(case)
        stored = searcher.index.thumbnail(case.case)
        found = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise _no_case()
        return np.asarray(found, np.uint8)

    async def _draw(self, draw: Callable[[Searcher], bytes]) -> bytes:
        with self._drawings.enter():
            async with self._searcher() as searcher:
                return await asyncio.get_running_loop().run_in_executor(self._drawer, draw, searcher)

    async def _in_thread(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        work = functools.partial(call, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


def require_case(searcher: Searcher, name: str) -> Case:
    found = searcher.index.find("case", [name])
    if not found:
        raise _no_case()
    return found[0]


def _file_pixels(case: Case) -> NDArray[np.uint8]:
    try:
        return read_radiograph(Path(case.path)).pixels
    except RadiographError as error:  # which names the file
        raise Refused(404, "this case's file cannot be read any more; whoever runs this server can look") from error


def _no_case() -> Refused:
    return Refused(404, "the index holds no such case, or no longer")


def _require_model(searcher: Searcher, study: Study) -> None:
    if searcher.encoder.bundle.sha256 != study.model:
        raise Refused(404, "the index has another model now; send the radiographs again")


def _decoded(searcher: Searcher, source: _Source) -> tuple[list[View], list[NDArray[np.uint8]], tuple[Notice, ...]]:
    """A file's views, one but of DICOM, with their prepared pictures and the file's notices."""
    try:
        frames = source.read()
    except MissingExtra as error:
        kinds = "PNG, JPEG or TIFF"
        raise RadiographError(f"{source.name} is DICOM, which this server cannot read; export it as {kinds}") from error
    pictures = [searcher.encoder.prepare(frame.pixels) for frame in frames]
    return frame_views(source.name, frames, source.patients), pictures, frames[0].notices


def _answer(searcher: Searcher, study: Study, asked: Asked) -> Answer:
    """The answer, without places on this machine, which are nobody's business on another."""
    try:
        answer = searcher.answer(
            study.views, study.encoded, k=asked.k, patient=asked.patient, where=dict(asked.where) or None,
            notices=study.notices, encode=study.encode,
        )  # fmt: skip
    except IndexFailure as error:
        raise Refused(503, "the index is busy or cannot be read; try again in a moment", retry=2) from error
    return replace(
        answer,
        cases=tuple(replace(case, path="") for case in answer.cases),
        index=replace(answer.index, path=Path(answer.index.path).name),
    )
