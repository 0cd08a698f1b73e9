"""The header of a TIFF: which of its pages is the radiograph, and how the samples of that page lie."""

import struct

from retrieval.images.image_header import Header, HeaderError
from retrieval.images.tiff_directory import Directory, first_offset, read_directory

__all__ = ["read_tiff"]

_MOST_PAGES = 100


def read_tiff(kind: str, data: bytes) -> Header:
    """Reads the first page that is not a reduced image; a reduced page may hold the whole one in tag 330.

    Raises HeaderError for a file without pages, and for samples that are not supported.
    """
    pages = _pages(data)
    whole = [start for start, page in pages if not _reduced(page, pages)]
    start, page = next((page for page in pages if page[0] in whole[:1]), pages[0])
    tags = page.tags
    samples, bits = tags.get(277, 1), tags.get(258, 1)
    if tags.get(262) == 3 and page.entries.get(320, (0, 0, 0))[1] != 3 * 2**bits:
        raise HeaderError("its palette has another size than its pixels need")
    planes, paired = _samples_apart(page)
    changed = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    struct.pack_into(order + ("Q" if big else "I"), changed, 8 if big else 4, start)
    straight = tags.get(338) == 2 and samples in (2, 4)
    if straight and bits == 8 and not (planes or paired):
        # else libtiff multiplies the colours, and an alpha of 0 cannot be ignored
        struct.pack_into(order + "H", changed, page.offsets[338], 1)
    channels, depth = (1 if samples == 1 and tags.get(262) != 3 else 4 if straight else 3), max(1, bits // 8)
    return Header(
        kind,
        tags.get(256, 0),
        tags.get(257, 0),
        bytes(changed),
        channels,
        depth,
        4 * depth + samples * depth,
        tags.get(274, 1) if planes or paired else 1,  # OpenCV itself applies the orientation of a TIFF
        pictures="pages" if len(whole) > 1 else "",
        inverted=tags.get(262) == 0,
        straight_alpha=straight,
        planes=planes,
        paired=paired,
    )


def _reduced(page: Directory, pages: list[tuple[int, Directory]]) -> bool:
    """Whether a page is a mask, a reduced image, or one of less than half the size of another, of the same shape."""
    if page.tags.get(254, 0) & 5 or page.tags.get(255) == 2:
        return True
    width, height = (page.tags.get(tag, 0) for tag in (256, 257))
    sizes = [
        (directory.tags.get(256, 0), directory.tags.get(257, 0))
        for _, directory in pages
        if directory.tags.get(254, 0) & 4 == 0
    ]
    return any(wide > 2 * width and abs(wide * height - width * high) < 0.03 * width * high for wide, high in sizes)


def _samples_apart(page: Directory) -> tuple[int, bool]:
    """In how many planes a page's samples lie, and whether grey and alpha alternate, if OpenCV mixes them up."""
    tags = page.tags
    samples, bits, apart = tags.get(277, 1), tags.get(258, 1), tags.get(284) == 2
    grey_with_alpha = samples == 2 and tags.get(262) == 1 and tags.get(338) in (1, 2)
    if apart and (grey_with_alpha or (samples in (3, 4) and bits > 8 and tags.get(262) == 2)):
        return samples, False
    if grey_with_alpha and not apart and bits in (8, 16) and tags.get(317, 1) == 1 and tags.get(259, 1) != 7:
        return 0, True
    if samples == 2:
        raise HeaderError("it has two samples per pixel, stored in a way that is not supported")
    if apart and samples > 2 and bits > 8:
        raise HeaderError(
            f"it has {samples} samples of {bits} bits in separate planes, which are supported only for RGB"
        )
    return 0, False


def _pages(data: bytes) -> list[tuple[int, Directory]]:
    """The offsets and directories of a TIFF's pages, and of the pages within its reduced pages."""
    following = first_offset(data)
    pages: dict[int, Directory] = {}
    while following and following not in pages and len(pages) < _MOST_PAGES:
        start, page = following, read_directory(data, following)
        pages[start], following = page, page.following
        inner = page.tags.get(330, 0) if page.tags.get(254, 0) & 1 else 0
        if inner and inner not in pages:
            pages[inner] = read_directory(data, inner)
    if not pages:
        raise HeaderError("it has no page")
    return list(pages.items())
