"""A lock that one process at a time holds, and that ends with the process."""

import fcntl
import os
from pathlib import Path

__all__ = ["Lock"]


class Lock:
    """A lock on a file (flock(2)). The file exists while a process holds the lock, or after it died holding it."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises BlockingIOError if this process or another holds it."""
        self.path = path
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(descriptor)
                raise
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
