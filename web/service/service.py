"""What the routes call: decoding, encoding and search for a request, each within limits."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from index.case import Case
from index.errors import IndexFailure
from retrieval.answer import Answer
from retrieval.encoding.batches import THUMBNAIL_SIDE
from retrieval.images.measures import Measures
from retrieval.indexing.filing import preview_side
from retrieval.query import View, distinct_views
from retrieval.query_checks.one_study import several
from retrieval.searcher import Searcher
from web.errors import SEVERAL_STUDIES, Refused
from web.metrics import Counted, Figure
from web.models import IndexSummary, ModelName, NewQuestion, Question, Upload, too_many_views
from web.service.admission import Admission, Share
from web.service.batcher import Batcher
from web.service.decoding import Decoding, Source, require_few_pixels
from web.service.indexed import require_case
from web.service.pictures import Pictures
from web.service.score_watch import ScoreWatch
from web.service.searcher_pool import SearcherPool
from web.service.searchers import Searchers
from web.service.study_store import Study, StudyStore
from web.settings import Limits

__all__ = ["Service"]

R = TypeVar("R")


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
        readers = max(2, os.cpu_count() or 2)
        self.searchers = Searchers(pool, readers)
        self._decoding = Decoding(limits, self.searchers, readers)
        self.pictures = Pictures(self.studies, self.searchers, self._decoding, limits.memory, files=files)

    def start(self) -> None:
        """Start the processes that decode."""
        self._decoding.start()

    async def close(self) -> None:
        """Answer nothing more. Files that are being decoded are abandoned; an encoding or a drawing is completed."""
        if self._expiry:
            self._expiry.cancel()
        self._decoding.abandon()
        await self.batcher.close()
        for threads in (self._decoding, self.searchers, self.pictures):
            threads.close()
        self.pool.close()

    async def ask(self, upload: Upload, share: Share) -> tuple[Answer, str]:
        """Answer for one study; also the name under which it is remembered, "" unless the question wants heatmaps.

        Files that cannot be read are left out with a warning. Raises RadiographError if none can be, Refused.
        """
        sources = self._decoding.uploads(upload.files)
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
        return await self._answered(self._decoding.files(files), question, share)

    async def _answered(self, sources: Sequence[Source], question: NewQuestion, share: Share) -> tuple[Answer, Study]:
        try:
            with self.admission.work():
                async with asyncio.timeout(self.limits.answer):
                    return await self._ask(sources, question, share)
        except TimeoutError as error:
            raise Refused(503, f"this took longer than {self.limits.answer:.0f} s; try again later", retry=5) from error

    async def trouble(self) -> str:
        """Why the index as it is now cannot be used; "" if it can be."""
        async with self.searchers.borrow():
            return self.pool.trouble

    async def use(self, work: Callable[[Searcher], R]) -> R:
        """What some work with a searcher of the index as it is now gives, in a thread."""
        return await self.searchers.use(work)

    async def again(self, name: str, question: Question) -> Answer:
        """Answer again for a remembered study. Raises Refused."""
        study = self.studies.get(name)
        async with self.searchers.borrow() as searcher:
            return await self.searchers.run(_answer_again, searcher, study, question)

    async def report(self, name: str, question: Question, make: Callable[[Searcher, Study, Answer], str]) -> str:
        """The report of a remembered study. Raises Refused."""
        study = self.studies.get(name)

        def write(searcher: Searcher) -> bytes:
            return make(searcher, study, _answer_again(searcher, study, question)).encode("utf-8", "replace")

        return (await self.pictures.draw(write)).decode()

    async def case(self, name: str) -> Case:
        """The record of an indexed case. Raises Refused with 404."""
        async with self.searchers.borrow() as searcher:
            return await self.searchers.run(require_case, searcher, name)

    async def cases_of(self, study: str) -> list[Case]:
        """The indexed radiographs of a study, in the order of their names."""
        async with self.searchers.borrow() as searcher:
            cases = await self.searchers.run(searcher.index.find, "study", [study])
        return sorted(cases, key=lambda case: case.case)

    async def preview_side(self) -> int:
        """The pixels of the long side of the pictures that the index keeps for comparisons."""
        async with self.searchers.borrow() as searcher:
            return preview_side(searcher.index) or THUMBNAIL_SIDE

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

        async with self.searchers.borrow() as searcher:
            return await self.searchers.run(look, searcher)

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

    async def _ask(self, sources: Sequence[Source], question: NewQuestion, share: Share) -> tuple[Answer, Study]:
        started = time.perf_counter()
        async with self.searchers.borrow() as searcher:
            read = await self._decoding.read(sources, searcher, share)
            views = read.views
            former = self.studies.get(question.add_to) if question.add_to else None
            together = [*former.views, *views] if former else views
            if question.one_study == "false" and (known := await self.searchers.run(several, searcher.index, together)):
                raise Refused(
                    422, f"the radiographs are of {known}: ask about one study at a time, or say that they are one "
                    "study (one_study=true)", kind=SEVERAL_STUDIES,
                )  # fmt: skip
            encoded = await self.batcher.encode(searcher.encoder, read.pictures)
            measures = await self.searchers.run(_measured, searcher, views)
            study = Study(
                tuple(views), searcher.encoder.harmonised(encoded, measures), tuple(read.notices), question.patient,
                searcher.encoder.bundle.sha256, time.perf_counter() - started, measures=measures,
            )  # fmt: skip
            if former:
                study = self._joined(searcher, former, study)
            answer = await self.searchers.run(_answer, searcher, study, question)
            self.scores.add(answer, searcher.reference)
            return answer, study

    def _joined(self, searcher: Searcher, former: Study, more: Study) -> Study:
        """A remembered study with further views. Raises Refused for too many."""
        former.require_model(searcher)
        study = former.joined(more)
        distinct, repeated = distinct_views(study.views)
        if len(distinct) > self.limits.views:
            raise too_many_views(self.limits.views)
        require_few_pixels(distinct, self.limits)
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
