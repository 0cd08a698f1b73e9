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

from starlette.requests import Request

from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError, redacted_traceback
from retrieval.reports.stack import named
from retrieval.worklist.folder_watcher import Watch
from retrieval.worklist.worklist import SCHEMA, Entry, Found, Skipped, find_studies, in_order
from web.errors import Refused
from web.service.question import Asked
from web.service.service import Service

__all__ = ["MOST", "Listed", "Worklist", "worklist_of"]

MOST = 2000
"""Studies that are read; of a folder with more, the first by name."""

_EVERY = 5.0  # seconds between two looks at the folder, or more, so that looking takes a twentieth of the time at most
_TRIES = 5  # where the server is busy

_BROKEN = "something went wrong that should not have; whoever runs this server can look"
_AWAY = "the worklist's folder is not there any more; whoever runs this server can look"

Took = TypeVar("Took")

logger = logging.getLogger("mura-search")


@dataclass(frozen=True, slots=True)
class Listed:
    """A study that was read, its files, and the small picture (JPEG) of its first view."""

    entry: Entry
    found: Found
    picture: bytes


class Worklist:
    """What is known of a folder, in the order of `retrieval.worklist.worklist`.

    All of it is made anew whenever `start` is called: while that is done for the first time, the list is what was read
    so far; afterwards the former one until all is read. Then the folder is followed: a study that comes or changes is
    read when its files rest, one that goes leaves the list. What cannot be read now, because there are more than `MOST`
    or the server is busy, waits until it can. Studies are read one after the other, and encoded in turn with those that
    are sent. Each is known by a number that tells nothing, and stays its own as long as the server runs: a page that
    was drawn earlier never shows another one.
    """

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.made: datetime | None = None  # when the list became what it is
        self.changes = 0  # how often it has become another one
        self.done = self.all = 0  # of the last or present ranking: tried to read, and to be read
        self.trouble = ""
        self._service = service
        self._watch = Watch(folder, settle=_EVERY)
        self._listed: dict[str, Listed] = {}
        self._skipped: dict[str, Skipped] = {}
        self._waiting: dict[str, Found] = {}
        self._numbers: dict[str, str] = {}
        self._ranking = False
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether all of it is being ranked."""
        return self._ranking and self._task is not None and not self._task.done()

    @property
    def left(self) -> int:
        """How many studies are in the folder that are not on the list yet."""
        return sum(not self._is_known(study) for study in self._waiting)

    @property
    def most(self) -> int:
        """How many studies the list holds at most."""
        return MOST

    @property
    def skipped(self) -> list[Skipped]:
        return sorted(self._skipped.values(), key=lambda one: one.study)

    def start(self) -> None:
        """Begin to rank the folder as it is now, unless that is under way, and follow it from then on."""
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
        """The studies with their numbers, those to read first at the top."""
        of = {one.found.study: number for number, one in self._listed.items()}
        return [(of[entry.study], self._listed[of[entry.study]]) for entry in in_order(self._entries())]

    def to_dict(self) -> dict[str, object]:
        """The studies as "mura-search/worklist/1" has them, each with its number, and how far the list is made."""
        return {
            "schema": SCHEMA,
            "folder": named(self.folder.resolve().name),
            "ranking": self.running,
            "made": self.made.isoformat(timespec="seconds") if self.made else None,
            "changes": self.changes,
            "trouble": self.trouble,
            "not_read": self.left,
            "studies": [
                {"number": number, **listed.entry.to_dict(rank), "study": named(listed.entry.study)}
                for rank, (number, listed) in enumerate(self.ranked(), 1)
            ],
            "skipped": [{"study": named(one.study), "reason": named(one.reason)} for one in self.skipped],
        }

    def get(self, number: str) -> Listed:
        """The study of a number. Raises Refused with 404 where it is not on the list, or no longer."""
        if number not in self._listed:
            raise Refused(404, "this study is not on the worklist, or no longer; look at the worklist again")
        return self._listed[number]

    def _entries(self) -> list[Entry]:
        return [one.entry for one in self._listed.values()]

    async def _work(self) -> None:
        while True:
            self._asked.clear()
            await self._safely(self._rank)
            self._ranking = False
            pause = _EVERY
            while not await self._is_asked(pause):
                pause = max(_EVERY, 20 * (await self._safely(self._follow) or 0))

    async def _safely(self, step: Callable[[], Awaitable[Took]]) -> Took | None:
        """Take a step; None where it failed in a way that nobody expected, which is said and does not end the work."""
        try:
            return await step()
        except Exception as error:  # broad: else the page would say for ever that the folder is watched
            if self.trouble != _BROKEN:
                logger.error("the worklist could not be brought up to date: %s", redacted_traceback(error))
            self._say(_BROKEN)
            return None

    async def _is_asked(self, seconds: float) -> bool:
        """Wait; whether all is to be ranked anew."""
        try:
            async with asyncio.timeout(seconds):
                return await self._asked.wait()
        except TimeoutError:
            return False

    async def _rank(self) -> None:
        self.trouble, self.done, self.all = "", 0, 0
        try:
            found, unread = await asyncio.to_thread(find_studies, self.folder)
        except (OSError, RadiographError):  # which names the folder's place
            self.trouble = _AWAY
            return
        skipped = {one.study: Skipped(one.study, "this folder cannot be read") for one in unread}
        self.all, self._waiting = min(len(found), MOST), {one.study: one for one in found}
        listed: dict[str, Listed] = {}
        if self.made is None:
            self._listed, self._skipped = listed, skipped
        for one in found:
            await asyncio.to_thread(self._watch.give, one)
        for one in found[:MOST]:
            read, former = await self._read(one), self._listed.get(self._number(one))
            if read is not None:
                del self._waiting[one.study]
            if isinstance(read, Skipped):
                skipped[one.study] = read
            elif one_listed := read or former:
                listed[self._number(one)] = one_listed
            self.done += 1
            self.changes += listed is self._listed
        self._listed, self._skipped = listed, skipped
        self._changed()

    async def _follow(self) -> float:
        """Look at the folder once, and read what has come; the seconds that the look took."""
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
        self._waiting |= {one.study: one for one in ready}
        for one in self._readable():
            # All of it will be read anyway, or this one at the next look, its former state being listed until then.
            if self._asked.is_set() or (read := await self._read(one)) is None:
                break
            self._drop(one.study)
            del self._waiting[one.study]
            if isinstance(read, Skipped):
                self._skipped[one.study] = read
            else:
                self._listed[self._number(one)] = read
            self._changed()
        if self.left > before:
            self._changed()
        return took

    def _readable(self) -> list[Found]:
        """What waits and may be read: whatever has changed, and what is new as long as there is room."""
        new = [one for one in self._waiting.values() if not self._is_known(one.study)]
        changed = [one for one in self._waiting.values() if self._is_known(one.study)]
        return changed + new[: max(0, MOST - len(self._listed))]

    def _say(self, trouble: str) -> None:
        self.changes += trouble != self.trouble
        self.trouble = trouble

    def _changed(self) -> None:
        self.changes += 1
        self.made = datetime.now(UTC)

    def _number(self, found: Found) -> str:
        return self._numbers.setdefault(found.study, secrets.token_hex(8))

    def _is_known(self, study: str) -> bool:
        return study in self._skipped or self._numbers.get(study) in self._listed

    def _drop(self, study: str) -> None:
        """Take a study off the list."""
        self._skipped.pop(study, None)
        self._listed.pop(self._numbers.get(study, ""), None)

    async def _read(self, found: Found) -> Listed | Skipped | None:
        """Ask about one study as about one that is sent; None where the server stays busy."""
        for attempt in range(_TRIES):
            try:
                with self._service.admission.enter() as share:
                    answer, study = await self._service.ask_files(found.files, Asked(k=1), share)
                return Listed(Entry(found.study, answer), found, thumbnail(study.views[0].pixels))
            except RadiographError as error:
                return Skipped(found.study, str(error))
            except Refused as error:
                if error.retry is None:
                    return Skipped(found.study, str(error))
                if attempt < _TRIES - 1:
                    await asyncio.sleep(error.retry)
            except Exception as error:  # broad: what nobody expected costs one study, not the list
                logger.error("a study of the worklist could not be read: %s", redacted_traceback(error))
                return Skipped(found.study, "something went wrong that should not have")
        return None


def worklist_of(request: Request) -> Worklist:
    """The worklist of the server that is asked. Raises Refused with 404 where it has none."""
    worklist: Worklist | None = request.app.state.worklist
    if worklist is None:
        raise Refused(404, "this server has no worklist; start it with --worklist FOLDER to have one")
    return worklist
