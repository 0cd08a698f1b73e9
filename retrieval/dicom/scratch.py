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

from index.errors import IndexFailure
from index.lock import LOCK, Lock

__all__ = ["scratch_folder"]

_PREFIX = "mura-search-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, removed at the end, also at the end by a signal that can be caught.

    What a killed process left is removed first: a folder of this kind whose lock nobody holds.
    """
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = _lock(folder)
    try:
        with _ended_by_signals():
            yield folder
    finally:
        _remove(folder, lock)


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            ours = (folder / LOCK).lstat().st_uid == os.getuid() and not folder.is_symlink()
            if ours and (lock := _lock(folder)):
                _remove(folder, lock)


def _lock(folder: Path) -> Lock | None:
    """A lock on the folder; None if another process holds it, or the file system has no locks."""
    try:
        return Lock(folder)
    except IndexFailure:
        return None


def _remove(folder: Path, lock: Lock | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
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
