"""The index and its model behind the server. It follows changes of the index while requests are answered."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.reader import IndexReader
from retrieval.errors import MuraSearchError
from retrieval.searcher import Searcher

__all__ = ["SearcherPool"]

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
    why, and the old one is lent.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.trouble = ""
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
        """Lend the searcher, of the index as it is now."""
        with self._turn:
            self._follow()
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
        try:
            current = searcher.current()
            if current.index is searcher.index:
                self._open.searcher = current
            else:
                with self._lock:
                    former, self._open = self._open, _Open(current)
                    former.replaced = True
                    self._close(former)
        except MuraSearchError as error:  # half written, busy or damaged: the former state still answers
            if str(error) != self.trouble:
                logger.warning("the index has changed and cannot be opened: %s", error)
            self.trouble = str(error)
            return
        self.trouble = ""
        _ = self._open.searcher.source  # counted now, and not by two threads at once

    def _close(self, lent: _Open) -> None:
        if lent.replaced and not lent.users:
            lent.searcher.close()
