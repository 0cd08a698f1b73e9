"""Image files that other programs read wrongly in silence, and files that ask for too much time or memory."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images import decoder_messages, raster_reader
from retrieval.images.decoder_messages import messages_of_opencv, messages_of_this_thread
from retrieval.images.radiograph import MAX_MEMORY, decode_radiograph, memory_to_decode


def arm(height: int = 120, width: int = 90) -> NDArray[np.uint8]:
    """A smooth picture: dark air, a grey limb, a bright bone."""
    y, x = np.mgrid[0:height, 0:width] / (height - 1)
    limb = np.clip(1.6 - np.abs(x - 0.37) / 0.16, 0, 1) * (0.35 + 0.2 * y)
    bone = np.clip(1.6 - np.abs(x - 0.37) / 0.07, 0, 1) * (0.4 + 0.05 * y)
    values: NDArray[np.uint8] = np.rint((0.03 * (1 + x) + limb + bone) * 250).clip(0, 255).astype(np.uint8)
    return values


ARM = arm()


def codes(data: bytes) -> list[str]:
    return [str(notice.code) for notice in decode_radiograph(data).notices]


def refusal(data: bytes) -> str:
    with pytest.raises(RadiographError) as caught:
        decode_radiograph(data, "q.tif")
    return str(caught.value).removeprefix("q.tif ")


def encoded(suffix: str, pixels: NDArray[Any], *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


# TIFF

Page = tuple[NDArray[Any], dict[int, int]]


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


@pytest.mark.parametrize("compression", [34712, 50002, 34933])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_unknown_compression_of_a_tiff_is_refused(compression: int, kind: type[np.generic]) -> None:
    assert "is a damaged TIFF, or of a kind that is not read" in refusal(tiff((ARM.astype(kind), {259: compression})))


@pytest.mark.parametrize(("compression", "compress"), [(8, zlib.compress), (5, None)])
def test_a_damaged_strip_of_a_tiff_is_refused(compression: int, compress: Callable[[bytes], bytes] | None) -> None:
    if compress:
        data = bytearray(tiff((ARM, {259: compression}), compress=compress))
    else:
        data = bytearray(encoded(".tiff", ARM, cv2.IMWRITE_TIFF_COMPRESSION, 5))
    np.testing.assert_array_equal(decode_radiograph(bytes(data)).pixels, ARM)
    data[2000:2012] = b"\xff\x00" * 6
    assert "is a damaged TIFF" in refusal(bytes(data))


def test_a_reduced_page_is_passed_over() -> None:
    small: Page = (ARM[::4, ::4].copy(), {254: 1})
    radiograph = decode_radiograph(tiff(small, (ARM, {})))
    np.testing.assert_array_equal(radiograph.pixels, ARM)
    assert radiograph.notices == ()
    np.testing.assert_array_equal(decode_radiograph(tiff(small, inner=(ARM, {}))).pixels, ARM)
    np.testing.assert_array_equal(decode_radiograph(tiff(small)).pixels, small[0])
    assert codes(tiff((ARM, {}), (255 - ARM, {}))) == ["several-pictures"]


def test_a_small_page_of_the_same_shape_is_passed_over() -> None:
    """Writers do not always mark a thumbnail."""
    for small in (ARM[::4, ::4].copy(), ARM[::3, ::3].copy()):
        radiograph = decode_radiograph(tiff((small, {}), (ARM, {})))
        np.testing.assert_array_equal(radiograph.pixels, ARM)
        assert radiograph.notices == ()
        np.testing.assert_array_equal(decode_radiograph(tiff((ARM, {}), (small, {}))).pixels, ARM)
    other = ARM[:30, :80].copy()
    np.testing.assert_array_equal(decode_radiograph(tiff((other, {}), (ARM, {}))).pixels, other)


def test_a_bigtiff() -> None:
    np.testing.assert_array_equal(decode_radiograph(tiff((ARM, {}), big=True)).pixels, ARM)
    pages = tiff((ARM[::2, ::2].copy(), {254: 1}), (ARM, {}), big=True)
    np.testing.assert_array_equal(decode_radiograph(pages).pixels, ARM)


def test_a_loop_of_pages_ends() -> None:
    data = bytearray(tiff((ARM, {})))
    start = struct.unpack_from("<I", data, 4)[0]
    data[-4:] = struct.pack("<I", start)
    np.testing.assert_array_equal(decode_radiograph(bytes(data)).pixels, ARM)
    assert "it has no page" in refusal(b"II*\0" + bytes(40))


DEEP = ARM.astype(np.uint16) * 256 + np.arange(ARM.size, dtype=np.uint16).reshape(ARM.shape) % 251


def in_planes(pixels: NDArray[Any], strips: int, big: bool, compress: Callable[[bytes], bytes], **tags: int) -> bytes:
    """Samples (H, W, C) in planes of their own, each of as many strips; the keywords are `t` and a tag's number."""
    height, width, samples = pixels.shape
    rows = -(-height // strips)
    head, offset, counted, size = (b"II+\0\x08\0\0\0", "Q", "Q", 8) if big else (b"II*\0", "I", "H", 4)
    data = bytearray(head + bytes(size))
    parts = []
    for plane in range(samples):
        for start in range(0, height, rows):
            part = compress(np.ascontiguousarray(pixels[start : start + rows, :, plane]).tobytes())
            parts.append((len(data), len(part)))
            data += part
    values = {256: [width], 257: [height], 258: [8 * pixels.dtype.itemsize] * samples, 259: [1], 262: [2]}
    values |= {273: [at for at, _ in parts], 277: [samples], 278: [rows], 279: [many for _, many in parts], 284: [2]}
    values |= {int(tag[1:]): [value] for tag, value in tags.items()}
    entries = b""
    for tag, numbers in sorted(values.items()):
        kind = 3 if tag in (258, 338) else 4
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > size:
            at = len(data)
            data += packed
            packed = struct.pack(f"<{offset}", at)
        entries += struct.pack(f"<HH{offset}", tag, kind, len(numbers)) + packed.ljust(size, b"\0")
    struct.pack_into(f"<{offset}", data, size, len(data))
    return bytes(data + struct.pack(f"<{counted}", len(values)) + entries + bytes(size))


@pytest.mark.parametrize(("compression", "compress"), [(1, bytes), (8, zlib.compress)])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("strips", [1, 7])
def test_colours_of_16_bits_in_planes(
    strips: int, big: bool, compression: int, compress: Callable[[bytes], bytes]
) -> None:
    colours = np.dstack([DEEP, 65535 - DEEP, DEEP // 2])
    whole = decode_radiograph(tiff((colours, {})))
    data = in_planes(colours, strips, big, compress, t259=compression)
    np.testing.assert_array_equal(decode_radiograph(data).pixels, whole.pixels)
    with_alpha = np.dstack([colours, np.full_like(DEEP, 65535)])
    for kind in (0, 1, 2):  # a further sample that nobody explains, alpha that is multiplied, and alpha that is not
        data = in_planes(with_alpha, strips, big, compress, t259=compression, t338=kind)
        np.testing.assert_array_equal(decode_radiograph(data).pixels, whole.pixels)


def test_planes_are_turned_upright() -> None:
    colours = np.dstack([DEEP, 65535 - DEEP, DEEP // 2])
    upright = decode_radiograph(tiff((colours, {}))).pixels
    turned = decode_radiograph(in_planes(colours, 3, False, bytes, t274=6)).pixels
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_planes_of_other_colours_and_broken_planes_are_refused() -> None:
    inks = np.dstack([DEEP] * 4)
    assert "4 samples of 16 bits in separate planes" in refusal(in_planes(inks, 1, False, bytes, t262=5))
    data = bytearray(in_planes(inks[..., :3], 4, False, zlib.compress, t259=8))
    data[20:60] = bytes(40)
    assert "is a damaged TIFF" in refusal(bytes(data))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("apart", [False, True])
def test_grey_with_alpha_in_a_tiff(kind: type[np.unsignedinteger], apart: bool) -> None:
    grey = ARM if kind == np.uint8 else DEEP
    opaque = np.dstack([grey, np.full_like(grey, np.iinfo(kind).max)])
    half = opaque.copy()
    half[:30, :, 1] = 0
    black = half[..., 0].copy()
    black[:30] = 0
    for pixels, want, alpha in ((opaque, grey, 2), (half, black, 2), (half, grey, 1)):
        tags = {262: 1, 338: alpha}
        data = in_planes(pixels, 3, False, bytes, t262=1, t338=alpha) if apart else tiff((pixels, tags))
        found = decode_radiograph(data).pixels
        expected = decode_radiograph(tiff((want, {}))).pixels
        np.testing.assert_array_equal(found if found.ndim == 2 else found[..., 0], expected)
    assert "two samples a pixel" in refusal(tiff((opaque, {262: 1})))  # a second sample that nobody explains


# Alpha, PNM, markers


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".webp"])
def test_an_alpha_of_0_everywhere_hides_nothing(suffix: str) -> None:
    clear = np.dstack([ARM, ARM, ARM, np.zeros_like(ARM)])
    if suffix == ".tiff":
        data = tiff((clear, {338: 2}))
    elif suffix == ".bmp":  # version 5, with a mask for alpha
        masks = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
        header = struct.pack("<IiiHHIIiiII4I", 124, 90, -120, 1, 32, 3, clear.nbytes, 0, 0, 0, 0, *masks)
        header += b"sRGB".ljust(124 - 56, b"\0")
        data = b"BM" + struct.pack("<IHHI", 14 + 124 + clear.nbytes, 0, 0, 14 + 124) + header + clear.tobytes()
    else:
        data = encoded(suffix, clear, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
    radiograph = decode_radiograph(data)
    if suffix == ".webp" and not radiograph.pixels.any():  # the encoder may clear what is transparent
        return
    np.testing.assert_array_equal(radiograph.pixels, clear[..., :3])
    assert [notice.code for notice in radiograph.notices] == ["transparent"] * (
        suffix != ".bmp" or bool(radiograph.notices)
    )


@pytest.mark.parametrize("form", ["P2", "P5"])
@pytest.mark.parametrize("white", [100, 255])
def test_white_of_a_pgm_is_its_greatest_value(form: str, white: int) -> None:
    values = np.array([[0, 25, 50, 100]], np.uint8)
    content = b" ".join(b"%d" % value for value in values[0]) if form == "P2" else values.tobytes()
    data = f"{form}\n# made by hand\n4 1\n# {white}\n{white}\n".encode() + content + b"\n"
    want = [[0, 64, 128, 255]] if white == 100 else values.tolist()
    assert np.abs(decode_radiograph(data).pixels.astype(int) - want).max() <= (form == "P2")  # OpenCV rounds down


@pytest.mark.parametrize("edge", [65535, 0])
def test_a_frame_does_not_set_the_range_of_a_png(edge: int) -> None:
    """It is more than a marker, and all of one value; one that is not far away stays."""
    values = ARM.astype(np.uint16) * 16 + (40_000 if edge == 0 else 0)
    framed = np.pad(values, 12, constant_values=edge)
    radiograph = decode_radiograph(encoded(".png", framed))
    plain = decode_radiograph(encoded(".png", values)).pixels.astype(int)
    assert np.abs(radiograph.pixels[12:-12, 12:-12].astype(int) - plain).max() <= 2
    assert (radiograph.pixels[0] == (255 if edge else 0)).all()
    assert [notice.code for notice in radiograph.notices] == ["outliers"]
    assert codes(encoded(".png", np.pad(values, 12, constant_values=5000 if edge else 38_000))) == []


def test_a_marker_does_not_set_the_range_of_a_png() -> None:
    plain = decode_radiograph(encoded(".png", ARM.astype(np.uint16) * 16)).pixels.astype(int)
    marked = ARM.astype(np.uint16) * 16
    marked[:1, :70] = 65535
    radiograph = decode_radiograph(encoded(".png", marked))
    assert np.abs(radiograph.pixels - plain)[1:].max() <= 2
    assert [notice.code for notice in radiograph.notices] == ["outliers"]
    reals = decode_radiograph(tiff((marked.astype(np.float32), {339: 3})))
    assert np.abs(reals.pixels - plain)[1:].max() <= 2


# Damaged JPEG


def damaged(seed: int, data: bytes) -> bytes:
    dice = np.random.default_rng(seed)
    at = len(data) // 3 + int(dice.integers(len(data) // 3))
    return data[:at] + dice.integers(0, 255, 12, np.uint8).tobytes() + data[at + 12 :]


def test_a_jpeg_that_libjpeg_calls_corrupt_has_a_notice() -> None:
    noisy = cv2.add(arm(400, 300), np.random.default_rng(0).integers(0, 30, (400, 300), np.uint8))
    whole = encoded(".jpg", noisy)
    assert codes(whole) == []
    said = []
    for seed in range(40):
        data = damaged(seed, whole)
        with messages_of_this_thread() as heard:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        try:
            found = "damaged" in codes(data)
        except RadiographError:
            found = True
        assert found == (b"Corrupt" in b"".join(heard)), seed
        said.append(found)
    assert sum(said) > 20


def test_messages_are_told_apart_by_thread() -> None:
    whole = encoded(".jpg", cv2.add(ARM, np.random.default_rng(0).integers(0, 30, ARM.shape, np.uint8)))
    files = [damaged(seed, whole) if seed % 2 else whole for seed in range(60)]

    def notices(data: bytes) -> list[str] | str:
        try:
            return codes(data)
        except RadiographError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(notices, files)) == [notices(data) for data in files]


@pytest.mark.parametrize("gnu", [True, False])
def test_nothing_of_it_reaches_stderr_but_what_others_write(
    gnu: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gnu:
        monkeypatch.setattr(decoder_messages, "_stderr", lambda: None)
    cut = encoded(".jpg", ARM)[:-9] + b"\xff\xd9"
    with messages_of_this_thread() as heard:
        cv2.imdecode(np.frombuffer(cut, np.uint8), 0)
        writer = threading.Thread(target=os.write, args=(2, b"heard\n"))
        writer.start()
        writer.join()
    assert b"premature end" in b"".join(heard)
    with messages_of_opencv() as heard:
        os.write(2, b"[ERROR:0@1.0] global grfmt_tiff.cpp:117 TIFF_Error x\n> y\ntoo\n")
    assert b"TIFF_Error" in heard[0]
    assert capfd.readouterr().err == "heard\ntoo\n"


def test_other_c_libraries_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (AttributeError, ValueError):

        def refuse(name: str, error: type[Exception] = error) -> str:
            raise error(name)

        monkeypatch.setattr(os, "confstr", refuse)
        assert decoder_messages._stderr.__wrapped__() is None


def test_a_process_without_stderr_reads_all_the_same() -> None:
    program = (
        "import os, sys; os.close(2)\n"
        "from retrieval.images.radiograph import decode_radiograph\n"
        "print([n.code.value for n in decode_radiograph(sys.stdin.buffer.read()).notices])"
    )
    for data, said in ((tiff((ARM, {})), "[]"), (encoded(".jpg", ARM)[:-9] + b"\xff\xd9", "['ends-early', 'damaged']")):
        done = subprocess.run([sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True)
        assert done.stdout.decode().strip() == said


# Time and memory


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


# Colours, transparency, numbers that are written out


def test_a_uniform_alpha_hides_nothing() -> None:
    radiograph = decode_radiograph(encoded(".png", np.dstack([ARM, ARM, ARM, np.full_like(ARM, 100)])))
    np.testing.assert_array_equal(radiograph.pixels, np.dstack([ARM] * 3))
    assert [notice.code for notice in radiograph.notices] == ["transparent"]


def test_a_coloured_picture_is_named() -> None:
    """As grey levels that were taken for the channels of another colour space."""
    green = np.dstack([np.zeros_like(ARM), ARM, np.zeros_like(ARM)])
    assert [notice.code for notice in decode_radiograph(encoded(".png", green)).notices] == ["coloured"]
    tinted = np.dstack([ARM, ARM, np.minimum(ARM, 245) + 10])
    assert not decode_radiograph(encoded(".png", tinted)).notices


def test_numbers_of_a_pgm_may_end_the_file() -> None:
    assert decode_radiograph(b"P2\n2 2\n255\n0 1 2 255").pixels.tolist() == [[0, 1], [2, 255]]


def test_other_chunks_of_a_png_change_nothing() -> None:
    plain = encoded(".png", ARM)
    for name, body in ((b"gAMA", struct.pack(">I", 22727)), (b"sBIT", b"\5"), (b"pHYs", struct.pack(">IIB", 2, 1, 1))):
        chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        np.testing.assert_array_equal(decode_radiograph(plain[:33] + chunk + plain[33:]).pixels, ARM)


def with_palette(pixels: NDArray[np.uint8], colours: int, kind: str) -> bytes:
    """Numbers of a palette of some grey levels, 0, 1, 2 ..., as PNG or BMP."""
    palette = np.arange(colours, dtype=np.uint8).repeat(3)
    head = struct.pack(">II5B", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    if kind == "PNG":
        parts = (b"IHDR", head), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
        chunks = [(len(body), name + body) for name, body in parts]
        written = [struct.pack(">I", size) + text + struct.pack(">I", zlib.crc32(text)) for size, text in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(written)
    whole = encoded(".bmp", pixels)
    begin = 54 + 4 * colours
    sizes = struct.pack("<I", begin), struct.pack("<I", colours)
    return whole[:10] + sizes[0] + whole[14:46] + sizes[1] + whole[50:begin] + whole[1078:]


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_colours_that_a_palette_lacks_are_refused(kind: str) -> None:
    pixels = np.clip(arm(120, 88), 0, 200)
    needed = int(pixels.max()) + 1
    for colours in (256, needed):
        read = decode_radiograph(with_palette(pixels, colours, kind)).pixels
        np.testing.assert_array_equal(read.reshape(120, 88, -1)[..., 0], pixels)
    for colours in (needed - 1, 40):
        assert "colours that its palette lacks" in refusal(with_palette(pixels, colours, kind))


def test_a_gif_without_colours_is_refused() -> None:
    whole = encoded(".gif", np.dstack([arm()] * 3))
    table = 3 << (whole[10] & 7) + 1
    bare = whole[:10] + bytes([whole[10] & 0x7F]) + whole[11:13] + whole[13 + table :]
    image = bare.index(b",", 13)
    local = bare[image + 9]
    if local & 0x80:
        inner = image + 10 + (3 << (local & 7) + 1)
        bare = bare[: image + 9] + bytes([local & 0x7F]) + bare[inner:]
    assert "no colour table" in refusal(bare)


def test_a_tiff_with_another_palette_than_its_pixels_need_is_refused() -> None:
    assert "its palette has another size" in refusal(tiff((ARM, {262: 3})))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".jp2", ".webp", ".tif", ".bmp"])
def test_a_file_that_was_copied_as_a_text_is_named(suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 40, (200, 180), np.uint8)
    data = encoded(suffix, np.maximum(arm(200, 180), noise))
    assert "as if it were a text; copy it again in binary mode" in refusal(data.replace(b"\n", b"\r\n"))


VALUES = ARM.astype(np.uint16) * 16


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_bytes_in_the_wrong_order_and_a_missing_sign_are_told_by_neighbours(suffix: str) -> None:
    right = decode_radiograph(encoded(suffix, VALUES))
    assert right.notices == ()
    for wrong in (VALUES.byteswap(), VALUES - np.uint16(1500)):  # the least values become the greatest
        read = decode_radiograph(encoded(suffix, wrong))
        np.testing.assert_array_equal(read.pixels, right.pixels)
        assert [notice.code for notice in read.notices] == ["contradictory-bits"]


@pytest.mark.parametrize("values", [ARM, VALUES, np.dstack([ARM] * 3)])
def test_width_and_height_of_a_pnm_that_are_exchanged(values: NDArray[Any]) -> None:
    suffix = ".ppm" if values.ndim == 3 else ".pgm"
    data = encoded(suffix, values)
    wrong = data.replace(b"90 120", b"120 90", 1)
    assert wrong != data
    read = decode_radiograph(wrong)
    np.testing.assert_array_equal(read.pixels, decode_radiograph(data).pixels)
    assert [notice.code for notice in read.notices] == ["exchanged-size"]


@pytest.mark.parametrize("suffix", [".bmp", ".pgm"])
def test_pixels_beyond_those_of_the_header_are_named(suffix: str) -> None:
    data = encoded(suffix, arm(120, 88))
    for filling in (b"", bytes(100), b"\n"):
        assert codes(data + filling) == []
    assert codes(data + data[-880:]) == ["surplus-data"]


def test_several_pictures_in_a_pnm() -> None:
    data = encoded(".pgm", ARM)
    assert codes(data + data) == ["several-pictures"]


def test_a_webp_that_was_filled_up_with_zeros_is_refused() -> None:
    data = encoded(".webp", ARM)
    assert codes(data) == []
    assert "ends early" in refusal(data[: len(data) * 3 // 4] + bytes(len(data) // 4))


@pytest.mark.parametrize("suffix", [".pgm", ".bmp", ".tif"])
def test_a_copy_that_was_filled_up_with_zeros(suffix: str) -> None:
    values = arm(120, 88)
    part = values.reshape(-1).copy()
    part[-20 * 88 + 40 :] = 0
    cut = part.reshape(120, 88)
    if suffix == ".bmp":  # its last row comes first
        cut = cut[::-1]
    data = tiff((cut, {})) if suffix == ".tif" else encoded(suffix, cut)
    assert codes(data) == ["ends-early"]
    half = values.copy()
    half[40 if suffix != ".bmp" else 0 : 120 if suffix != ".bmp" else 80] = 0
    half[40 if suffix != ".bmp" else 79, :30] = 9
    assert "ends early: 66% of its rows" in refusal(tiff((half, {})) if suffix == ".tif" else encoded(suffix, half))


@pytest.mark.parametrize("rows", [1, 20, 60])
def test_a_black_frame_is_no_interrupted_copy(rows: int) -> None:
    framed = arm()
    framed[-rows:] = 0
    assert codes(encoded(".pgm", framed)) == []
    round_one = np.where(np.hypot(*(np.mgrid[:120, :90] - np.array([60, 45])[:, None, None])) < 44, arm(), 0)
    assert codes(encoded(".pgm", round_one.astype(np.uint8))) == []
