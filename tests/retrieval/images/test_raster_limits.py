"""What is refused before it is decoded: very many parts or scans, and what would take too much memory."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retrieval.errors import RadiographError
from retrieval.images import raster_reader
from retrieval.images.radiograph import MAX_MEMORY, decode_radiograph, memory_to_decode
from tests.raster_files import ARM, encoded, refusal, tiff


def progressive(scans: int) -> bytes:
    """A JPEG with a refinement scan of nothing, again and again."""
    data = encoded(".jpg", ARM, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    end, last = data.rfind(b"\xff\xd9"), data.rfind(b"\xff\xda")
    header = data[last : last + 2 + struct.unpack_from(">H", data, last + 2)[0]]
    return data[:end] + (header + b"\0") * scans + data[end:]


def test_a_jpeg_of_very_many_scans_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_radiograph(progressive(20)).pixels.shape == ARM.shape
    monkeypatch.setattr(raster_reader, "_decode", lambda *_: pytest.fail("decoded"))
    for scans in (100, 100_000):
        assert "scans, more than 100" in refusal(progressive(scans))
    hidden = progressive(100).replace(
        b"\xff\xda", b"\xff\xfe\x00\x04\xff\xd9\xff\xda", 2
    )  # a comment with an end marker
    assert "scans, more than 100" in refusal(hidden)


@pytest.mark.parametrize("kind", ["png", "gif", "jpg"])
def test_very_many_parts_are_refused(kind: str) -> None:
    part = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    files = {
        "png": encoded(".png", ARM)[:33] + part * 100_001,
        "gif": b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"\x21\xfe" + b"\1x" * 1_000_001,
        "jpg": b"\xff\xd8" + b"\xff\xe0\0\2" * 100_002,
    }
    assert "it has too many parts" in refusal(files[kind])


def claims(kind: str, side: int) -> bytes:
    """The beginning of a file of side x side pixels of 16-bit colour with alpha, or the like."""
    if kind == "png":
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
        end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end
    if kind == "jp2":
        sizes = struct.pack(">HHIIIIIIIIH", 47, 0, side, side, 0, 0, side, side, 0, 0, 3)
        return b"\xff\x4f\xff\x51" + sizes + b"\x0f\1\1" * 3 + b"\xff\xd9"
    if kind == "tif":
        depths = np.zeros((1, 1, 3), np.float32)
        return tiff((depths, {256: side, 257: side, 339: 3}))
    return b"P6 %d %d 65535\n" % (side, side)


@pytest.mark.parametrize("kind", ["png", "jp2", "tif"])
def test_memory_is_bounded_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_reader, "_decode", lambda *_: pytest.fail("decoded"))
    assert "MiB of memory, more than the 1,024 MiB allowed" in refusal(claims(kind, 8000))
    with pytest.raises(RadiographError, match="allowed"):
        memory_to_decode(claims(kind, 8000))
    assert memory_to_decode(claims(kind, 1000)) < MAX_MEMORY / 10


@pytest.mark.parametrize(
    ("suffix", "colour"),
    [(".png", False), (".png", True), (".jpg", True), (".tiff", True), (".jp2", True), (".webp", True)],
)
def test_no_file_takes_more_memory_than_its_header_tells(suffix: str, colour: bool) -> None:
    """Peak resident memory of a process that decodes and prepares one file."""
    pixels = np.full((3000, 3000), 60, np.uint16 if suffix in (".png", ".tiff", ".jp2") else np.uint8)
    data = encoded(suffix, np.dstack([pixels] * 3) if colour else pixels)
    program = (
        "import resource, sys\n"
        "from retrieval.images.preprocessing import Preprocessing, preprocess\n"
        "from retrieval.images.radiograph import decode_radiograph\n"
        "data = sys.stdin.buffer.read()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); preprocess(decode_radiograph(data).pixels, Preprocessing())\n"
        "print((peak() - before) * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < memory_to_decode(data) + 40 * 2**20


def test_memory_of_what_is_refused_anyway() -> None:
    for data in (b"", b"no picture", progressive(200)):
        with pytest.raises(RadiographError):
            memory_to_decode(data)


def test_memory_of_dicom(dicom_bytes: Callable[..., bytes]) -> None:
    data = dicom_bytes(np.zeros((300, 200), np.uint16))
    assert 300 * 200 * 10 < memory_to_decode(data, "q.dcm") < 300 * 200 * 40
    with pytest.raises(RadiographError, match="is damaged: its samples"):
        memory_to_decode(dicom_bytes(np.zeros((9, 9), np.uint16), SamplesPerPixel=4), "q.dcm")


def test_dicom_of_very_many_elements_or_scans_is_refused(dicom_bytes: Callable[..., bytes]) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    ds = pydicom.dcmread(io.BytesIO(dicom_bytes(ARM)))
    for element in range(0x1001, 0x1001 + 60_000):
        for group in (0x0009, 0x000B, 0x000D, 0x000F):
            ds[group, element] = pydicom.DataElement(group << 16 | element, "LO", "")
    file = io.BytesIO()
    ds.save_as(file)
    with pytest.raises(RadiographError, match="more elements than a radiograph needs"):
        decode_radiograph(file.getvalue(), "q.dcm")
    frame = progressive(150)
    many = dicom_bytes(ARM, syntax="1.2.840.10008.1.2.4.50", frames=[frame])
    with pytest.raises(RadiographError, match=r"has a picture of \d+ scans, more than 100"):
        decode_radiograph(many, "q.dcm")
