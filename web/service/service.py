"""What the routes call: decoding, encoding and search for a request, each within limits."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from retrieval.answer import Answer
from retrieval.encoding.batches import THUMBNAIL_SIDE
from retrieval.errors import MissingExtra, RadiographError
from retrieval.explain.evidence import evidence_of, within_limb
from retrieval.explain.rendering import heatmap_png, radiograph_png
from retrieval.explain.smooth_grad_cam import explain_class, explain_similarity
from retrieval.images.decoder_process import DecoderPool
from retrieval.images.grey_values import deeper_than_pixels, grey_values_of, shrunk
from retrieval.images.measures import Measures
from retrieval.images.radiograph import Radiograph, memory_to_decode, read_radiograph
from retrieval.images.windows import GreyValues
from retrieval.indexing.filing import preview_side
from retrieval.notices import Notice
from retrieval.one_study import several
from retrieval.query import Original, View, distinct_views, frame_notices, frame_views, left_out, mura_patient
from retrieval.searcher import Searcher
from web.errors import SEVERAL_STUDIES, Refused
from web.metrics import Counted, Figure
from web.models import IndexSummary, ModelName, NewQuestion, Question, Upload, shown_name, too_many_views
from web.service.admission import Admission, Share, busy
from web.service.batcher import Batcher
from web.service.indexed import no_case, require_case
from web.service.score_watch import ScoreWatch
from web.service.searcher_pool import SearcherPool
from web.service.study_store import Study, StudyStore
from web.settings import Limits

__all__ = ["Service"]

P = ParamSpec("P")
R = TypeVar("R")

_DRAWINGS, _PICTURES = 16, 64  # heatmaps and radiographs that may wait to be drawn
_LONGEST = 2048  # pixels on the long side of a radiograph as a picture
_VALUES = 4096  # the same of its grey values
_HEAT = 768, 255  # the same of a heatmap, and its levels of colour


@dataclass(frozen=True, slots=True)
class _Source:
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


class Service:
    """One server's searchers, processes, threads and queues; belongs to the event loop that calls it."""

    def __init__(self, pool: SearcherPool, limits: Limits, *, files: bool = False) -> None:
        """files: whether pictures of indexed cases are read from the collection's files."""
        self.pool = pool
        self.limits = limits
        self.files = files
        self.admission = Admission(limits.requests, limits.memory, limits.wait)
        self.studies = StudyStore(limits.remembered_bytes, limits.remembered_seconds)
        self._expiry: asyncio.TimerHandle | None = None  # set while a study is remembered
        self.scores = ScoreWatch()
        self.batcher = Batcher(limits.batch, limits.gather, limits.pictures, lambda: self.admission.working)
        self._drawings = Admission(_DRAWINGS, limits.memory)
        self._pictures = Admission(_PICTURES, limits.memory)
        readers = max(2, os.cpu_count() or 2)
        self._decoders = DecoderPool(readers, limits.decode)
        self._turns = asyncio.Semaphore(readers)
        self._decoding = ThreadPoolExecutor(readers, thread_name_prefix="decode")
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="read")
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="picture")

    def start(self) -> None:
        """Start the processes that decode."""
        self._decoders.warm_up()

    async def close(self) -> None:
        """Answer nothing more. Files that are being decoded are abandoned; an encoding or a drawing is completed."""
        if self._expiry:
            self._expiry.cancel()
        self._decoders.close()
        await self.batcher.close()
        for pool in (self._decoding, self._threads, self._drawer, self._painter):
            pool.shutdown(wait=True, cancel_futures=True)
        self.pool.close()

    async def ask(self, upload: Upload, share: Share) -> tuple[Answer, str]:
        """Answer for one study; also the name under which it is remembered, "" unless the question wants heatmaps.

        Files that cannot be read are left out with a warning. Raises RadiographError if none can be, Refused.
        """
        decode, most = self._decoders.decode, self.limits.views
        sources = [_Source(name, functools.partial(decode, data, name, most), (), data) for name, data in upload.files]
        answer, study = await self._answered(sources, upload.question, share)
        return answer, self.remember(study) if upload.question.heatmap == "true" else ""

    def remember(self, study: Study) -> str:
        """Keep a study until its time is over, also if nobody asks in the meantime; gives its name."""
        name = self.studies.add(study)
        if self._expiry is None:
            self._expire()
        return name

    def _expire(self) -> None:
        """Forget the studies whose time is over, and come back when that of the next one is."""
        self.studies.expire()
        after = self.studies.seconds_to_next()
        wait = None if after is None else max(after, 0) + 0.01
        self._expiry = None if wait is None else asyncio.get_running_loop().call_later(wait, self._expire)

    async def ask_files(self, files: Sequence[Path], question: NewQuestion, share: Share) -> tuple[Answer, Study]:
        """As `ask`, for files of this machine; the answer has their names without their folders."""
        read, most = self._decoders.read, self.limits.views
        names = [shown_name(file.name, number) for number, file in enumerate(files, start=1)]
        sources = [
            _Source(name, functools.partial(read, file, name, most), mura_patient(file), path=file)
            for name, file in zip(names, files, strict=True)
        ]
        return await self._answered(sources, question, share)

    async def _answered(self, sources: Sequence[_Source], question: NewQuestion, share: Share) -> tuple[Answer, Study]:
        try:
            with self.admission.work():
                async with asyncio.timeout(self.limits.answer):
                    return await self._ask(sources, question, share)
        except TimeoutError as error:
            raise Refused(503, f"this took longer than {self.limits.answer:.0f} s; try again later", retry=5) from error

    async def trouble(self) -> str:
        """Why the index as it is now cannot be used; "" if it can be."""
        async with self._searcher():
            return self.pool.trouble

    async def use(self, work: Callable[[Searcher], R]) -> R:
        """What some work with a searcher of the index as it is now gives, in a thread."""
        async with self._searcher() as searcher:
            return await self._in_thread(work, searcher)

    async def again(self, name: str, question: Question) -> Answer:
        """Answer again for a remembered study. Raises Refused."""
        study = self.studies.get(name)
        async with self._searcher() as searcher:
            return await self._in_thread(_answer_again, searcher, study, question)

    async def picture(self, name: str, number: int, longest: int = _LONGEST) -> bytes:
        """A view, 1 to V, of a remembered study, as PNG of at most `longest` pixels. Raises Refused."""
        pixels = self.studies.get(name).view(number).pixels
        with self._pictures.enter():
            return await self._run(self._painter, radiograph_png, pixels, longest)

    async def grey_values(self, name: str, number: int) -> GreyValues:
        """A view, 1 to V, of a remembered study with all its bits, of at most 4096 pixels a side. Raises Refused."""
        view = self.studies.get(name).view(number)
        with self._pictures.enter():
            if view.original is None:
                return await self._run(self._painter, lambda: shrunk(grey_values_of(view.pixels), _VALUES))
            one = view.original
            values = functools.partial(self._decoders.values, one.source, one.name, one.frame, _VALUES)
            return await self._run(self._decoding, values)

    async def class_heatmap(self, name: str, number: int, target: str, *, always: bool = True) -> bytes:
        """Where the classifier looks in a view of a remembered study, or what speaks for normal, as PNG.

        always: also if the view's probability is below the threshold. Raises Refused.
        """
        study = self.studies.get(name)
        view = study.view(number)

        def draw(searcher: Searcher) -> bytes:
            study.require_model(searcher)
            study.require_radiographs("its heatmap")
            encoder, encoded = searcher.explained, study.encoded.row(number - 1)
            if target == "abnormal":
                return heatmap_png(evidence_of(encoder, searcher.rules, view.pixels, encoded, always=always), *_HEAT)
            return heatmap_png(within_limb(explain_class(encoder, view.pixels, target=target), view.pixels), *_HEAT)

        return await self._draw(draw)

    async def likeness(self, name: str, number: int, case: str, *, inside: bool) -> bytes:
        """What makes a view and an indexed case alike: where in the view, or where inside the case, as PNG.

        Raises Refused.
        """
        study = self.studies.get(name)
        view = study.view(number)

        def draw(searcher: Searcher) -> bytes:
            if inside:
                study.require_model(searcher)
                pixels = self._case_pixels(searcher, require_case(searcher, case))
                embedding = study.encoded.embeddings[number - 1]
            else:
                pixels, embedding = view.pixels, _case_embedding(searcher, study, case)
            alike = explain_similarity(searcher.encoder, pixels, embedding)
            return heatmap_png(within_limb(alike, pixels), *_HEAT)

        return await self._draw(draw)

    async def similarities(self, name: str, cases: Sequence[str]) -> NDArray[np.float32]:
        """The cosines (V, C) of the views of a remembered study and indexed cases. Raises Refused."""
        study = self.studies.get(name)

        def compare(searcher: Searcher) -> NDArray[np.float32]:
            return study.encoded.embeddings @ np.stack([_case_embedding(searcher, study, case) for case in cases], 1)

        return await self.use(compare)

    async def report(self, name: str, question: Question, make: Callable[[Searcher, Study, Answer], str]) -> str:
        """The report of a remembered study. Raises Refused."""
        study = self.studies.get(name)

        def write(searcher: Searcher) -> bytes:
            return make(searcher, study, _answer_again(searcher, study, question)).encode("utf-8", "replace")

        return (await self._draw(write)).decode()

    async def case(self, name: str) -> Case:
        """The record of an indexed case. Raises Refused with 404."""
        async with self._searcher() as searcher:
            return await self._in_thread(require_case, searcher, name)

    async def cases_of(self, study: str) -> list[Case]:
        """The indexed radiographs of a study, in the order of their names."""
        async with self._searcher() as searcher:
            cases = await self._in_thread(searcher.index.find, "study", [study])
        return sorted(cases, key=lambda case: case.case)

    async def preview_side(self) -> int:
        """The pixels of the long side of the pictures that the index keeps for comparisons."""
        async with self._searcher() as searcher:
            return preview_side(searcher.index) or THUMBNAIL_SIDE

    async def case_picture(self, name: str, *, small: bool) -> tuple[bytes, str]:
        """An indexed case's picture and its media type: the full one if `files` allows it, else the preview.

        Raises Refused with 404.
        """

        def picture(searcher: Searcher) -> tuple[bytes, str]:
            if self.files and not small:
                return radiograph_png(_file_pixels(require_case(searcher, name)), _LONGEST), "image/png"
            stored = (None if small else searcher.index.preview(name)) or searcher.index.thumbnail(name)
            if stored is None:
                raise no_case()
            return stored, "image/png" if stored.startswith(b"\x89PNG") else "image/jpeg"

        with self._pictures.enter():
            async with self._searcher() as searcher:
                return await self._run(self._painter, picture, searcher)

    async def about(self) -> IndexSummary:
        """What the index holds, its model, and whether all of it is synthetic."""

        def look(searcher: Searcher) -> IndexSummary:
            info: dict[str, Any] = searcher.index.info()
            return IndexSummary(
                name=searcher.index.path.name,
                **{key: info[key] for key in ("cases", "studies", "patients", "parts", "labels", "generation")},
                views=searcher.index.counts("view"),
                model=ModelName(name=searcher.model.name, sha256=searcher.model.sha256),
                synthetic=searcher.source.synthetic,
            )

        async with self._searcher() as searcher:
            return await self._in_thread(look, searcher)

    async def has_regions(self) -> bool:
        """Whether a region can be searched in the index."""
        return await self.use(lambda searcher: searcher.index.has_extra("regions"))

    def gauges(self) -> list[Figure]:
        """The figures that go up and down, for /metrics."""
        cases, studies = self.pool.index.size()
        return [
            ("requests_at_work", "Uploads being answered now.", self.admission.inside),
            ("work_bytes", "Bytes that the uploads being answered hold.", self.admission.bytes),
            ("pictures_waiting", "Radiographs that wait for the encoder.", self.batcher.waiting),
            ("studies_remembered", "Studies remembered for their heatmaps.", len(self.studies)),
            ("remembered_bytes", "Bytes that the remembered studies hold.", self.studies.bytes),
            ("index_ready", "1 if the index as it is now answers.", not self.pool.trouble),
            ("index_generation", "The generation of the index.", self.pool.index.generation),
            ("index_cases", "Cases in the index.", cases),
            ("index_studies", "Studies in the index.", studies),
            *self.scores.gauges(),
        ]

    def histograms(self) -> list[Counted]:
        """The scores of answered studies, for /metrics."""
        return self.scores.histograms()

    def counters(self) -> list[Figure]:
        """The figures that only go up, for /metrics."""
        return [
            ("batches_encoded", "Batches encoded.", self.batcher.batches),
            ("pictures_encoded", "Radiographs encoded.", self.batcher.encoded),
        ]

    @asynccontextmanager
    async def _searcher(self) -> AsyncIterator[Searcher]:
        borrowed = self.pool.borrow()
        entering = asyncio.ensure_future(self._in_thread(borrowed.__enter__))
        try:
            searcher = await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(lambda _: borrowed.__exit__(None, None, None))
            raise
        try:
            yield searcher
        finally:
            borrowed.__exit__(None, None, None)

    async def _ask(self, sources: Sequence[_Source], question: NewQuestion, share: Share) -> tuple[Answer, Study]:
        started = time.perf_counter()
        async with self._searcher() as searcher:
            views, pictures, notices = await self._read(sources, searcher, share)
            former = self.studies.get(question.add_to) if question.add_to else None
            together = [*former.views, *views] if former else views
            if question.one_study == "false" and (known := await self._in_thread(several, searcher.index, together)):
                raise Refused(
                    422, f"the radiographs are of {known}: ask about one study at a time, or say that they are one "
                    "study (one_study=true)", kind=SEVERAL_STUDIES,
                )  # fmt: skip
            encoded = await self.batcher.encode(searcher.encoder, pictures)
            measures = await self._in_thread(_measured, searcher, views)
            study = Study(
                tuple(views), searcher.encoder.harmonised(encoded, measures), tuple(notices), question.patient,
                searcher.encoder.bundle.sha256, time.perf_counter() - started, measures=measures,
            )  # fmt: skip
            if former:
                study = self._joined(searcher, former, study)
            answer = await self._in_thread(_answer, searcher, study, question)
            self.scores.add(answer, searcher.reference)
            return answer, study

    async def _read(
        self, sources: Sequence[_Source], searcher: Searcher, share: Share
    ) -> tuple[list[View], list[NDArray[np.uint8]], list[Notice]]:
        """The views that can be read, their prepared pictures, and notices about them."""
        views: list[View] = []
        pictures: list[NDArray[np.uint8]] = []
        notices: list[Notice] = []
        failures: list[tuple[str, RadiographError]] = []
        pixels = 0
        for source in sources:
            try:
                read, prepared, said = await self._decoded(searcher, source, share)
            except RadiographError as error:
                failures.append((source.name, error))
                continue
            pixels += sum(view.pixels.shape[0] * view.pixels.shape[1] for view in read)
            if pixels > self.limits.pixels:
                raise Refused(413, f"the radiographs have more than {self.limits.pixels:,} pixels together; send fewer")
            share.take(sum(view.pixels.nbytes for view in read))
            views += read
            if len(views) > self.limits.views:
                raise too_many_views(self.limits.views)
            pictures += prepared
            notices += said
        if not views:
            raise failures[0][1]
        distinct, repeated = distinct_views(views)
        kept = {id(view) for view in distinct}
        pictures = [picture for view, picture in zip(views, pictures, strict=True) if id(view) in kept]
        return distinct, pictures, [*notices, *repeated, *(left_out(*failure) for failure in failures)]

    async def _decoded(
        self, searcher: Searcher, source: _Source, share: Share
    ) -> tuple[list[View], list[NDArray[np.uint8]], tuple[Notice, ...]]:
        """A file as `_read_source` gives it, in its turn; if nobody waits for it any more, its process is ended.

        Raises Refused if its turn does not come in time.
        """
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.wait):
                await self._turns.acquire()
        except TimeoutError as error:
            raise busy(self.limits.wait) from error
        try:
            with share.lend(await self._in_thread(source.memory)):
                return await loop.run_in_executor(self._decoding, _read_source, searcher, source, abandoned)
        finally:
            abandoned.set()
            self._turns.release()

    def _joined(self, searcher: Searcher, former: Study, more: Study) -> Study:
        """A remembered study with further views. Raises Refused for too many."""
        former.require_model(searcher)
        study = former.joined(more)
        distinct, repeated = distinct_views(study.views)
        if len(distinct) > self.limits.views:
            raise too_many_views(self.limits.views)
        if sum(view.pixels.shape[0] * view.pixels.shape[1] for view in distinct) > self.limits.pixels:
            raise Refused(413, f"the radiographs have more than {self.limits.pixels:,} pixels together; send fewer")
        kept = {id(view) for view in distinct}
        study = study.only([row for row, view in enumerate(study.views) if id(view) in kept])
        return replace(study, notices=tuple(dict.fromkeys([*study.notices, *repeated])))

    def remove_view(self, name: str, number: int) -> str:
        """Remember a study without one of its views, 1 to V; gives its new name. Raises Refused."""
        study = self.studies.get(name)
        removed = study.view(number)
        if len(study.views) == 1:
            raise Refused(422, "this is the study's only view; ask about another study instead")
        rows = [row for row in range(len(study.views)) if row != number - 1]
        notices = tuple(notice for notice in study.notices if notice.view != removed.name)
        return self.remember(replace(study.only(rows), notices=notices))

    def _case_pixels(self, searcher: Searcher, case: Case) -> NDArray[np.uint8]:
        """The case's radiograph if its file may be read, else its preview or thumbnail."""
        if self.files:
            return _file_pixels(case)
        stored = searcher.index.preview(case.case) or searcher.index.thumbnail(case.case)
        pixels = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise no_case()
        return np.asarray(pixels, np.uint8)

    async def _draw(self, draw: Callable[[Searcher], bytes]) -> bytes:
        with self._drawings.enter():
            async with self._searcher() as searcher:
                return await self._run(self._drawer, draw, searcher)

    async def _in_thread(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        return await self._run(self._threads, call, *arguments, **named)

    async def _run(self, threads: ThreadPoolExecutor, call: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(call, *values, **named))


def _file_pixels(case: Case) -> NDArray[np.uint8]:
    try:
        return read_radiograph(Path(case.path)).pixels
    except RadiographError as error:  # which names the file
        raise Refused(404, "this case's file can no longer be read; ask the server's administrator") from error


def _case_embedding(searcher: Searcher, study: Study, case: str) -> NDArray[np.float32]:
    """An indexed case's embedding, to be compared with a study. Raises Refused."""
    study.require_model(searcher)
    embedding = searcher.index.embedding(case)
    if embedding is None:
        raise no_case()
    return embedding


def _read_source(
    searcher: Searcher, source: _Source, abandoned: threading.Event
) -> tuple[list[View], list[NDArray[np.uint8]], tuple[Notice, ...]]:
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
    return views, pictures, tuple(frame_notices(source.name, views, frames))


def _answer_again(searcher: Searcher, study: Study, question: Question) -> Answer:
    """The answer for a remembered study, by default without the patient whom its first question named."""
    study.require_model(searcher)
    return _answer(searcher, study, question.model_copy(update={"patient": question.patient or study.patient}))


def _measured(searcher: Searcher, views: Sequence[View]) -> tuple[Measures, ...]:
    return tuple(searcher.encoder.measure(view.pixels) for view in views)


def _answer(searcher: Searcher, study: Study, question: Question) -> Answer:
    """The answer, without the paths of this machine."""
    try:
        answer = searcher.answer(
            study.views,
            study.encoded,
            question.scope,
            notices=study.notices,
            encode=study.encode,
            measures=study.measures,
        )
    except IndexFailure as error:
        raise Refused(503, "the index is busy or cannot be read; try again in a moment", retry=2) from error
    return replace(
        answer,
        cases=tuple(replace(case, path="") for case in answer.cases),
        index=replace(answer.index, path=Path(answer.index.path).name),
    )
