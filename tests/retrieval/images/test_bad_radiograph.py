"""Every file that is no whole radiograph gives one sentence, or a warning and what there is; never another picture."""

import os
import stat
import struct
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import MissingExtra, RadiographError
from retrieval.images import radiograph as module
from retrieval.images.radiograph import MAX_BYTES, Radiograph, decode_radiograph, read_radiograph
from tests.raster_files import encoded, png_chunk

BRIGHT = np.random.default_rng(0).integers(140, 256, (96, 72), np.uint8)  # no mid-grey, which a cut JPEG is filled with
JPEG_OPTIONS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
}


FILES = {suffix: encoded(suffix, BRIGHT) for suffix in (".png", ".jpg", ".tiff", ".bmp", ".webp", ".jp2", ".pgm")}
COLOUR = np.dstack([BRIGHT, BRIGHT[::-1], BRIGHT])
FILES |= {"colour.jpg": encoded(".jpg", COLOUR), "gradual.jpg": encoded(".jpg", COLOUR, *JPEG_OPTIONS["progressive"])}


def refusal(path: Path) -> str:
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    return str(caught.value)


def refusal_of(data: bytes, name: str = "q.png") -> str:
    with pytest.raises(RadiographError) as caught:
        decode_radiograph(data, name)
    message = str(caught.value)
    assert message.startswith(name)
    assert message.isprintable()
    return message


def decoded(data: bytes) -> Radiograph | None:
    """What the bytes are read as, None where they are refused in one line."""
    try:
        return decode_radiograph(data)
    except RadiographError as error:
        message = str(error)
    assert message.isprintable()
    return None


# Places without a file


def test_nothing_there(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "q.png")
        == f"{tmp_path}/q.png cannot be read: No such file or directory; check its name and permissions"
    )


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert "cannot be read: Too many levels of symbolic links" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("since_looked_at", [False, True])
def test_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since_looked_at: bool) -> None:
    pipe = tmp_path / "q.png"
    os.mkfifo(pipe)
    if since_looked_at:
        monkeypatch.setattr(stat, "S_ISREG", lambda mode: True)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(refusal(pipe)), daemon=True)
    thread.start()
    thread.join(5)
    assert len(answers) == 1
    assert ("is empty" if since_looked_at else "is a device or pipe") in answers[0]


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.png"
    path.write_bytes(FILES[".png"])
    path.chmod(0)

    def refuse(*_: object) -> int:  # root, who may run this, reads everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert refusal(path) == f"{path} cannot be read: Permission denied; check its name and permissions"


def test_a_name_of_two_lines_is_shown_on_one(tmp_path: Path) -> None:
    assert "a\ufffdb.png cannot be read" in refusal(tmp_path / "a\nb.png")


# Files that are no image


def test_empty() -> None:
    assert refusal_of(b"") == "q.png is empty; copy or export it again"


def test_text_called_png() -> None:
    assert "is not an image that can be read" in refusal_of(b"patient,label\nA,1\n")


@pytest.mark.parametrize(("name", "data"), [("scan.DCM", b"\x08\0\x05\0"), ("scan", bytes(128) + b"DICM")])
def test_dicom_names_the_extra(tmp_path: Path, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "retrieval.images.dicom_reader", raising=False)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MissingExtra, match=r'run: pip install "mura-search\[dicom\]"'):
        read_radiograph(tmp_path / name)


def test_a_png_called_dcm_is_a_png() -> None:
    assert decode_radiograph(FILES[".png"], "q.dcm").pixels.size > 1


# Limits, before anything is decoded


def test_too_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "q.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room
    assert "MiB, more than the 128 MiB that are read" in refusal(path)


def test_too_many_bytes_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", len(FILES[".png"]))
    decode_radiograph(FILES[".png"])
    assert "more than" in refusal_of(FILES[".png"] + b"\0")


def huge(suffix: str) -> bytes:
    """A file that claims 30,000 x 30,000 pixels, in as few bytes as it takes."""
    side = 30_000
    if suffix == ".png":
        rows = zlib.compress(bytes(side))
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    places = {  # the place and form of width and height in FILES
        ".bmp": (18, "<ii"),
        ".jp2": (FILES[".jp2"].find(b"\xff\x4f\xff\x51") + 8, ">II"),
        ".jpg": (FILES[".jpg"].find(b"\xff\xc0") + 5, ">HH"),
        ".gif": (6, "<HH"),
    }
    if suffix in places:
        data = bytearray(FILES.get(suffix, b"GIF89a" + bytes(20)))
        struct.pack_into(places[suffix][1], data, places[suffix][0], side, side)
        return bytes(data)
    if suffix == ".tiff":
        return b"II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 256, 4, 1, side, 257, 4, 1, side, 0)
    if suffix == ".webp":
        size = (side - 1).to_bytes(3, "little")
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + size
    return b"P5 # a comment\n30000 30000 255\n"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".pgm"])
