"""DICOM whose structure or size contradicts its header: read rightly, with a notice, or refused."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")
from retrieval.errors import RadiographError  # noqa: E402
from retrieval.images.dicom_reader import read_values  # noqa: E402
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, decode_radiograph, is_dicom, read_frames, read_radiograph  # noqa: E402
from tests.dicom_files import BIG, FULL, IMPLICIT, J2K, LOSSLESS, RLE, arm, read, refusal  # noqa: E402

Write = Callable[..., Path]


@pytest.mark.parametrize(
    "keyword", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"]
)
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_are_made_square(write_dicom: Write, keyword: str, colour: bool) -> None:
    values = (arm() // 16).astype(np.uint8)
    values = np.dstack([values] * 3) if colour else values
    whole = read(write_dicom("whole.dcm", values))[0]
    tall, _ = read(write_dicom("tall.dcm", values[::2], **{keyword: [2, 1]}))
    assert tall.shape == whole.shape
    assert np.abs(tall - whole).mean() < 2
    wide, _ = read(write_dicom("wide.dcm", np.ascontiguousarray(values[:, ::2]), **{keyword: [1, 2]}))
    assert wide.shape == whole.shape
    for unchanged in ([1, 1.01], [0, 1], [1, 50]):
        if keyword != "PixelAspectRatio":
            assert read(write_dicom("same.dcm", values, **{keyword: unchanged}))[0].shape == whole.shape


@pytest.mark.parametrize("frames", [1, 2])
def test_a_wrong_offset_table_does_not_matter(write_dicom: Write, frames: int) -> None:
    values = np.stack([(arm() // 16).astype(np.uint8) // (1 + number) for number in range(frames)])
    streams = [cv2.imencode(".jp2", frame, LOSSLESS)[1].tobytes() for frame in values]
    path = write_dicom("q.dcm", values if frames > 1 else values[0], syntax=J2K, frames=streams)
    ds = pydicom.dcmread(path)
    assert ds.PixelData[4:8] == (4 * frames).to_bytes(4, "little")
    ds.PixelData = ds.PixelData[:8] + b"\x77\x77\x07\0" * frames + ds.PixelData[8 + 4 * frames :]
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    for radiograph, frame in zip(read_frames(path), values, strict=True):
        np.testing.assert_array_equal(radiograph.pixels, frame)


@pytest.mark.parametrize("modality", ["XR", "DR", "RX", "DX"])
def test_a_secondary_capture_of_a_radiograph(write_dicom: Write, modality: str) -> None:
    path = write_dicom("q.dcm", arm(), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality=modality)
    assert read(path)[0].max() == 255


@pytest.mark.parametrize("name", ["IM000001", "a.ima", "a.dic", "1.2.840.113619"])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT, BIG])
def test_without_preamble_by_its_first_elements(write_dicom: Write, name: str, syntax: str) -> None:
    path = write_dicom(name, arm(), syntax=syntax, preamble=False)
    assert path.read_bytes()[128:132] != b"DICM"
    assert is_dicom(path)
    np.testing.assert_array_equal(read(path)[0], read(write_dicom("p.dcm", arm()))[0])


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\0", b"\x08\0\x05\0CS\xff\xff" + bytes(200), b"\x08\0\x05\0\x0a\0\0\0" + b"words that are no tag" * 9,
     b"\x02\0\0\0UL\4\0\xb2\0\0\0hello" * 9, bytes(300)],
)  # fmt: skip
def test_other_bytes_are_not_taken_for_dicom(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "notes").write_bytes(data)
    assert not is_dicom(tmp_path / "notes")


def test_a_file_meta_header_without_preamble(write_dicom: Write, right: NDArray[np.int64]) -> None:
    path = write_dicom("IMG7", arm(), **FULL)
    path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read(path)[0], right)


def test_an_unknown_frame_is_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", arm())
    assert refusal(path.with_name("q.dcm[2]")) == "has no frame 2: it has 1"
    assert decode_radiograph(path.read_bytes(), "q.dcm").frame == 0


def test_frames_of_several_fragments(write_dicom: Write) -> None:
    from pydicom.encaps import encapsulate

    values = np.stack([(arm() // 16).astype(np.uint8) // (1 + number) for number in range(2)])
    streams = [cv2.imencode(".jp2", frame, LOSSLESS)[1].tobytes() for frame in values]
    path = write_dicom("q.dcm", values, syntax=J2K, frames=streams)
    ds = pydicom.dcmread(path)
    ds.PixelData = encapsulate(streams, fragments_per_frame=3)
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    for radiograph, frame in zip(read_frames(path), values, strict=True):
        np.testing.assert_array_equal(radiograph.pixels, frame)


def test_compressed_frames_that_cannot_be_right(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    whole = cv2.imencode(".jpg", grey)[1].tobytes()
    jpeg = {"syntax": "1.2.840.10008.1.2.4.50"}
    assert "has no header that can be read" in refusal(write_dicom("a.dcm", grey, frames=[b"nothing!"], **jpeg))
    assert "ends early" in refusal(write_dicom("b.dcm", grey, frames=[whole[: len(whole) // 2 * 2 - 40]], **jpeg))
    bomb = b"\1\0\0\0\x40\0\0\0" + bytes(56) + b"\x81a" * 9000
    assert "unpacks to more" in refusal(write_dicom("c.dcm", grey, syntax=RLE, frames=[bomb]))


def test_without_a_plugin_the_extra_is_named(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.errors import MissingExtra

    frame = cv2.imencode(".jp2", arm(), LOSSLESS)[1].tobytes()
    path = write_dicom("q.dcm", arm(), syntax=J2K, frames=[frame])
    decoder = type("Decoder", (), {"available_plugins": ()})
    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda _: decoder)
    with pytest.raises(MissingExtra, match=r"mura-search\[dicom\]"):
        read_radiograph(path)


def test_too_large_a_picture_is_shrunk_to_square_pixels(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.images.radiograph.MAX_PIXELS", 120 * 90)
    assert read(write_dicom("q.dcm", arm(), PixelSpacing=[2, 1]))[0].shape == (120, 45)
    assert read(write_dicom("r.dcm", arm(), PixelSpacing=[1, 2]))[0].shape == (60, 90)


@pytest.mark.parametrize(("surplus", "codes"), [(b"\0" * 1000, []), (b"\1" * 1000, ["surplus-data"]), (b"\1\1", [])])
def test_more_pixels_than_the_header_tells_of(write_dicom: Write, surplus: bytes, codes: list[str]) -> None:
    path = write_dicom("q.dcm", arm(), **FULL)
    ds = pydicom.dcmread(path)
    ds.PixelData += surplus
    ds.save_as(path)
    assert read(path)[1] == codes


def test_the_codestream_counts_for_more_than_the_transfer_syntax(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    lossless = cv2.imencode(".jp2", grey, LOSSLESS)[1].tobytes()
    pixels, codes = read(write_dicom("a.dcm", grey, syntax="1.2.840.10008.1.2.4.50", frames=[lossless]))
    np.testing.assert_array_equal(pixels, grey)
    assert codes == []
    lossy = read(write_dicom("b.dcm", grey, syntax=J2K, frames=[cv2.imencode(".jpg", grey)[1].tobytes()]))
    assert np.abs(lossy[0] - grey).mean() < 2


def test_memory_counts_the_samples_of_the_codestream(dicom_bytes: Callable[..., bytes]) -> None:
    from retrieval.images.radiograph import memory_to_decode

    grey = (arm() // 16).astype(np.uint8)
    streams = [cv2.imencode(".jpg", pixels)[1].tobytes() for pixels in (grey, np.dstack([grey] * 3))]
    files = [dicom_bytes(grey, syntax="1.2.840.10008.1.2.4.50", frames=[stream]) for stream in streams]
    assert memory_to_decode(files[1]) > 2.5 * memory_to_decode(files[0])


def test_dicm_without_the_bytes_before(write_dicom: Write, right: NDArray[np.int64]) -> None:
    path = write_dicom("q", arm(), **FULL)
    path.write_bytes(path.read_bytes()[128:])
    np.testing.assert_array_equal(read(path)[0], right)
    assert is_dicom(path)


@pytest.mark.parametrize("kind", ["portrait", "landscape", "colour", "rle", "frames"])
@pytest.mark.parametrize("wrong_size", ["exchanged", "half as high", "double as high"])
def test_rows_of_another_length(write_dicom: Write, kind: str, wrong_size: str) -> None:
    """The pixels are read as they lie: with the header's rows they would be sheared."""
    values = (arm() // 16).astype(np.uint8)
    values = np.ascontiguousarray(values.T) if kind == "landscape" else values
    height, width = values.shape
    shown = {"colour": np.dstack([values] * 3), "frames": np.stack([values] * 2)}.get(kind, values)
    path = write_dicom("q.dcm", shown)
    ds = pydicom.dcmread(path)
    if kind == "rle":
        ds.compress(RLE)
    right = read_frames(path)
    sizes = {"exchanged": (width, height), "half as high": (height // 2, 2 * width)}
    ds.Rows, ds.Columns = sizes.get(wrong_size, (2 * height, width // 2))
    ds.save_as(path)
    wrong = read_frames(path)
    assert [str(notice.code) for notice in right[0].notices] == []
    assert [str(notice.code) for notice in wrong[0].notices] == ["exchanged-size"]
    for one, other in zip(right, wrong, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert read_values(path.read_bytes(), 1, MAX_BYTES, MAX_PIXELS)[0].values.shape == (height, width)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("pattern", ["grid", "steps", "slope", "noise", "checks", "noisy steps", "ramp", "stripes"])
def test_pictures_that_are_not_exchanged(write_dicom: Write, pattern: str, turned: bool) -> None:
    y, x = np.mgrid[0:120, 0:90]
    noise = np.random.default_rng(4).integers(0, 9, (120, 90))
    values = {
        "grid": y % 3 * 60,
        "steps": y // 20 * 30,
        "slope": y,
        "noise": 20 * noise,
        "noisy steps": y // 20 * 30 + noise,
        "ramp": (90 * y + x) // 50,
        "stripes": y % 2 * 90 + x,
        "checks": (x // 8 + y // 8) % 2 * 90,
    }
    picture = values[pattern].astype(np.uint8)
    assert read(write_dicom("q.dcm", np.ascontiguousarray(picture.T) if turned else picture))[1] == []


def test_dicom_that_was_filled_up_with_zeros(write_dicom: Write) -> None:
    values = arm() + np.uint16(1)
    values.reshape(-1)[-(15 * values.shape[1] + 40) :] = 0
    assert read(write_dicom("cut.dcm", values))[1] == ["ends-early"]
    values.reshape(-1)[-(60 * values.shape[1] + 40) :] = 0
    assert "ends early: 50% of its rows" in refusal(write_dicom("half.dcm", values))


def test_dicom_that_was_copied_as_a_text_is_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", arm())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(RadiographError, match="as if it were a text"):
        read(path)
