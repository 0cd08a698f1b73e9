"""Image files that other programs read wrongly in silence, and files that ask for too much time or memory."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from retrieval.images.radiograph import decode_radiograph
from tests.raster_files import ARM, codes, encoded, tiff


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
