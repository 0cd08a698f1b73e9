"""Zeros the unused bytes within the pages of an SQLite file.

SQLite's `secure_delete` overwrites what is deleted. But when it distributes rows among pages, copies stay in the gap
between a page's directory and its content. They mean nothing to SQLite, but may be those of a removed patient.
"""

import itertools
import os
import struct
from pathlib import Path

from index.atomic import sync

__all__ = ["zero_gaps"]

_HEADER = 100  # bytes of the file's header, before the first page's own
_INTERIOR, _LEAF = (2, 5), (10, 13)  # the kinds of B-tree pages; a page of any other kind begins with a zero byte
_AT_ONCE = 256  # pages


def zero_gaps(path: Path) -> None:
    """Zero the gap of every B-tree page (SQLite's file format, section 1.6). Raises OSError.

    Nothing that SQLite reads changes. So a reader may have the file open, and the call may be killed at any moment; but
    no writer may be at work.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(18)[16:], "big")
        size = 65_536 if size == 1 else size
        file.seek(0)
        for position in itertools.count(step=size * _AT_ONCE):
            pages = file.read(size * _AT_ONCE)
            if not pages:
                break
            for page in range(0, len(pages) - size + 1, size):
                first, last = _gap(pages, page, page + (0 if position + page else _HEADER), size)
                if pages[first:last].strip(b"\0"):
                    os.pwrite(file.fileno(), bytes(last - first), position + first)
    sync(path)


def _gap(pages: bytes, page: int, header: int, size: int) -> tuple[int, int]:
    """Where the gap of the page that begins at `page` begins and ends; both 0 if it has none."""
    kind, cells, content = pages[header], *struct.unpack_from(">HH", pages, header + 3)
    if kind not in _INTERIOR + _LEAF:
        return 0, 0
    return header + (12 if kind in _INTERIOR else 8) + 2 * cells, page + min(content or 65_536, size)
