"""A lock that one process at a time holds, and that ends with the process."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from index.errors import IndexBusy, IndexFailure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "Lock", "locks_work", "require_locks"]

LOCK = ".lock"  # in the folder that it locks, so that every path to this folder leads to the same lock
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Lock:
    """A lock on a folder (flock(2) on `LOCK` in it). The file exists while a process holds the lock, or died so."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises IndexBusy if this process or another holds it, IndexFailure if the system or its file system has no
        locks, and OSError.
        """
        require_locks()
        self.path = folder / LOCK
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    raise IndexBusy(
                        f"another process is building or changing {folder}; wait until it has finished, or end it"
                    ) from None
                if error.errno not in _NO_LOCKS:
                    raise
                with suppress(OSError):
                    self.path.unlink()
                raise IndexFailure(
                    f"the file system of {folder} has no locks, so no index can be built or changed there; "
                    "mount it with locks (for NFS, its lock service), or use a local disk"
                ) from error
            if self._is_at_path(descriptor):
                self._descriptor = descriptor
                return
            os.close(descriptor)  # the last holder removed the file after it was opened here

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def require_locks() -> None:
    """Raise IndexFailure on a system without flock(2)."""
    if fcntl is None:
        raise IndexFailure("an index can be built and changed on Linux and macOS only; on Windows, use WSL")


def locks_work(file: Path) -> bool:
    """Whether the file system of an existing file has the locks that SQLite needs.

    Never ask about a file that SQLite has open: to close it ends SQLite's locks on it.
    """
    if fcntl is None:
        return True
    try:
        with file.open("rb") as opened:
            fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    return True
