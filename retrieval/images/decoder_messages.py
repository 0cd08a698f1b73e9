"""What C libraries print while they decode: libjpeg and libtiff say only there that a file is damaged.

libjpeg writes to C's `stderr`. With the GNU C library that variable can lead to a function, which knows the thread that
writes, so that files are decoded side by side. Elsewhere, and for libtiff, file descriptor 2 is diverted, for one file
at a time; what others write there meanwhile is passed on.
"""

import ctypes
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["messages_of_opencv", "messages_of_this_thread"]

_OURS = (b"JPEG", b"TIFF", b"LZW", b"grfmt_", b"OpenCV", b"Using code not yet in table")


class _Stderr:
    """C's `stderr`, which leads to `_write` as long as at least one thread listens."""

    def __init__(self) -> None:
        write = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)

        class Functions(ctypes.Structure):
            _fields_ = (
                ("read", ctypes.c_void_p),
                ("write", write),
                ("seek", ctypes.c_void_p),
                ("close", ctypes.c_void_p),
            )

        library = ctypes.CDLL(None)
        library.fopencookie.restype = ctypes.c_void_p
        library.fopencookie.argtypes = [ctypes.c_void_p, ctypes.c_char_p, Functions]
        library.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        self._function = write(self._write)  # kept, since C calls it
        self._stream = library.fopencookie(None, b"w", Functions(None, self._function, None, None))
        library.setvbuf(self._stream, None, 2, 0)  # 2 is "unbuffered"
        self._variable = ctypes.c_void_p.in_dll(library, "stderr")
        self._before = self._variable.value
        self._lock = threading.Lock()
        self._heard: dict[int, list[bytes]] = {}

    def _write(self, _: object, text: Any, length: int) -> int:
        message = ctypes.string_at(text, length)
        heard = self._heard.get(threading.get_ident())
        if heard is None:
            os.write(2, message)
        else:
            heard.append(message)
        return length

    @contextmanager
    def listen(self) -> Iterator[list[bytes]]:
        thread, heard = threading.get_ident(), list[bytes]()
        with self._lock:
            self._heard[thread] = heard
            self._variable.value = self._stream
        try:
            yield heard
        finally:
            with self._lock:
                del self._heard[thread]
                if not self._heard:
                    self._variable.value = self._before


@cache
def _stderr() -> _Stderr | None:
    try:
        gnu = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError):
        gnu = None
    return _Stderr() if gnu else None


@contextmanager
def messages_of_this_thread() -> Iterator[list[bytes]]:
    """What C libraries print to `stderr` from this thread, in pieces; complete when the context ends."""
    stderr = _stderr()
    with stderr.listen() if stderr else messages_of_opencv() as heard:
        yield heard


_DIVERTED = threading.Lock()


@contextmanager
def messages_of_opencv() -> Iterator[list[bytes]]:
    """What image libraries print to file descriptor 2, in lines; complete when the context ends."""
    heard: list[bytes] = []
    with _DIVERTED, tempfile.TemporaryFile(buffering=0) as file:
        try:
            before = os.dup(2)
        except OSError:  # a process without stderr
            before = -1
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            if before >= 0:
                os.dup2(before, 2)
                os.close(before)
            else:
                os.close(2)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                # OpenCV goes on after ">", and ends with an empty line.
                if not line.strip() or line.startswith(b">") or any(word in line for word in _OURS):
                    heard.append(line)
                elif before >= 0:
                    os.write(2, line)
