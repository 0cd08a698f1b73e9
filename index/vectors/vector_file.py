"""vectors.faiss: the vectors of an index for searching, in one file that is mapped into memory.

    studies, rows    (N,) int64 each, little-endian; row numbers of cases.sqlite in ascending order
    vectors          (N, D) float32
    approximation    a FAISS index over them if exact search is too slow, else empty
    about            JSON: length and CRC-32 of each section, and the measurements of the approximation
    stamp            the identity of the index, and the checksum of `about`

All of it can be made again from cases.sqlite. The file may be older than cases.sqlite: a reader takes later rows from
there, and leaves out rows that were removed since.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from index.errors import IndexDamaged

__all__ = ["VectorFile"]

CHECKED = 64 << 20  # bytes: up to here all checksums are compared on opening; beyond, by `verify`

_MAGIC = b"MURAvec2"
_STAMP = struct.Struct("<8s16sIII")  # magic, index identity, length of about, its CRC-32, CRC-32 of the four before
_SECTIONS = ("studies", "rows", "vectors", "approximation")


@dataclass(frozen=True, slots=True)
class VectorFile:
    """N vectors with their rows and studies; arrays may lie in the file. `approximation`: bytes of FAISS, or empty.

    The number of a study is the row of one of its cases, the same for all of them.
    """

    rows: NDArray[np.int64]
    studies: NDArray[np.int64]
    vectors: NDArray[np.float32]
    approximation: NDArray[np.uint8]
    measured: dict[str, Any]

    @classmethod
    def exact(cls, rows: NDArray[np.int64], studies: NDArray[np.int64], vectors: NDArray[np.float32]) -> "VectorFile":
        """Vectors (N, D) with their rows (N,) and studies (N,), without an approximation."""
        return cls(rows, studies, vectors, np.zeros(0, np.uint8), {})

    @property
    def last(self) -> int:
        """The last row; 0 if there is none."""
        return int(self.rows[-1]) if len(self.rows) else 0

    def write(self, path: Path, identity: bytes) -> None:
        """Write vectors.faiss. Raises OSError."""
        sections = {name: np.ascontiguousarray(getattr(self, name)) for name in _SECTIONS}

        def chunks() -> Iterator[bytes | memoryview]:
            checks = {}
            for name, section in sections.items():
                data = section.reshape(-1).view(np.uint8).data
                checks[name] = [len(data), zlib.crc32(data)]
                yield data
            about = json.dumps(
                {"dimension": self.vectors.shape[1], "sections": checks, "measured": self.measured}
            ).encode()
            fields = _MAGIC, identity, len(about), zlib.crc32(about)
            yield about
            yield _STAMP.pack(*fields, zlib.crc32(_STAMP.pack(*fields, 0)[:-4]))

        write_whole(path, chunks())

    @classmethod
    def read(cls, path: Path, identity: bytes, *, thorough: bool = False) -> "VectorFile | None":
        """The vectors in the file; None if it cannot be read or belongs to another index.

        Raises IndexDamaged if the bytes are not those that were written. All bytes are checked if the file is small
        (`CHECKED`) or `thorough`.
        """
        try:
            with path.open("rb") as file:
                length = file.seek(0, 2)
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if length else b"")
        except OSError:
            return None
        if length < _STAMP.size:
            raise _damaged(path)
        magic, of_index, size, about_crc, crc = _STAMP.unpack(data[-_STAMP.size :])
        about = bytes(data[-_STAMP.size - size : -_STAMP.size])
        if magic != _MAGIC or zlib.crc32(data[-_STAMP.size : -4]) != crc or zlib.crc32(about) != about_crc:
            raise _damaged(path)
        if of_index != identity:
            return None
        return cls._within(path, data[: -_STAMP.size - size], json.loads(about), thorough)

    @classmethod
    def _within(cls, path: Path, data: memoryview, about: dict[str, Any], thorough: bool) -> "VectorFile":
        parts, at = {}, 0
        for name in _SECTIONS:
            size, crc = about["sections"][name]
            parts[name] = data[at : at + size]
            at += size
            if (thorough or len(data) <= CHECKED) and zlib.crc32(parts[name]) != crc:
                raise _damaged(path)
        if at != len(data):
            raise _damaged(path)
        return cls(
            np.frombuffer(parts["rows"], np.int64),
            np.frombuffer(parts["studies"], np.int64),
            np.frombuffer(parts["vectors"], np.float32).reshape(-1, about["dimension"]),
            np.frombuffer(parts["approximation"], np.uint8),
            about["measured"],
        )


def _damaged(path: Path) -> IndexDamaged:
    return IndexDamaged(f"{path} is damaged; delete that file; the next change of the index writes it again")
