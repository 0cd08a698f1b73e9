"""Image files that other programs read wrongly in silence, and files that ask for too much time or memory."""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.radiograph import decode_radiograph
from tests.raster_files import ARM, arm, codes, encoded, refusal, tiff


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
    np.testing.assert_array_equal(radiograph.pixels, ARM)
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


def test_a_uniform_alpha_hides_nothing() -> None:
    radiograph = decode_radiograph(encoded(".png", np.dstack([ARM, ARM, ARM, np.full_like(ARM, 100)])))
    np.testing.assert_array_equal(radiograph.pixels, ARM)
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
@pytest.mark.parametrize("size", [b"120 90", b"180 60", b"45 240"])  # exchanged, or one halved and the other doubled
def test_a_pnm_with_rows_of_another_length(values: NDArray[Any], size: bytes) -> None:
    suffix = ".ppm" if values.ndim == 3 else ".pgm"
    data = encoded(suffix, values)
    wrong = data.replace(b"90 120", size, 1)
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


def test_a_lossless_webp_with_zeros_in_its_middle_is_refused() -> None:
    for picture in (ARM, np.zeros_like(ARM), np.random.default_rng(3).integers(0, 255, ARM.shape, np.uint8)):
        data = encoded(".webp", np.kron(picture, np.ones((3, 3), np.uint8)), cv2.IMWRITE_WEBP_QUALITY, 101)
        decode_radiograph(data)
    middle = len(data) // 2
    assert "a part of it is lost" in refusal(data[:middle] + bytes(100) + data[middle + 100 :])


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
