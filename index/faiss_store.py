"""vectors.faiss: the vectors of an index as FAISS searches them. The only file that imports faiss.

The file holds a FAISS index in FAISS's own format, followed by a stamp: which index and which generation of it the
vectors are from, and checksums. Everything in it can be made again from cases.sqlite.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexDamaged, MissingExtra
from index.files import write_whole

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

__all__ = ["FaissFlat"]

faiss: Any = _faiss  # its type stubs leave out what its Python wrappers add

_MAGIC = b"MURAvec1"
_FIELDS = struct.Struct("<8s16sqI")  # magic, index identity, generation, CRC-32 of the FAISS bytes
_STAMP = struct.Struct(f"<{_FIELDS.size}sI")  # the fields and their own CRC-32


class FaissFlat:
    """Exact search over all vectors (faiss.IndexFlatIP); a `VectorStore`."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "FaissFlat":
        """vectors: (N, D) unit rows; N may be 0."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index)

    @property
    def slack(self) -> float:
        # Any order of summation errs by at most D u sum|x_i y_i| (Higham 2002, section 3.1), u = 2^-24, and the sum
        # is at most 1 for unit vectors; doubled, since rows are of unit length only to within rounding.
        return float((self._index.d + 8) * 2.0**-23)

    def search(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        similarities: NDArray[np.float32]
        positions: NDArray[np.int64]
        if allowed is None:
            similarities, positions = self._index.search(queries, count)
        else:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            similarities, positions = self._index.search(queries, count, params=faiss.SearchParameters(sel=selector))
        return similarities, positions

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._index.reconstruct_batch(positions)
        return vectors

    def describe(self) -> dict[str, object]:
        return {"kind": "faiss-flat", "dimension": self._index.d, "vectors": self._index.ntotal, "exact": True}

    def write(self, path: Path, identity: bytes, generation: int) -> None:
        """Write vectors.faiss, stamped. Raises OSError where the folder cannot be written."""
        data = faiss.serialize_index(self._index).tobytes()
        fields = _FIELDS.pack(_MAGIC, identity, generation, zlib.crc32(data))
        write_whole(path, data + _STAMP.pack(fields, zlib.crc32(fields)))

    @staticmethod
    def stamped(path: Path, identity: bytes, generation: int) -> bool:
        """Whether the file ends in the stamp of this index and generation; its vectors are not looked at."""
        try:
            with path.open("rb") as file:
                file.seek(-_STAMP.size, os.SEEK_END)
                fields, check = _STAMP.unpack(file.read())
        except OSError:
            return False
        return bool(_FIELDS.unpack(fields)[:3] == (_MAGIC, identity, generation) and zlib.crc32(fields) == check)

    @classmethod
    def read(cls, path: Path, identity: bytes, generation: int) -> "FaissFlat | None":
        """The vectors in the file; None where it cannot be read or is not of this index and generation.

        Raises IndexDamaged where the bytes are not those written.
        """
        try:
            data = memoryview(path.read_bytes())
        except OSError:
            return None
        vectors, stamp = data[: -_STAMP.size], data[-_STAMP.size :]
        if len(data) <= _STAMP.size:
            raise _damaged(path)
        fields, check = _STAMP.unpack(stamp)
        magic, of_index, of_generation, vectors_check = _FIELDS.unpack(fields)
        if magic != _MAGIC or zlib.crc32(fields) != check:
            raise _damaged(path)
        if (of_index, of_generation) != (identity, generation):
            return None
        if zlib.crc32(vectors) != vectors_check:
            raise _damaged(path)
        return cls(faiss.deserialize_index(np.frombuffer(vectors, dtype=np.uint8)))


def _damaged(path: Path) -> IndexDamaged:
    return IndexDamaged(f"{path} is damaged; delete that one file, and it is made again from cases.sqlite")
