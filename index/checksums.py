"""SHA256SUMS: the checksum of every file of an index, as `sha256sum --check` reads it.

A writer removes the file first and writes it last. So it is missing after a writer was killed. Its first line, a
comment, has the generation of the index: with another one the file is stale, as if it were missing. Without it,
everything that means something is still checked by its own checksum, but unused bytes of cases.sqlite are not.
"""

import hashlib
from pathlib import Path

from index.atomic import CASES, VECTORS, sync, write_whole
from index.errors import IndexBusy, IndexDamaged

__all__ = ["SUMS", "break_seal", "check_bytes", "file_digests", "seal", "sealed", "verify_seal"]

SUMS = "SHA256SUMS"


def sealed(index: Path, generation: int) -> bool:
    """Whether SHA256SUMS is there, and of this generation. Before format 4 it did not name its generation."""
    first = _read(index).partition(b"\n")[0]
    return first == _title(generation) or (first != b"" and not first.startswith(b"#"))


def seal(model: Path, generation: int) -> None:
    """Write the checksums of all files of the index that has this model folder. Raises OSError."""
    index = model.parent
    lines = [_line(index, name).encode() for name in _names(model)]
    write_whole(index / SUMS, b"\n".join([_title(generation), *lines, b""]))


def break_seal(index: Path) -> None:
    """Remove the checksums before a change, synced to the disk. Raises OSError."""
    if (index / SUMS).is_file():
        (index / SUMS).unlink()
        sync(index)


def check_bytes(index: Path, name: str, data: bytes) -> bool:
    """Whether the bytes of a file have its checksum; True if there are no checksums."""
    text = _read(index)
    return not text or f"{hashlib.sha256(data).hexdigest()}  {name}".encode() in text.split(b"\n")


def verify_seal(model: Path) -> None:
    """Raise IndexDamaged unless the checksums are those of all files of the index, and of no others.

    Raises IndexBusy if another process changes the index meanwhile.
    The caller may be in a transaction on cases.sqlite. To read the file here ends SQLite's lock on it, since closing a
    file drops all POSIX locks that the process has on it. So cases.sqlite is read last.
    """
    index = model.parent
    text = _read(index)
    written = text.decode(errors="replace").split("\n")
    lines = {name: _line(index, name) for name in sorted(_names(model), key=CASES.__eq__)}
    wrong = [name for name, line in lines.items() if line not in written]
    if wrong or sorted(lines.values()) != sorted(line for line in written if line and not line.startswith("#")):
        if _read(index) != text:
            raise IndexBusy(f"{index} changed meanwhile; try again")
        raise IndexDamaged(
            f"{index / (wrong[0] if wrong else SUMS)} is damaged, or was changed by another program: it does not have "
            f"the checksum in {SUMS}, though each record has its own; mura-search index compact writes both again"
        )


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by relative path."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: _digest(file) for name, file in sorted(files.items())}


def _read(index: Path) -> bytes:
    """SHA256SUMS; empty if it is missing."""
    try:
        return (index / SUMS).read_bytes()
    except FileNotFoundError:
        return b""


def _names(model: Path) -> list[str]:
    index = model.parent
    files = [index / CASES, index / VECTORS, *model.rglob("*")]
    return sorted(file.relative_to(index).as_posix() for file in files if file.is_file())


def _line(index: Path, name: str) -> str:
    return f"{_digest(index / name)}  {name}"


def _title(generation: int) -> bytes:
    return b"# generation %d" % generation


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
