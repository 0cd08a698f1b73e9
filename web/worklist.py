"""The studies of a folder on this machine, ranked in the background while requests are answered."""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from retrieval.errors import RadiographError
from retrieval.stream import thumbnail
from retrieval.trace import trace
from retrieval.worklist import Entry, Found, Skipped, find_studies, in_order
from web.errors import Refused
from web.service import Service
from web.upload import Asked

__all__ = ["MOST", "Listed", "Worklist"]

MOST = 2000
"""Studies that are read; of a folder with more, the first by name."""

_TRIES = 5  # where the server is busy

logger = logging.getLogger("mura-search")


@dataclass(frozen=True, slots=True)
class Listed:
    """A study that was read, its files, and the small picture (JPEG) of its first view."""

    entry: Entry
    found: Found
    picture: bytes


class Worklist:
    """What is known of a folder, in the order of `retrieval.worklist`, made anew whenever `start` is called.

    Studies are read one after the other, and encoded in turn with those that are sent. Each is known by a number that
    tells nothing, and stays its own as long as the server runs: a page that was drawn earlier never shows another one.
    While the list is made for the first time, it is what was read so far; afterwards the former one until all is read.
    """

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.made: datetime | None = None
        self.done = self.all = self.left = 0  # of the last or present run: read, to be read, more than `MOST`
        self.trouble = ""
        self.skipped: list[Skipped] = []
        self._service = service
        self._listed: dict[str, Listed] = {}
        self._numbers: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to rank the folder as it is now, unless that is under way."""
        if not self.running:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ranked(self) -> list[tuple[str, Listed]]:
        """The studies with their numbers, those to read first at the top."""
        of = {one.found.study: number for number, one in self._listed.items()}
        return [(of[entry.study], self._listed[of[entry.study]]) for entry in in_order(self._entries())]

    def get(self, number: str) -> Listed:
        """The study of a number. Raises Refused with 404 where it is not on the list, or no longer."""
        if number not in self._listed:
            raise Refused(404, "this study is not on the worklist, or no longer; look at the worklist again")
        return self._listed[number]

    def _entries(self) -> list[Entry]:
        return [one.entry for one in self._listed.values()]

    async def _run(self) -> None:
        self.trouble, self.done, self.all, self.left = "", 0, 0, 0
        try:
            found, unread = await asyncio.to_thread(find_studies, self.folder)
        except (OSError, RadiographError):  # which names the folder's place
            self.trouble = "the worklist's folder is not there any more; whoever runs this server can look"
            return
        skipped = [Skipped(one.study, "this folder cannot be read") for one in unread]
        self.all, self.left = min(len(found), MOST), max(0, len(found) - MOST)
        listed: dict[str, Listed] = {}
        if self.made is None:
            self._listed, self.skipped = listed, skipped
        for one in found[:MOST]:
            read = await self._read(one)
            if isinstance(read, Skipped):
                skipped.append(read)
            else:
                listed[self._numbers.setdefault(one.study, secrets.token_hex(8))] = read
            self.done += 1
        self._listed, self.skipped, self.made = listed, skipped, datetime.now(UTC)

    async def _read(self, found: Found) -> Listed | Skipped:
        """Ask about one study as about one that is sent."""
        for attempt in range(_TRIES):
            try:
                with self._service.gate.enter() as share:
                    answer, study = await self._service.ask_files(found.files, Asked(k=1), share)
                return Listed(Entry(found.study, answer), found, thumbnail(study.views[0].pixels))
            except RadiographError as error:
                return Skipped(found.study, str(error))
            except Refused as error:
                if error.retry is None or attempt == _TRIES - 1:
                    return Skipped(found.study, str(error))
                await asyncio.sleep(error.retry)
            except Exception as error:  # broad: what nobody expected costs one study, not the list
                logger.error("a study of the worklist could not be read: %s", trace(error))
                return Skipped(found.study, "something went wrong that should not have")
        raise AssertionError("every try returns or waits")
