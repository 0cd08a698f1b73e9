"""The right picture of every file that has one; test_bad_radiograph.py has the files that have none."""

import base64
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.radiograph import decode_radiograph, read_radiograph
from tests.raster_files import encoded, png_chunk

RISING = np.arange(35 * 50, dtype=np.uint8).reshape(35, 50)
LOSSLESS = {".webp": (cv2.IMWRITE_WEBP_QUALITY, 101), ".jp2": (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)}
COLOUR = np.dstack([RISING, RISING[::-1], 255 - RISING])


def png(pixels: NDArray[Any], bits: int, colour: int, *before: bytes) -> bytes:
    """A PNG spelt out. `pixels` is (H, W, values of a pixel), or (H, bytes of a row) where bits are fewer than 8."""
    height, width = pixels.shape[0], pixels.shape[1] * 8 // min(bits, 8)
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(before)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def tiff(pixels: NDArray[Any], photometric: int, *more: tuple[int, int], order: Literal["<", ">"] = "<") -> bytes:
    """An uncompressed TIFF spelt out; `more` are further tags with their one value."""
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    depth = 8 * pixels.dtype.itemsize
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: photometric, 273: 0, 277: samples, 278: height}
    tags |= {279: pixels.nbytes, 339: form} | dict(more)
    depths = 8 + 2 + 12 * len(tags) + 4  # where the directory ends
    tags[273] = depths + 8
    directory = struct.pack(order + "H", len(tags))
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and samples > 2:
            entry = struct.pack(order + "HHII", tag, 3, samples, depths if tag == 258 else tags[273] + pixels.nbytes)
        elif tag in (258, 339):
            entry = struct.pack(order + "HHIHH", tag, 3, samples, value, value)
        else:
            entry = struct.pack(order + "HHII", tag, 4, 1, value)
        directory += entry
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tail = struct.pack(order + "4H", *[form] * 4)
    return start + directory + bytes(4) + struct.pack(order + "4H", *[depth] * 4) + content + tail


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".pgm", ".pbm", ".jp2"])
def test_grey_is_read_as_it_is(suffix: str) -> None:
    picture = np.where(RISING > 99, 255, 0).astype(np.uint8) if suffix == ".pbm" else RISING
    radiograph = decode_radiograph(encoded(suffix, picture, *LOSSLESS.get(suffix, ())))
    np.testing.assert_array_equal(radiograph.pixels, picture)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".jp2", ".webp"])
def test_colour_is_read_as_bgr(suffix: str) -> None:
    data = encoded(suffix, COLOUR, *LOSSLESS.get(suffix, ()))
    np.testing.assert_array_equal(decode_radiograph(data).pixels, COLOUR)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_either_byte_order(order: Literal["<", ">"]) -> None:
    np.testing.assert_array_equal(decode_radiograph(tiff(RISING, 1, order=order)).pixels, RISING)


def test_a_file_is_what_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "a photograph.JPG"
    path.write_bytes(data := encoded(".png", RISING))
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, RISING)
    assert radiograph.digest == hashlib.sha256(data).hexdigest()


def test_one_bit() -> None:
    bits = np.array([[0b10110001], [0b00001111]], np.uint8)
    want = [[255, 0, 255, 255, 0, 0, 0, 255], [0, 0, 0, 0, 255, 255, 255, 255]]
    np.testing.assert_array_equal(decode_radiograph(png(bits, 1, 0)).pixels, want)


CMYK = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgW"
    "FBgSFBUU/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAkCCP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAOBEMA"
    "TQBZAEsAAD8AVNAqmqH/2Q=="
)


def test_cmyk_jpeg() -> None:
    """8 x 8 pixels of cyan 0, magenta 128, yellow 255, black 64, so red 191 and green 191 * 127 / 255."""
    pixels = decode_radiograph(CMYK).pixels
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - (0, 95, 191)).max() <= 2


