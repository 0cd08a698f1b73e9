"""The index and its model behind the server: follows every change of the index while requests are being answered."""

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
    """A searcher and how many requests use it; one that was replaced is closed by the last of them."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.users = 0
        self.replaced = False


class SearcherPool:
    """Lends the searcher of the index as it is now; several threads may borrow at once.

    What another process adds, removes or relabels is there for the next borrower. Where a whole new index was put in
    the old one's place, it is opened beside it, and requests under way finish with the old one. One that cannot be
    opened is not gone over to: `trouble` then says why, and the old one goes on answering.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.trouble = ""
        self._open = _Open(searcher)
        self._turn = threading.Lock()  # to look for changes, which may take long
        self._lock = threading.Lock()  # of the counts of users, which never does

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
        """Lend nothing more; the index is closed when nobody uses it."""
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
        except MuraSearchError as error:  # half written, busy or damaged: the state that is known still answers
            self._report(str(error))
            return
        self.trouble = ""
        _ = self._open.searcher.source  # counted now, and not by two threads at once

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.warning("the index was changed and cannot be gone over to: %s", trouble)
        self.trouble = trouble

    def _close(self, lent: _Open) -> None:
        if lent.replaced and not lent.users:
            lent.searcher.close()
