"""SHA256SUMS: the checksum of every file of an index, as `sha256sum --check` reads it.

A writer removes the file first and writes it last. So the file is missing after a writer was killed. Without it,
records, embeddings, thumbnails and vectors are still checked by their own checksums, but unused bytes of cases.sqlite,
such as those of removed cases, are not.
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
    """Remove the checksums before a change, synced to the disk. Raises OSError."""
    if sealed(index):
        (index / SUMS).unlink()
        sync(index)


def check_bytes(index: Path, name: str, data: bytes) -> bool:
    """Whether the bytes of a file have its checksum; True if there are no checksums."""
    try:
        text = (index / SUMS).read_bytes()
    except FileNotFoundError:
        return True
    line = f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()
    if line in text.splitlines(keepends=True):
        return True
    try:
        return (index / SUMS).read_bytes() != text  # another process is changing the index
    except FileNotFoundError:
        return True


def verify_seal(index: Path) -> None:
    """Raise IndexDamaged unless the checksums are those of all files, and of no others.

    The caller may be in a transaction on cases.sqlite. To read the file here ends SQLite's lock on it, since closing a
    file drops all POSIX locks that the process has on it. So cases.sqlite is read last.
    """
    written = (index / SUMS).read_bytes()
    names = _files(index)
    lines = {name: f"{_digest(index / name)}  {name}\n".encode() for name in sorted(names, key=CASES.__eq__)}
    if written == b"".join(lines[name] for name in names):
        return
    wrong = [name for name, line in lines.items() if line not in written.splitlines(keepends=True)]
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