def test_cmyk_of_unknown_polarity_is_refused() -> None:
    unmarked = CMYK[:2] + CMYK[18:]  # without Adobe's segment
    with pytest.raises(RadiographError, match="does not say whether their zero is white"):
        decode_radiograph(unmarked)


# Deeper pixels


def test_sixteen_bits_are_scaled_by_their_own_range() -> None:
    values = np.array([[1000, 1510], [2275, 3550]], np.uint16)  # a tenth of a grey level is one value
    np.testing.assert_array_equal(decode_radiograph(encoded(".png", values)).pixels, [[0, 51], [128, 255]])


@given(st.integers(1, 200), st.integers(0, 14_000))
def test_sixteen_bits_do_not_depend_on_how_many_the_detector_uses(gain: int, offset: int) -> None:
    plain = decode_radiograph(encoded(".png", RISING.astype(np.uint16))).pixels
    other = decode_radiograph(encoded(".png", RISING.astype(np.uint16) * gain + offset)).pixels
    assert np.abs(plain.astype(int) - other).max() <= 1
    np.testing.assert_array_equal(plain, RISING)


def test_hot_and_dead_pixels_do_not_decide() -> None:
    values = np.full((100, 100), 2000, np.uint16)
    values[:50] = 1000
    values[0, :4], values[99, :4] = 0, 65535
    pixels = decode_radiograph(encoded(".png", values)).pixels
    assert (pixels[1:50] == 0).all()
    assert (pixels[50:99] == 255).all()


def test_one_value_everywhere_is_black() -> None:
    assert not decode_radiograph(encoded(".png", np.full((9, 9), 700, np.uint16))).pixels.any()


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_other_depths(kind: type[np.generic]) -> None:
    values = np.array([[-100, -49], [26, 104]]).astype(kind)
    np.testing.assert_array_equal(decode_radiograph(tiff(values, 1)).pixels, [[0, 64], [158, 255]])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_number_counts_as_nothing(odd: float) -> None:
    values = np.array([[odd, 0.0], [5.0, 10.0]])
    np.testing.assert_array_equal(decode_radiograph(tiff(values, 1)).pixels, [[0, 0], [128, 255]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_zero_is_white(kind: type[np.generic]) -> None:
    """TIFF's photometric interpretation 0: the same picture from inverted values."""
    np.testing.assert_array_equal(decode_radiograph(tiff((255 - RISING).astype(kind), 0)).pixels, RISING)


# Alpha


def test_alpha_is_laid_on_black() -> None:
    clear = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 51, 102]]], np.uint8)  # 102 / 255 = 0.4
    want = [[[200, 100, 50], [0, 0, 0], [80, 40, 20]]]
    np.testing.assert_array_equal(decode_radiograph(encoded(".png", clear)).pixels, want)
    np.testing.assert_array_equal(decode_radiograph(tiff(clear[..., [2, 1, 0, 3]], 2, (338, 2))).pixels, want)
    np.testing.assert_array_equal(decode_radiograph(encoded(".webp", clear, *LOSSLESS[".webp"])).pixels, want)


def test_grey_with_alpha() -> None:
    clear = np.array([[[250, 255], [250, 51], [250, 0]]], np.uint8)
    np.testing.assert_array_equal(decode_radiograph(png(clear, 8, 4)).pixels, [[250, 50, 0]])


def test_alpha_of_sixteen_bits() -> None:
    values = np.array([[[0, 0, 51_000, 65535], [0, 0, 51_000, 13107], [0, 0, 0, 65535]]], np.uint16)  # 13107 is a fifth
    want = [[[0, 0, 255], [0, 0, 51], [0, 0, 0]]]
    np.testing.assert_array_equal(decode_radiograph(encoded(".png", values)).pixels, want)
    np.testing.assert_array_equal(decode_radiograph(tiff(values[..., [2, 1, 0, 3]], 2, (338, 2))).pixels, want)


# Orientation

