"""A temporary folder for radiographs of patients, which does not outlive the process that made it."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from index.errors import IndexBusy
from index.lock import Lock

__all__ = ["scratch_folder"]

_PREFIX, _LOCK = "mura-search-", ".mura-search-lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, removed at the end, also at the end by a signal that can be caught.

    What a killed process left is removed first: a folder of this kind whose lock nobody holds.
    """
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _LOCK).mkdir()
    lock = Lock(folder / _LOCK)
    try:
        with _ended_by_signals():
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, IndexBusy):  # somebody else's, or in use
            if (folder / _LOCK).lstat().st_uid == os.getuid() and not folder.is_symlink():
                lock = Lock(folder / _LOCK)
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that end a process raise SystemExit, so that the folder is removed."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(name) is signal.SIG_DFL]
    for name in names:
        signal.signal(name, end)
    try:
        yield
    finally:
        for name in names:
            signal.signal(name, signal.SIG_DFL)
