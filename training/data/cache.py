"""Prepared radiographs, kept from run to run: uint8 pictures in memory-mapped files that only grow.

PLACE/KEY/            KEY follows from the preprocessing
  manifest.json       the preprocessing and the version of this layout
  grey.u8             pictures (S, S) one after another;  colour.u8: pictures (S, S, 3)
  rows.csv            SHA-256 of the radiograph's file, g or c, row in that file, height and width of the radiograph

A row is listed once its pixels are on disk, so whatever a killed process left behind is overwritten by the next one.
Nothing here names a patient or a path; files can be read by their owner alone.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.atomic import sync
from retrieval.datasets.cache_folder import cache_folder
from retrieval.images.preprocessing import Preprocessing

__all__ = ["Entry", "PictureCache", "default_cache"]

_VERSION = 1
_CHANNELS = {"g": ("grey.u8", 1), "c": ("colour.u8", 3)}


def default_cache() -> Path:
    """The folder for prepared radiographs, in the cache folder."""
    return cache_folder() / "prepared"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a picture lies, and the size of the radiograph that it was made of."""

    kind: str
    row: int
    height: int
    width: int


class PictureCache:
    """The pictures of one preprocessing. Several processes may read and append at once."""

    def __init__(self, place: Path, how: Preprocessing) -> None:
        made_of = {"version": _VERSION, **{k: v for k, v in how.to_dict().items() if k not in ("mean", "std")}}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        self.folder, self.size = place / key, how.size
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = self.folder / "manifest.json"
        if not manifest.exists():
            _write(manifest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, json.dumps(made_of, indent=1).encode())

    def entries(self) -> dict[str, Entry]:
        """Every picture that is here, by the digest of its radiograph."""
        found: dict[str, Entry] = {}
        for line in self._lines():
            digest, kind, row, height, width = line.split(",")
            found[digest] = Entry(kind, int(row), int(height), int(width))
        return found

    def pictures(self, kind: str) -> NDArray[np.uint8]:
        """All pictures of a kind, memory-mapped (n, S, S, 1 or 3)."""
        name, channels = _CHANNELS[kind]
        file = self.folder / name
        count = file.stat().st_size // self._bytes(kind) if file.exists() else 0
        shape = (count, self.size, self.size, channels)
        return np.memmap(file, np.uint8, "r", shape=shape) if count else np.empty(shape, np.uint8)

    def append(self, new: Sequence[tuple[str, NDArray[np.uint8], int, int]]) -> None:
        """Add (digest, picture (S, S, 1 or 3), height, width), those that another process has added left out."""
        with self._locked():
            there = self.entries()
            counts = {kind: sum(entry.kind == kind for entry in there.values()) for kind in _CHANNELS}
            lines: list[str] = []
            for digest, picture, height, width in {one[0]: one for one in new}.values():
                if digest in there:
                    continue
                kind = "g" if picture.shape[2] == 1 else "c"
                start = counts[kind] * self._bytes(kind)
                _write(self.folder / _CHANNELS[kind][0], os.O_WRONLY | os.O_CREAT, picture.tobytes(), start)
                lines.append(f"{digest},{kind},{counts[kind]},{height},{width}\n")
                counts[kind] += 1
            for name, _ in _CHANNELS.values():
                if (self.folder / name).exists():
                    sync(self.folder / name)
            listed = sum(len(line) + 1 for line in self._lines())  # behind it, half a line of a killed process
            _write(self.folder / "rows.csv", os.O_WRONLY | os.O_CREAT, "".join(lines).encode(), listed, cut=True)
            sync(self.folder / "rows.csv")

    def _lines(self) -> list[str]:
        file = self.folder / "rows.csv"
        text = file.read_text(encoding="ascii", errors="replace") if file.exists() else ""
        return text.split("\n")[:-1]  # what follows the last line's end is not a line

    def _bytes(self, kind: str) -> int:
        return self.size * self.size * _CHANNELS[kind][1]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write(file: Path, flags: int, data: bytes, start: int = 0, *, cut: bool = False) -> None:
    """Write bytes at a place of a file that only its owner can read, and end the file there where `cut`."""
    descriptor = os.open(file, flags, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.seek(start)
        opened.write(data)
        if cut:
            opened.truncate()