STORED = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    turned = png(STORED[..., None], 8, 0, png_chunk(b"eXIf", exif(orientation)))
    np.testing.assert_array_equal(decode_radiograph(turned).pixels, UPRIGHT[orientation])
    for kind in (np.uint8, np.uint16):  # libtiff's two ways
        pixels = decode_radiograph(tiff(STORED.astype(kind) * 51 - 51, 1, (274, orientation))).pixels
        np.testing.assert_array_equal(pixels, np.array(UPRIGHT[orientation]) * 51 - 51)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_orientation_is_as_opencv_has_it(suffix: str, orientation: int) -> None:
    plain = encoded(suffix, COLOUR)
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif(orientation)
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    else:
        height, width = COLOUR.shape[:2]
        flags = struct.pack("<IHBHB", 8, width - 1, 0, height - 1, 0)
        chunks = b"WEBPVP8X" + struct.pack("<I", 10) + flags + plain[12:] + b"EXIF" + struct.pack("<I", 26)
        chunks += exif(orientation)
        data = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    oracle = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_radiograph(data).pixels, oracle)


@pytest.mark.parametrize("block", [b"", b"II*\0", exif(0), exif(9), b"II*\0" + bytes([255] * 20)])
def test_a_broken_exif_block_turns_nothing(block: bytes) -> None:
    data = png(STORED[..., None], 8, 0, png_chunk(b"eXIf", block))
    np.testing.assert_array_equal(decode_radiograph(data).pixels, STORED)


# Several pictures in one file


def test_the_first_frame_of_a_gif_is_read() -> None:
    """4 x 4 pixels of 200, 0, and 90."""
    data = base64.b64decode(
        "R0lGODdhBAAEAIEAAMjIyAAAAAAAAAAAACwAAAAABAAEAAAICQABCBxIsCCAgAAh+QQBAAABACwAAAAABAAEAIEAAAAAAAAAAAAAAAAICQABCBxI"
        "sCCAgAAh+QQBAAABACwAAAAABAAEAIFaWloAAAAAAAAAAAAICQABCBxIsCCAgAA7"
    )
    radiograph = decode_radiograph(data)
    np.testing.assert_array_equal(radiograph.pixels, np.full((4, 4), 200))
    assert [notice.code for notice in radiograph.notices] == ["several-pictures", "blank"]


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_the_first_frame_is_read(suffix: str) -> None:
    animation = cv2.Animation()
    animation.frames = [np.full((16, 16, 3), grey, np.uint8) for grey in (255, 0, 0)]
    animation.durations = [100, 100, 100]
    done, data = cv2.imencodeanimation(suffix, animation)
    assert done
    radiograph = decode_radiograph(data.tobytes())
    assert radiograph.pixels.shape == (16, 16)
    assert (radiograph.pixels >= 253).all()  # lossy
    assert next(notice.code for notice in radiograph.notices) == "several-pictures"


def test_the_first_page_is_read() -> None:
    done, data = cv2.imencodemulti(".tiff", [RISING, 255 - RISING])
    assert done
    radiograph = decode_radiograph(data.tobytes())
    np.testing.assert_array_equal(radiograph.pixels, RISING)
    assert radiograph.warnings == ("holds several pages: the first is read",)


# Real files


@pytest.mark.data
def test_every_real_radiograph() -> None:
    """47 of 2,791 end before their end marker; three of those lack more than a quarter of their rows.

    One more, IMG0004071, has its end marker, but its lower fifth is lost.
    """
    data = Path(__file__).parents[3] / "../shared/data"
    files = sorted(data.glob("*/images/*/*.jpg"))
    if not files:
        pytest.skip("the real radiographs are not beside this checkout")
    warned, refused = [], []
    for file in files:
        try:
            warned += [file.stem] * len(read_radiograph(file).warnings)
        except RadiographError:
            refused.append(file.stem)
    assert (len(files), len(warned)) == (2791, 45)
    assert refused == ["IMG0004100", "IMG0004145", "IMG0004228"]
