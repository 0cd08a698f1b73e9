"""Radiographs decoded in processes of their own, for servers that read untrusted files.

A decoder may take very long, hold the interpreter's lock or crash. Here that costs its process: it is ended at a time
limit, and the file is refused.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MissingExtra, RadiographError, redacted_traceback
from retrieval.images.grey_values import decode_grey_values, read_grey_values, shrunk
from retrieval.images.radiograph import Radiograph, decode_frames, read_frames
from retrieval.images.windows import GreyValues, Spacing, Window
from retrieval.notices import Code, Notice

__all__ = ["DecoderPool", "main"]

_START = "import sys; sys.path[:] = {!r}; from retrieval.images.decoder_process import main; main({}, {})"
_OFTEN = 0.1  # seconds between two looks whether the question was abandoned
_SLOWED = 3  # times the time limit, after which the process is ended on a busy machine


class DecoderPool:
    """Processes that decode one file each at a time; methods may be called from several threads."""

    def __init__(self, count: int, seconds: float) -> None:
        """count: how many files are decoded at once. seconds: of processor time for each."""
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        self._all = [_Decoder(seconds) for _ in range(count)]
        self._closed = False
        for decoder in self._all:
            self._idle.put(decoder)

    def warm_up(self) -> None:
        """Start the processes, so that the first files do not wait for it."""
        for decoder in self._all:
            decoder.start()

    def decode(
        self, data: bytes, name: str, most: int | None = None, abandoned: threading.Event | None = None
    ) -> list[Radiograph]:
        """As `decode_frames`. Also raises RadiographError if the file takes longer than the time limit.

        abandoned: once it is set, decoding ends.
        """
        return self._asked({"name": name, "most": most}, data, name, abandoned)

    def read(
        self, path: Path, name: str | None = None, most: int | None = None, abandoned: threading.Event | None = None
    ) -> list[Radiograph]:
        """As `read_frames`, with the time limit of `decode`."""
        return self._asked({"name": name, "most": most, "path": str(path)}, b"", name or str(path), abandoned)

    def values(self, source: bytes | Path, name: str, frame: int, longest: int) -> GreyValues:
        """As `decode_grey_values` of bytes or `read_grey_values` of a path, shrunk to `longest` pixels a side."""
        path, data = (None, source) if isinstance(source, bytes) else (str(source), b"")
        question = {"name": name, "frame": frame, "longest": longest, "path": path}
        reply: GreyValues = self._asked(question, data, name, None)[0]
        return reply

    def close(self) -> None:
        """End the processes; files that are being decoded are refused."""
        self._closed = True
        for decoder in self._all:
            decoder.kill()
        idle = []
        with contextlib.suppress(queue.Empty):  # who asks one of the others ends it
            while True:
                idle.append(self._idle.get_nowait())
        for decoder in idle:
            decoder.end()
            self._idle.put(decoder)

    def _asked(self, question: dict[str, Any], data: bytes, name: str, abandoned: threading.Event | None) -> list[Any]:
        decoder = self._idle.get()
        try:
            if self._closed:
                raise EOFError
            return decoder.ask(question, data, abandoned or threading.Event())
        except (EOFError, OSError) as error:
            decoder.end()
            why = f"needs more than {self._seconds:.0f} s to decode, or stops the decoder"
            raise RadiographError(f"{name} {why}; export it again as PNG or uncompressed DICOM") from error
        finally:
            self._idle.put(decoder)


class _Decoder:
    """One process, started when it is needed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory = -1  # a file in memory, in which the pixels come: a socket takes much longer

    def start(self) -> Connection:
        if self._connection is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._memory = _memory_file()
                code = _START.format(sys.path, theirs.fileno(), self._memory)
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code], pass_fds=[theirs.fileno(), self._memory], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            self._connection = Connection(ours.detach())
        return self._connection

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()
            os.close(self._memory)

    def ask(self, question: dict[str, Any], data: bytes, abandoned: threading.Event) -> list[Any]:
        """Radiographs, or the grey values of one.

        Raises EOFError or OSError if the process has ended, or has to be ended.
        """
        connection = self.start()
        connection.send_bytes(json.dumps({**question, "seconds": self._seconds}).encode())
        connection.send_bytes(data)
        until = time.monotonic() + _SLOWED * self._seconds
        while not connection.poll(_OFTEN):
            if abandoned.is_set() or time.monotonic() > until:
                raise TimeoutError
        reply = json.loads(connection.recv_bytes())
        if "missing" in reply:
            raise MissingExtra(*reply["missing"])
        if "refused" in reply:
            raise RadiographError(reply["refused"])
        if "failed" in reply:
            raise RuntimeError(f"in the decoder: {reply['failed']}")
        start, radiographs = 0, []
        for frame in reply["frames"]:
            pixels = np.empty(frame.pop("shape"), frame.pop("type"))
            start += os.preadv(self._memory, [pixels.data.cast("B")], start)
            radiographs.append((_grey_values if "windows" in frame else _radiograph)(frame, pixels))
        os.ftruncate(self._memory, 0)
        return radiographs


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("radiographs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _radiograph(frame: dict[str, Any], pixels: NDArray[np.uint8]) -> Radiograph:
    notices = tuple(Notice(_code(each["code"]), each["view"], each["detail"]) for each in frame.pop("notices"))
    return Radiograph(pixels=pixels, notices=notices, **frame)


def _grey_values(frame: dict[str, Any], values: NDArray[Any]) -> GreyValues:
    del frame["values"]
    windows = tuple(Window(**window) for window in frame.pop("windows"))
    spacing = frame.pop("spacing")
    return GreyValues(values=values, windows=windows, spacing=spacing and Spacing(**spacing), **frame)


def _code(text: str) -> str:
    return Code(text) if text in set(Code) else text


def main(socket_descriptor: int, memory: int) -> None:
    """Decode what comes through a socket until it is closed: the work of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches it, too
    connection = Connection(socket_descriptor)
    with contextlib.suppress(EOFError, OSError):  # the server is gone
        while True:
            question, data = json.loads(connection.recv_bytes()), connection.recv_bytes()
            signal.setitimer(signal.ITIMER_PROF, question["seconds"])  # its signal ends the process, also in a decoder
            try:
                frames = _frames(question, data)
                reply: dict[str, Any] = {"frames": [_described(frame) for frame in frames]}
            except MissingExtra as error:
                reply, frames = {"missing": [error.package, error.extra]}, []
            except RadiographError as error:
                reply, frames = {"refused": str(error)}, []
            except Exception as error:  # broad: whatever it is, the server reports it
                reply, frames = {"failed": redacted_traceback(error)}, []
            start = 0
            for frame in frames:
                start += os.pwrite(memory, np.ascontiguousarray(_picture(frame)).data.cast("B"), start)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(json.dumps(reply).encode())
            del frames


def _frames(question: dict[str, Any], data: bytes) -> list[Radiograph] | list[GreyValues]:
    if "longest" in question:
        name, frame = question["name"], question["frame"]
        path = question["path"]
        grey = read_grey_values(Path(path), name, frame) if path else decode_grey_values(data, name, frame)
        return [shrunk(grey, question["longest"])]
    if "path" in question:
        return read_frames(Path(question["path"]), question["name"], question["most"])
    return decode_frames(data, question["name"], question["most"])


def _picture(frame: Radiograph | GreyValues) -> NDArray[Any]:
    return frame.values if isinstance(frame, GreyValues) else frame.pixels


def _described(frame: Radiograph | GreyValues) -> dict[str, Any]:
    """All but the pixels, for JSON."""
    picture = _picture(frame)
    form = {"shape": picture.shape, "type": picture.dtype.str}
    if isinstance(frame, GreyValues):
        return {**asdict(replace(frame, values=np.empty(0))), **form, "values": None}
    values = {each.name: getattr(frame, each.name) for each in fields(frame) if each.name != "pixels"}
    notices = [{**asdict(notice), "detail": dict(notice.detail)} for notice in frame.notices]
    return {**values, **form, "notices": notices}
