"""The index and its model behind the server. It follows changes of the index while requests are answered."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.errors import IndexMissing
from index.reader import IndexReader
from retrieval.errors import MuraSearchError
from retrieval.searcher import Searcher

__all__ = ["SearcherPool"]

_MOMENT = 2.0  # seconds in which another folder may take the place of one that was moved away

logger = logging.getLogger("mura-search")


class _Open:
    """A searcher and the number of requests that use it. A replaced searcher is closed by the last of them."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.users = 0
        self.replaced = False


class SearcherPool:
    """Lends the searcher of the index as it is now; several threads may borrow at once.

    The next borrower sees what another process has added, removed or relabelled. An index that replaces the old one is
    opened beside it, and requests under way finish with the old one. If the new index cannot be opened, `trouble` says
    why, and the old one is lent. Of an index that was deleted nothing is lent: whoever deleted it wants it to be gone.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.trouble = ""
        self.deleted = False
        self._open = _Open(searcher)
        self._turn = threading.Lock()  # for the look for changes, which may take long
        self._lock = threading.Lock()  # for the counts of users

    @classmethod
    def open(cls, index: Path | None) -> "SearcherPool":
        """Open an index folder, by default that of `Searcher.open`. Raises as that does."""
        return cls(Searcher.open(index))

    @property
    def index(self) -> IndexReader:
        """The index as it was last borrowed."""
        return self._open.searcher.index

    @contextmanager
    def borrow(self) -> Iterator[Searcher]:
        """Lend the searcher, of the index as it is now. Raises IndexMissing if it was deleted."""
        with self._turn:
            self._follow()
            if self.deleted:
                raise IndexMissing(self.trouble)
            with self._lock:
                lent = self._open
                lent.users += 1
            searcher = lent.searcher
        try:
            yield searcher
        finally:
            with self._lock:
                lent.users -= 1
                self._close(lent)

    def close(self) -> None:
        """Lend nothing more; the index is closed when no request uses it."""
        with self._lock:
            self._open.replaced = True
            self._close(self._open)

    def _follow(self) -> None:
        searcher = self._open.searcher
        until = time.monotonic() + (0 if self.deleted else _MOMENT)
        while (deleted := searcher.index.missing()) and time.monotonic() < until:  # it may just be replaced
            time.sleep(0.02)
        self.deleted = deleted
        if self.deleted:
            self._say(f"{searcher.index.path} no longer holds an index: build one there, or stop the server")
            return
        try:
            current = searcher.current()
            if current.index is searcher.index:
                self._open.searcher = current
            else:
                with self._lock:
                    former, self._open = self._open, _Open(current)
                    former.replaced = True
                    self._close(former)
        except (MuraSearchError, OSError) as error:  # half written, busy or damaged: the former state still answers
            self._say(f"the index has changed and cannot be opened: {error}")
            return
        if self.trouble:
            logger.info("the index can be opened again")
        self.trouble = ""
        _ = self._open.searcher.source  # counted now, and not by two threads at once

    def _say(self, trouble: str) -> None:
        """Keep what is wrong, and write it to the log once."""
        if trouble != self.trouble:
            logger.warning("%s", trouble)
        self.trouble = trouble

    def _close(self, lent: _Open) -> None:
        if lent.replaced and not lent.users:
            lent.searcher.close()
