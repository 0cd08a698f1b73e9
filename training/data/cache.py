"""Prepared radiographs, kept from run to run, each in a file of its own.

CACHE/KEY/AB/DIGEST   KEY follows from the preprocessing; DIGEST is the SHA-256 of the radiograph's file, AB its start

A file begins with a checksum (CRC-32 of all that follows and of the digest), the height and width of the radiograph,
the number of channels, and the hash of the radiograph (`encoding.picture_hash`); the pixels follow. A damaged file
counts as missing. Nothing here names a patient or a path, and only their owner can read the files.
"""

import hashlib
import json
import os
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.datasets.cache_folder import cache_folder
from retrieval.encoding.picture_hash import BYTES, Hashes
from retrieval.images.preprocessing import Preprocessing

__all__ = ["PictureCache", "Prepared", "default_cache"]

_VERSION = 3
_CHECKSUM, _HEADER = struct.Struct("<I"), struct.Struct(f"<III{BYTES}s")


def default_cache() -> Path:
    """The folder for prepared radiographs, in the cache folder."""
    return cache_folder() / "prepared"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared picture (S, S, 1 or 3), and the height, width and hash (64,) of its radiograph."""

    picture: NDArray[np.uint8]
    height: int
    width: int
    hash: Hashes


class PictureCache:
    """The pictures of one preprocessing. Several processes may read and write at once."""

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        made_of = {
            "version": _VERSION,
            **{k: v for k, v in preprocessing.to_dict().items() if k not in ("mean", "std")},
        }
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        self.folder, self.size = folder / key, preprocessing.size
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def holds(self, digest: str) -> bool:
        """Whether there is a file for this radiograph, whole or damaged."""
        return self._file(digest).exists()

    def read(self, digest: str) -> Prepared | None:
        """What was written of this radiograph; None where it is missing or damaged."""
        try:
            data = self._file(digest).read_bytes()
            (checksum,) = _CHECKSUM.unpack_from(data)
            height, width, channels, hashed = _HEADER.unpack_from(data, _CHECKSUM.size)
        except (OSError, struct.error):
            return None
        body = memoryview(data)[_CHECKSUM.size :]
        if zlib.crc32(body, zlib.crc32(digest.encode())) != checksum:
            return None
        pixels = np.frombuffer(body, np.uint8, offset=_HEADER.size)
        picture = pixels.reshape(self.size, self.size, channels)
        return Prepared(picture, height, width, np.frombuffer(hashed, np.uint8))

    def write(self, digest: str, prepared: Prepared) -> None:
        """Keep a picture. Not synced: the checksum shows what a power failure has damaged. Raises OSError."""
        about = prepared.height, prepared.width, prepared.picture.shape[2], prepared.hash.tobytes()
        body = _HEADER.pack(*about) + prepared.picture.tobytes()
        file = self._file(digest)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        neighbour = file.with_name(f".{digest}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(_CHECKSUM.pack(zlib.crc32(body, zlib.crc32(digest.encode()))) + body)
        neighbour.replace(file)

    def _file(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest
