"""SHA256SUMS: the checksum of every file of an index, as `sha256sum --check` reads it.

Whoever changes an index removes it first and writes it last, so it is there exactly where nobody was killed in between.
Without it, records, embeddings, thumbnails and vectors are still known by their own checksums, but bytes of
cases.sqlite that mean nothing, such as those of removed cases, are not.
"""

import hashlib
from pathlib import Path

from index.atomic import CASES, MODEL, VECTORS, sync, write_whole
from index.errors import IndexDamaged

__all__ = ["SUMS", "break_seal", "check_bytes", "seal", "sealed", "verify_seal"]

SUMS = "SHA256SUMS"


def sealed(index: Path) -> bool:
    return (index / SUMS).is_file()


def seal(index: Path) -> None:
    """Write the checksums of all files. Raises OSError."""
    lines = [f"{_digest(index / name)}  {name}\n" for name in _files(index)]
    write_whole(index / SUMS, "".join(lines).encode())


def break_seal(index: Path) -> None:
    """Remove the checksums, down to the disk, before something is changed. Raises OSError."""
    if sealed(index):
        (index / SUMS).unlink()
        sync(index)


def check_bytes(index: Path, name: str, data: bytes) -> bool:
    """Whether the bytes of a file have its checksum; True where there are no checksums."""
    try:
        text = (index / SUMS).read_bytes()
    except FileNotFoundError:
        return True
    line = f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()
    if line in text.splitlines(keepends=True):
        return True
    try:
        return (index / SUMS).read_bytes() != text  # somebody is changing the index at this moment
    except FileNotFoundError:
        return True


def verify_seal(index: Path) -> None:
    """Raise IndexDamaged unless the checksums are those of all files, and of no others.

    Whoever reads cases.sqlite in a transaction meanwhile has to know that reading it here ends SQLite's lock on it
    (closing a file drops all POSIX locks that the process has on it). So it is read last.
    """
    told = (index / SUMS).read_bytes()
    names = _files(index)
    lines = {name: f"{_digest(index / name)}  {name}\n".encode() for name in sorted(names, key=CASES.__eq__)}
    if told == b"".join(lines[name] for name in names):
        return
    wrong = [name for name, line in lines.items() if line not in told.splitlines(keepends=True)]
    raise IndexDamaged(
        f"{index / (wrong[0] if wrong else SUMS)} is damaged, or was changed by another program: it does not have the "
        f"checksum in {SUMS}; build the index again, or restore it from a copy"
    )


def _files(index: Path) -> list[str]:
    files = [index / CASES, index / VECTORS, *(index / MODEL).rglob("*")]
    return sorted(file.relative_to(index).as_posix() for file in files if file.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