def test_too_many_pixels(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert "has 30,000 x 30,000 pixels, more than 64,000,000 in all" in refusal_of(huge(suffix))


def hidden(suffix: str) -> bytes:
    """A file of 400 x 300 pixels that names 10 x 10 somewhere else, too."""
    data = cv2.imencode(suffix, np.full((300, 400), 90, np.uint8))[1].tobytes()
    if suffix == ".jpg":  # a marker that stands alone, and a frame that is none, within a comment behind it
        frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 10, 10, 1) + bytes(3)
        return data[:2] + b"\xff\x01" + b"\xff\xfe" + struct.pack(">H", 2 + len(frame)) + frame + data[2:]
    if suffix == ".jp2":
        fake = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 38, 0, 10, 10, 0, 0)
        place = 12 + struct.unpack_from(">I", data, 12)[0]  # behind the signature and the file type
        return data[:place] + struct.pack(">I4s", 8 + 16 + len(fake), b"uuid") + bytes(16) + fake + data[place:]
    if suffix == ".tiff":  # the directory moved to the end, with both sizes again
        (place,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, place)
        entries = [data[at : at + 12] for at in range(place + 2, place + 2 + 12 * count, 12)]
        again = [struct.pack("<HHII", tag, 4, 1, 10) for tag in (256, 257)]
        both = sorted([*entries, *again], key=lambda entry: struct.unpack_from("<H", entry)[0])
        directory = struct.pack("<H", len(both)) + b"".join(both) + bytes(4)
        return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
    return b"P5\n#\r400 300\n10 10\n" + bytes(400 * 300)


@pytest.mark.parametrize("suffix", [".jpg", ".jp2", ".tiff", ".pgm"])
def test_a_size_that_is_hidden_from_the_header_counts(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.images.radiograph.MAX_PIXELS", 100_000)
    data = hidden(suffix)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (300, 400)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert "has 400 x 300 pixels, more than" in refusal_of(data)


def test_opencv_decodes_no_more_pixels_than_may_be() -> None:
    assert int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]) == module.MAX_PIXELS


# Ends early


@given(st.sampled_from([*FILES]), st.data())
def test_what_ends_early_is_refused_or_read_with_a_warning(kind: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(FILES[kind]) - 3))  # a JPEG may lack its end marker's two bytes
    found = decoded(FILES[kind][:length])
    if found:
        assert kind.endswith(".jpg")
        assert found.warnings[0].startswith("ends early: ")


@pytest.mark.parametrize("kind", [".jpg", "colour.jpg"])
@pytest.mark.parametrize("tail", ["nothing", "zeros", "end marker"])
def test_a_jpeg_that_ends_early(kind: str, tail: str) -> None:
    """Blocks come in rows from the top: what lies above the last one sent is right, what lies below is black."""
    whole = FILES[kind]
    want = decode_radiograph(whole).pixels
    read: list[int] = []
    for length in range(len(whole) // 2, len(whole) - 400, 7):  # the last unit of blocks, 300 bytes, ends in any case
        more = {"nothing": b"", "zeros": bytes(len(whole) - length), "end marker": b"\xff\xd9"}[tail]
        found = decoded(whole[:length] + more)
        if found is None:
            assert not read  # where less was read, more is
            continue
        missing = 0
        while not found.pixels[-1 - missing].any():
            missing += 1
        sent = len(want) - missing - 18  # a row of blocks, and the two rows that upsampled colours run over into
        np.testing.assert_array_equal(found.pixels[:sent], want[:sent])
        assert found.warnings[0].startswith("ends early: ")
        assert ("shown black" in found.warnings[0]) == (missing > 0)
        read.append(missing)
    assert read == sorted(read, reverse=True)
    assert len(want) / 4 >= read[0] > len(want) / 8
    assert read[-1] == 0


@pytest.mark.parametrize("kind", [".jpg", "colour.jpg", "gradual.jpg"])
def test_a_jpeg_without_its_last_bytes_is_as_good_as_whole(kind: str) -> None:
    found, want = decode_radiograph(FILES[kind][:-4]), decode_radiograph(FILES[kind])
    away = np.abs(found.pixels.astype(int) - want.pixels)
    assert away[:-18].max() <= (
        8 if kind == "gradual.jpg" else 0
    )  # the last scan of a progressive JPEG sharpens it all
    assert found.warnings == ("ends early: its last rows or finest detail may be missing",)
    assert want.warnings == ()


def test_a_progressive_jpeg_is_refused_before_all_its_detail() -> None:
    whole = FILES["gradual.jpg"]
    assert "before all its detail was sent" in refusal_of(whole[: len(whole) // 2])


def test_a_grey_picture_does_not_end_early() -> None:
    assert decode_radiograph(encoded(".jpg", np.full((64, 64), 128, np.uint8))).warnings == (
        "is blank: every pixel is alike",
    )


def test_what_a_jpeg_says_of_its_end_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    """libjpeg writes its own complaint on stderr, where the progress bar is."""
    assert decode_radiograph(FILES[".jpg"][:-9]).warnings
    refusal_of(FILES[".png"][:-9])
    refusal_of(FILES[".tiff"][:-9])
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


# Damaged


@given(st.integers(8, len(FILES[".png"]) - 1), st.integers(1, 255))
def test_a_changed_byte_of_a_png_is_refused(place: int, change: int) -> None:
    data = bytearray(FILES[".png"])
    data[place] ^= change
    assert decoded(bytes(data)) is None


@given(st.sampled_from([*FILES]), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
def test_whatever_the_bytes_one_sentence_or_a_picture(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[place % len(data)] = value
    found = decoded(bytes(data))
    if found:
        assert found.pixels.dtype == np.uint8
        assert found.pixels.flags.c_contiguous
        assert found.pixels.shape[2:] in ((), (3,))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n", "it ends early"),
        (b"\xff\xd8\xff\xd9", "it ends before its picture"),
        (b"II*\0\x08\0\0\0", "it ends within its header"),
        (b"P5\nwide high\n", "its header has no width and height"),
        (b"P5 0 7 255\n", "its header says 0 x 7 pixels"),
        (b"RIFF\0\0\0\0WEBPJUNK", "its first chunk is not one of WebP's"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it holds no codestream"),
    ],
)
def test_broken_headers(data: bytes, reason: str) -> None:
    assert refusal_of(data) == f"q.png cannot be read: {reason}; copy or export it again"
