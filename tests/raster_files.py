"""Raster files to read: a drawn arm, and TIFF that no library would write."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.radiograph import decode_radiograph

__all__ = ["ARM", "Page", "arm", "codes", "encoded", "png_chunk", "refusal", "tiff"]

Page = tuple[NDArray[Any], dict[int, int]]


def arm(height: int = 120, width: int = 90) -> NDArray[np.uint8]:
    """A smooth picture: dark air, a grey limb, a bright bone."""
    y, x = np.mgrid[0:height, 0:width] / (height - 1)
    limb = np.clip(1.6 - np.abs(x - 0.37) / 0.16, 0, 1) * (0.35 + 0.2 * y)
    bone = np.clip(1.6 - np.abs(x - 0.37) / 0.07, 0, 1) * (0.4 + 0.05 * y)
    values: NDArray[np.uint8] = np.rint((0.03 * (1 + x) + limb + bone) * 250).clip(0, 255).astype(np.uint8)
    return values


ARM = arm()


def codes(data: bytes) -> list[str]:
    """The codes of the notices about a file."""
    return [str(notice.code) for notice in decode_radiograph(data).notices]


def refusal(data: bytes) -> str:
    """The sentence that a file is refused with, less its name."""
    with pytest.raises(RadiographError) as caught:
        decode_radiograph(data, "q.tif")
    return str(caught.value).removeprefix("q.tif ")


def encoded(suffix: str, pixels: NDArray[Any], *options: int) -> bytes:
    """A file as OpenCV writes it."""
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its length and its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiff(
    *pages: Page, big: bool = False, inner: Page | None = None, compress: Callable[[bytes], bytes] = bytes
) -> bytes:
    """Pages of one strip, each of pixels and further tags; `inner` lies within the first page."""
    offset, head, entry = ("<Q", 16, "<HHQQ") if big else ("<I", 8, "<HHII")
    data = bytearray(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))

    def append(page: Page) -> tuple[int, int]:
        """The offset of a page, and that of the offset of the next page."""
        pixels, more = page
        samples = 1 if pixels.ndim == 2 else pixels.shape[2]
        content = compress(pixels.tobytes())
        strip = len(data)
        data.extend(content)
        bits = len(data)
        data.extend(struct.pack("<4H", *[8 * pixels.dtype.itemsize] * 4))
        tags = {256: pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: 1 if samples == 1 else 2, 273: strip}
        tags |= {277: samples, 278: pixels.shape[0], 279: len(content)} | more
        start = len(data)
        data.extend(struct.pack("<Q" if big else "<H", len(tags) + 1))
        for tag in sorted([*tags, 258]):
            if tag == 258:
                inline = (
                    bits
                    if samples * 2 > (8 if big else 4)
                    else int.from_bytes(data[bits : bits + 2 * samples], "little")
                )
                data.extend(struct.pack(entry, 258, 3, samples, inline))
            else:
                data.extend(struct.pack(entry, tag, 3 if tag == 338 else 4, 1, tags[tag]))
        data.extend(bytes(head // 2))
        return start, len(data) - head // 2

    link = head // 2
    inside = {330: append(inner)[0]} if inner else {}
    for number, (pixels, more) in enumerate(pages):
        start, following = append((pixels, more | inside if number == 0 else more))
        struct.pack_into(offset, data, link, start)
        link = following
    return bytes(data)
