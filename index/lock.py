"""A lock that one process at a time holds, and that goes with the process however it ends."""

import fcntl
import os
from pathlib import Path

__all__ = ["Lock"]


class Lock:
    """The lock whose name is a file (flock(2)). The file is there while somebody holds it, or has died holding it."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises BlockingIOError where it is held, by this process or another."""
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
            os.close(descriptor)  # whoever held it removed the file after we had opened it

    def release(self) -> None:
        """Let go; the second time does nothing."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
