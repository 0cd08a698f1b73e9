"""The studies of a folder on this machine, ranked and followed in the background while requests are answered."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError, redacted_traceback
from retrieval.wording import printable
from retrieval.worklist.folder_watcher import Watch
from retrieval.worklist.label_queue import Queued
from retrieval.worklist.worklist import SCHEMA, Entry, Skipped, StudyFiles, find_studies, in_order
from web.errors import Refused
from web.models import NewQuestion
from web.service.service import Service

__all__ = ["MOST", "Listed", "Worklist"]

MOST = 2000
"""Studies that are read; of a larger folder, the first by name."""

_EVERY = 5.0  # seconds between two looks, more if looking would take over a twentieth of the time
_TRIES = 5  # if the server is busy

_BROKEN = "unexpected error; the server's log says where"
_AWAY = "the worklist's folder no longer exists; ask the server's administrator"

Took = TypeVar("Took")

logger = logging.getLogger("mura-search")


@dataclass(frozen=True, slots=True)
class Listed:
    """An answered study, its files, a small picture (JPEG) of its first view, and its embedding (D,)."""

    entry: Entry
    files: tuple[Path, ...]
    picture: bytes
    embedding: NDArray[np.float32]

    def queued(self, number: str) -> Queued:
        """The study as one to be labelled; `number` is its number on the list."""
        names = tuple(file.name for file in self.files)
        return Queued(self.entry.study, names, self.entry.answer, self.embedding, key=number)


class Worklist:
    """The answers for a folder's studies, in the order of `retrieval.worklist.worklist`.

    `start` ranks the whole folder. The first ranking shows the studies read so far; a later one shows the former list
    until all are read. Then the folder is followed: a new or changed study is read when its files have rested, and a
    deleted study leaves the list. A study waits if there are more than `MOST` or if the server is busy. Studies are
    read one by one, among those that are sent. Each keeps a random number while the server runs, so an old page never
    opens another study.
    """

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.made: datetime | None = None  # when the list last changed
        self.changes = 0  # how often it has changed
        self.done = self.all = 0  # studies that this or the last ranking has tried to read, and all to read
        self.trouble = ""
        self._service = service
        self._watch = Watch(folder, settle=_EVERY)
        self._listed: dict[str, Listed] = {}
        self._skipped: dict[str, Skipped] = {}
        self._waiting: dict[str, StudyFiles] = {}
        self._numbers: dict[str, str] = {}
        self._read_at: dict[str, datetime] = {}  # by number: when somebody has opened the study
        self._ranking = False
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the whole folder is being ranked."""
        return self._ranking and self._task is not None and not self._task.done()

    @property
    def left(self) -> int:
        """How many studies of the folder are not on the list yet."""
        return sum(not self._is_known(study) for study in self._waiting)

    @property
    def most(self) -> int:
        """How many studies the list holds at most."""
        return MOST

    @property
    def skipped(self) -> list[Skipped]:
        return sorted(self._skipped.values(), key=lambda skipped: skipped.study)

    def start(self) -> None:
        """Rank the folder as it is now, unless this is under way, and then follow its changes."""
        if self.running:
            return
        self._ranking = True
        self._asked.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ranked(self) -> list[tuple[str, Listed]]:
        """The studies with their numbers, in the order to read them."""
        numbers = {listed.entry.study: number for number, listed in self._listed.items()}
        entries = in_order([listed.entry for listed in self._listed.values()])
        return [(numbers[entry.study], self._listed[numbers[entry.study]]) for entry in entries]

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/worklist/1", with each study's number and the state of the list."""
        return {
            "schema": SCHEMA,
            "folder": printable(self.folder.resolve().name),
            "ranking": self.running,
            "made": self.made.isoformat(timespec="seconds") if self.made else None,
            "changes": self.changes,
            "trouble": self.trouble,
            "not_read": self.left,
            "studies": [
                {
                    "number": number,
                    **listed.entry.to_dict(rank),
                    "study": printable(listed.entry.study),
                    "read": at.isoformat(timespec="seconds") if (at := self.read_at(number)) else None,
                }
                for rank, (number, listed) in enumerate(self.ranked(), 1)
            ],
            "skipped": [{"study": printable(item.study), "reason": printable(item.reason)} for item in self.skipped],
        }

    def get(self, number: str) -> Listed:
        """The study of a number. Raises Refused with 404 if it is not on the list."""
        if number not in self._listed:
            raise Refused(404, "this study is not on the worklist; reload the worklist")
        return self._listed[number]

    def mark(self, number: str, *, read: bool) -> None:
        """Note that a study was read, or is to be read again. Raises Refused with 404 if it is not on the list."""
        self.get(number)
        if read:
            self._read_at.setdefault(number, datetime.now(UTC))
        else:
            self._read_at.pop(number, None)

    def read_at(self, number: str) -> datetime | None:
        """When a study was read; None if it was not."""
        return self._read_at.get(number)

    def place(self, number: str) -> tuple[int, int, tuple[str, str] | None] | None:
        """A study's rank, how many are listed, and number and name of the next unread one; None if it is not listed."""
        ranked = self.ranked()
        rank = next((rank for rank, (key, _) in enumerate(ranked, 1) if key == number), 0)
        if not rank:
            return None
        following = [*ranked[rank:], *ranked[: rank - 1]]
        unread = ((key, listed.entry.study) for key, listed in following if key not in self._read_at)
        return rank, len(ranked), next(unread, None)

    async def _work(self) -> None:
        while True:
            self._asked.clear()
            await self._safely(self._rank)
            self._ranking = False
            pause = _EVERY
            while not await self._is_asked(pause):
                pause = max(_EVERY, 20 * (await self._safely(self._follow) or 0))

    async def _safely(self, step: Callable[[], Awaitable[Took]]) -> Took | None:
        """Take a step; None after an unexpected error, which becomes `trouble` and does not end the work."""
        try:
            return await step()
        except Exception as error:  # broad: otherwise nothing would watch the folder, and the page not say so
            if self.trouble != _BROKEN:
                logger.error("the worklist could not be brought up to date: %s", redacted_traceback(error))
            self._say(_BROKEN)
            return None

    async def _is_asked(self, seconds: float) -> bool:
        """Wait at most `seconds`; whether the whole folder is to be ranked again."""
        try:
            async with asyncio.timeout(seconds):
                return await self._asked.wait()
        except TimeoutError:
            return False

    async def _rank(self) -> None:
        self.trouble, self.done, self.all = "", 0, 0
        try:
            sources, unread = await asyncio.to_thread(find_studies, self.folder)
        except (OSError, RadiographError):  # its text names the path
            self.trouble = _AWAY
            return
        skipped = {folder.study: Skipped(folder.study, "this folder cannot be read") for folder in unread}
        self.all, self._waiting = min(len(sources), MOST), {source.study: source for source in sources}
        listed: dict[str, Listed] = {}
        if self.made is None:
            self._listed, self._skipped = listed, skipped
        for source in sources:
            await asyncio.to_thread(self._watch.give, source)
        for source in sources[:MOST]:
            read, former = await self._read(source), self._listed.get(self._number(source))
            if read is not None:
                del self._waiting[source.study]
            if isinstance(read, Skipped):
                skipped[source.study] = read
            elif current := read or former:
                listed[self._number(source)] = current
            self.done += 1
            self.changes += listed is self._listed
        self._listed, self._skipped = listed, skipped
        self._changed()

    async def _follow(self) -> float:
        """Look at the folder once, and read new and changed studies; the seconds that the look took."""
        started = time.perf_counter()
        try:
            ready, gone = await asyncio.to_thread(self._watch.look)
        except (OSError, RadiographError):
            self._say(_AWAY)
            return time.perf_counter() - started
        took = time.perf_counter() - started
        self._say("")
        for name in gone:
            self._drop(name)
            self._waiting.pop(name, None)
            self._changed()
        before = self.left
        self._waiting |= {source.study: source for source in ready}
        for source in self._readable():
            # A new ranking reads all of them; a busy server reads this study at the next look. Until then the list
            # keeps the study's former state.
            if self._asked.is_set() or (read := await self._read(source)) is None:
                break
            self._drop(source.study)
            del self._waiting[source.study]
            if isinstance(read, Skipped):
                self._skipped[source.study] = read
            else:
                self._listed[self._number(source)] = read
            self._changed()
        if self.left > before:
            self._changed()
        return took

    def _readable(self) -> list[StudyFiles]:
        """The waiting studies to read now: all that have changed, and new ones as long as there is room."""
        new = [source for source in self._waiting.values() if not self._is_known(source.study)]
        changed = [source for source in self._waiting.values() if self._is_known(source.study)]
        return changed + new[: max(0, MOST - len(self._listed))]

    def _say(self, trouble: str) -> None:
        self.changes += trouble != self.trouble
        self.trouble = trouble

    def _changed(self) -> None:
        self.changes += 1
        self.made = datetime.now(UTC)

    def _number(self, source: StudyFiles) -> str:
        return self._numbers.setdefault(source.study, secrets.token_hex(8))

    def _is_known(self, study: str) -> bool:
        return study in self._skipped or self._numbers.get(study) in self._listed

    def _drop(self, study: str) -> None:
        """Take a study off the list."""
        self._skipped.pop(study, None)
        self._listed.pop(self._numbers.get(study, ""), None)
        self._read_at.pop(self._numbers.get(study, ""), None)  # a changed study is to be read again

    async def _read(self, source: StudyFiles) -> Listed | Skipped | None:
        """Answer for one study as for an upload; None if the server stays busy."""
        for attempt in range(_TRIES):
            try:
                with self._service.admission.enter() as share:
                    answer, study = await self._service.ask_files(
                        source.files, NewQuestion(k=1, one_study="true"), share
                    )
                picture = thumbnail(study.views[0].pixels)
                return Listed(Entry(source.study, answer), source.files, picture, study.encoded.mean())
            except RadiographError as error:
                return Skipped(source.study, str(error))
            except Refused as error:
                if error.retry is None:
                    return Skipped(source.study, str(error))
                if attempt < _TRIES - 1:
                    await asyncio.sleep(error.retry)
            except Exception as error:  # broad: an unexpected error costs one study, not the list
                logger.error("a study of the worklist could not be read: %s", redacted_traceback(error))
                return Skipped(source.study, _BROKEN)
        return None
