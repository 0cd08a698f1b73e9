"""DICOM whose header contradicts its values: read rightly, with a notice, or refused; never wrong in silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from retrieval.errors import RadiographError  # noqa: E402
from retrieval.images.dicom_reader import read_values  # noqa: E402
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, decode_radiograph, is_dicom, read_frames, read_radiograph  # noqa: E402
from tests.dicom_files import BIG, IMPLICIT, RLE, refusal  # noqa: E402

Write = Callable[..., Path]
J2K = "1.2.840.10008.1.2.4.90"


def arm(top: int = 4000, height: int = 120, width: int = 90) -> NDArray[np.uint16]:
    """A smooth picture: dark air, a grey limb, a bright bone, each with a slope, up to `top`."""
    y, x = np.mgrid[0:height, 0:width] / (height - 1)
    limb = np.clip(1.6 - np.abs(x - 0.37) / 0.16, 0, 1) * (0.35 + 0.2 * y)
    bone = np.clip(1.6 - np.abs(x - 0.37) / 0.07, 0, 1) * (0.4 + 0.05 * y)
    picture = 0.03 * (1 + x) + limb + bone
    values: NDArray[np.uint16] = np.rint(picture / picture.max() * top).astype(np.uint16)
    return values


def read(path: Path) -> tuple[NDArray[np.int64], list[str]]:
    radiograph = read_radiograph(path)
    return radiograph.pixels.astype(int), [str(notice.code) for notice in radiograph.notices]


FULL = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}


@pytest.fixture
def right(write_dicom: Write) -> NDArray[np.int64]:
    """The arm through the window of all 12 bits."""
    pixels, codes = read(write_dicom("right.dcm", arm(), **FULL))
    assert codes == []
    assert pixels.max() > 240
    return pixels


@pytest.mark.parametrize("extra", [1, 2, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_values_of_more_bits_than_stored(write_dicom: Write, extra: int, signed: bool) -> None:
    """Bright bone wraps to black where only the stored bits are read."""
    values = arm(2 ** (12 + extra - signed) - 96, 480, 360).astype(np.int16 if signed and extra < 4 else np.uint16)
    half = 2 ** (11 + extra - signed)
    pixels, codes = read(write_dicom("q.dcm", values, BitsStored=12, WindowCenter=half, WindowWidth=2 * half))
    wide, none = read(write_dicom("r.dcm", values, BitsStored=16, WindowCenter=half, WindowWidth=2 * half))
    np.testing.assert_array_equal(pixels, wide)
    assert (codes, none) == (["values-beyond-bits"], [])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_a_drawing_in_unused_bits(
    write_dicom: Write, right: NDArray[np.int64], compressed: bool, declared: bool
) -> None:
    values = arm()
    values[10:40, 10:60] |= 1 << 13
    group: dict[str, Any] = {}
    if compressed:
        group = {"syntax": J2K, "frames": [cv2.imencode(".jp2", values, LOSSLESS)[1].tobytes()]}
    path = write_dicom("q.dcm", values, **FULL, **group)
    if declared:
        ds = pydicom.dcmread(path)
        ds.add_new(0x60000102, "US", 13)
        ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels, right)
    assert codes == [] if declared else ["stray-bits"]


LOSSLESS = (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)


@pytest.mark.parametrize(
    ("shift", "header", "codes"),
    [
        (4, {"BitsStored": 12, "HighBit": 15}, []),
        (0, {"BitsStored": 12, "HighBit": 15}, ["contradictory-bits"]),
        (0, {"BitsStored": 16, "HighBit": 11}, ["contradictory-bits"]),
        (0, {"BitsStored": 12, "HighBit": 10}, ["contradictory-bits"]),
    ],
)
def test_high_bit(
    write_dicom: Write, right: NDArray[np.int64], shift: int, header: dict[str, int], codes: list[str]
) -> None:
    for values in (arm() << shift, (arm() << shift).astype(np.int16)):
        if values.dtype == np.int16 and shift:
            continue
        pixels, said = read(write_dicom("q.dcm", values, **FULL | header))
        np.testing.assert_array_equal(pixels, right)
        assert said == codes


@pytest.mark.parametrize("bits", [12, 16])
def test_values_without_a_sign_that_the_header_declares(write_dicom: Write, bits: int) -> None:
    values = arm(2**bits - 96, 480, 360)
    window = {"BitsStored": bits, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    right, none = read(write_dicom("r.dcm", values, **window))
    pixels, codes = read(write_dicom("q.dcm", values, **window, PixelRepresentation=1))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["values-beyond-bits" if bits == 12 else "contradictory-bits"], [])
    below = values.astype(np.int64) - 2 ** (bits - 1)
    signed, codes = read(write_dicom("s.dcm", below.astype(np.int16), **window | {"WindowCenter": 0}))
    np.testing.assert_array_equal(signed, right)
    assert codes == []


def test_bits_stored_is_missing(write_dicom: Write, right: NDArray[np.int64]) -> None:
    path = write_dicom("q.dcm", arm(), **FULL)
    ds = pydicom.dcmread(path)
    del ds.BitsStored
    ds.save_as(path)
    np.testing.assert_array_equal(read(path)[0], right)


@pytest.mark.parametrize(
    ("center", "width"), [(512, 1024), (8192, 16384), (128, 255), (2000, 1), (9000, 2000), (-500, 90)]
)
def test_a_window_that_does_not_fit(write_dicom: Write, center: int, width: int) -> None:
    full, _ = read(write_dicom("full.dcm", arm(), BitsStored=12))
    pixels, codes = read(write_dicom("q.dcm", arm(), BitsStored=12, WindowCenter=center, WindowWidth=width))
    np.testing.assert_array_equal(pixels, full)
    assert codes == ["unfit-window"]


@pytest.mark.parametrize(("low", "high"), [(0, 4095), (150, 3600), (100, 2800), (-1000, 5000)])
def test_a_window_that_cuts_little_is_used(write_dicom: Write, low: int, high: int) -> None:
    window = {"WindowCenter": (low + high) / 2, "WindowWidth": high - low, "VOILUTFunction": "LINEAR_EXACT"}
    pixels, codes = read(write_dicom("q.dcm", arm(), BitsStored=12, **window))
    assert np.abs(pixels - np.clip((arm().astype(float) - low) / (high - low), 0, 1) * 255).max() < 0.51
    assert codes == []


def test_the_next_window_that_fits_is_used(write_dicom: Write, right: NDArray[np.int64]) -> None:
    path = write_dicom("q.dcm", arm(), BitsStored=12, WindowCenter=[128, 2048, 7], WindowWidth=[255, 4096, 3])
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, right)
    assert radiograph.warnings == (
        "has a window or lookup table that does not fit its values: another of its windows is shown",
    )


def table(entries: NDArray[np.uint16], bits: int) -> Any:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, 0, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return pydicom.Sequence([item])


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_table_of_fewer_bits_than_declared(write_dicom: Write, right: NDArray[np.int64], bits: int) -> None:
    entries = np.rint(np.arange(4096) * ((2**bits - 1) / 4095)).astype(np.uint16)
    pixels, codes = read(write_dicom("q.dcm", arm(), BitsStored=12, VOILUTSequence=table(entries, 16)))
    assert np.abs(pixels - right).max() <= 1
    assert codes == ["table-bits"]


def test_a_table_that_does_not_fit_gives_way_to_a_window(write_dicom: Write, right: NDArray[np.int64]) -> None:
    entries = np.full(4096, 65535, np.uint16)
    entries[:40] = 0
    pixels, codes = read(write_dicom("q.dcm", arm(), **FULL, VOILUTSequence=table(entries, 16)))
    np.testing.assert_array_equal(pixels, right)
    assert codes == ["unfit-window"]


@pytest.mark.parametrize("maximum", [255, 65535])
def test_a_palette_of_fewer_bits_than_declared(write_dicom: Write, maximum: int) -> None:
    grey = (np.arange(256) * (maximum // 255)).astype("<u2").tobytes()
    tables = {f"{c}PaletteColorLookupTable{part}": value for c in ("Red", "Green", "Blue")
              for part, value in (("Descriptor", [256, 0, 16]), ("Data", grey))}  # fmt: skip
    pixels = (arm() // 16).astype(np.uint8)
    path = write_dicom("q.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **tables)
    np.testing.assert_array_equal(read(path)[0][..., 1], pixels)


@pytest.mark.parametrize("values", [1, 40, 70])
def test_hot_pixels_and_markers_do_not_set_the_range(write_dicom: Write, values: int) -> None:
    plain, _ = read(write_dicom("plain.dcm", arm()))
    marked = arm()
    marked[:1, :values] = 65535
    marked[-1, :1] = 60000
    pixels, codes = read(write_dicom("q.dcm", marked))
    assert np.abs(pixels - plain)[1:-1].max() <= 2
    assert codes == ["outliers"] * (values > 11)  # 0.1 % of the pixels are 10.8


def set_text(path: Path, keyword: str, text: str) -> Path:
    """Give an element a text that pydicom would not write."""
    ds = pydicom.dcmread(path)
    ds[keyword] = pydicom.DataElement(pydicom.tag.Tag(keyword), "LO", text, already_converted=True)
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    tag = pydicom.tag.Tag(keyword)
    head = tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little")
    path.write_bytes(data.replace(head + b"LO", head + b"DS"))
    return path


@pytest.mark.parametrize(
    ("keyword", "text", "codes"),
    [
        ("RescaleSlope", "", []),
        ("RescaleSlope", "1,0", []),
        ("RescaleSlope", "1\\1", []),
        ("RescaleSlope", "1\\2", ["several-rescales"]),
        ("RescaleSlope", "0", ["invalid-rescale"]),
        ("RescaleSlope", "nan", ["invalid-rescale"]),
        ("RescaleIntercept", "none", ["invalid-rescale"]),
        ("RescaleIntercept", "", []),
        ("WindowCenter", "2048,0", []),
        ("WindowCenter", "\\2048", ["invalid-window"]),
        ("WindowCenter", "auto\\2048", ["invalid-window"]),
        ("VOILUTFunction", "", []),
    ],
)
def test_numbers_that_are_none(
    write_dicom: Write, right: NDArray[np.int64], keyword: str, text: str, codes: list[str]
) -> None:
    path = write_dicom("q.dcm", arm(), **FULL, RescaleSlope=1, RescaleIntercept=0)
    pixels, said = read(set_text(path, keyword, text))
    np.testing.assert_array_equal(pixels, right)
    assert said == codes


@pytest.mark.parametrize(("center", "width"), [("auto", "4096"), ("2048", ""), ("2048", "nan")])
def test_a_window_without_a_number(write_dicom: Write, center: str, width: str) -> None:
    full, _ = read(write_dicom("full.dcm", arm(), BitsStored=12))
    path = write_dicom("q.dcm", arm(), **FULL)
    pixels, codes = read(set_text(set_text(path, "WindowCenter", center), "WindowWidth", width))
    np.testing.assert_array_equal(pixels, full)
    assert codes == ["invalid-window"]


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


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("stored", ["RGB", "YBR_FULL"])
def test_a_grey_picture_in_another_colour_space_than_said(write_dicom: Write, said: str, stored: str) -> None:
    grey = (arm() // 16).astype(np.uint8)
    other = grey if stored == "RGB" else np.full_like(grey, 128)
    path = write_dicom("q.dcm", np.dstack([grey, other, other]), PhotometricInterpretation=said)
    pixels, codes = read(path)
    assert np.abs(pixels - grey[..., None]).max() <= 1
    assert codes == ["contradictory-colours"] * (said != stored)


def test_the_transform_of_jpeg_2000_counts_for_more_than_the_header(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    path = write_dicom("q.dcm", np.dstack([grey] * 3))
    ds = pydicom.dcmread(path)
    ds.PhotometricInterpretation = "YBR_RCT"
    ds.compress(J2K)
    ds.PhotometricInterpretation = "YBR_FULL"
    ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels[..., 0], grey)
    assert codes == []


@pytest.mark.parametrize("space", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("stored", [0, 1])
def test_samples_in_other_planes_than_said(
    write_dicom: Write, said: int, stored: int, coloured: bool, space: str
) -> None:
    grey = (arm() // 16).astype(np.uint8)
    other = np.full_like(grey, 128) if space == "YBR_FULL" else grey
    picture = np.dstack([grey, other, other])
    if coloured and space == "RGB":
        picture[10:30, 10:40] = (250, 40, 40)  # a marker
    path = write_dicom("q.dcm", picture, PhotometricInterpretation=space)
    right, _ = read(path)
    ds = pydicom.dcmread(path)
    ds.PlanarConfiguration = said
    ds.PixelData = (picture.transpose(2, 0, 1) if stored else picture).tobytes()
    ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels, right)
    assert codes == ["contradictory-planes"] * (said != stored)


def test_bright_values_whose_highest_bit_is_called_a_sign(write_dicom: Write) -> None:
    values = arm() * np.uint16(16)
    right, _ = read(write_dicom("right.dcm", values, BitsStored=16, HighBit=15))
    wrong, codes = read(write_dicom("wrong.dcm", values, BitsStored=16, HighBit=15, PixelRepresentation=1))
    np.testing.assert_array_equal(wrong, right)
    assert codes == ["contradictory-bits"]


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


def test_a_coloured_picture_is_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", np.full((20, 20, 3), (20, 200, 20), np.uint8))
    assert "coloured" in read(path)[1]


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


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", J2K])
def test_a_compressed_picture_of_fewer_bits_than_the_header_says(write_dicom: Write, syntax: str) -> None:
    grey = (arm() // 16).astype(np.uint8)
    frame = cv2.imencode(".jp2" if syntax == J2K else ".jpg", grey, LOSSLESS if syntax == J2K else ())[1].tobytes()
    pixels, codes = read(write_dicom("q.dcm", arm(), syntax=syntax, frames=[frame], **FULL))
    full, _ = read(write_dicom("full.dcm", grey.astype(np.uint16), BitsStored=12))
    assert np.abs(pixels - full).mean() < 2
    assert codes == ["unfit-window"]


def test_rle_of_16_bits_with_a_drawing(write_dicom: Write, right: NDArray[np.int64]) -> None:
    values = arm()
    values[5:9, 5:30] |= 1 << 14
    path = write_dicom("q.dcm", values, **FULL)
    ds = pydicom.dcmread(path)
    ds.compress(RLE)
    ds.save_as(path)
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


def test_lookup_tables_that_are_too_large_or_not_whole(write_dicom: Write) -> None:
    long = table(np.zeros(2**16, np.uint16), 16)
    sequence = pydicom.Sequence([long[0]] * 40)
    assert "functional groups that are too large" in refusal(write_dicom("q.dcm", arm(), VOILUTSequence=sequence))
    short = table(np.zeros(9, np.uint16), 16)
    short[0].LUTDescriptor = [99, 0, 16]
    assert "a lookup table is not whole" in refusal(write_dicom("s.dcm", arm(), ModalityLUTSequence=short))


def test_without_a_plugin_the_extra_is_named(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.errors import MissingExtra

    frame = cv2.imencode(".jp2", arm(), LOSSLESS)[1].tobytes()
    path = write_dicom("q.dcm", arm(), syntax=J2K, frames=[frame])
    decoder = type("Decoder", (), {"available_plugins": ()})
    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda _: decoder)
    with pytest.raises(MissingExtra, match=r"mura-search\[dicom\]"):
        read_radiograph(path)


@pytest.mark.parametrize("kind", ["FD", "US"])
def test_numbers_in_binary(write_dicom: Write, right: NDArray[np.int64], kind: str) -> None:
    path = write_dicom("q.dcm", arm(), BitsStored=12)
    ds = pydicom.dcmread(path)
    ds.add_new("WindowCenter", kind, 2048)
    ds.add_new("WindowWidth", kind, 4096)
    ds.save_as(path)
    np.testing.assert_array_equal(read(path)[0], right)


def test_too_large_a_picture_is_shrunk_to_square_pixels(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.images.radiograph.MAX_PIXELS", 120 * 90)
    assert read(write_dicom("q.dcm", arm(), PixelSpacing=[2, 1]))[0].shape == (120, 45)
    assert read(write_dicom("r.dcm", arm(), PixelSpacing=[1, 2]))[0].shape == (60, 90)


def test_a_voi_lut_that_is_not_whole_gives_way_to_a_window(write_dicom: Write, right: NDArray[np.int64]) -> None:
    short = table(np.zeros(9, np.uint16), 16)
    short[0].LUTDescriptor = [99, 0, 16]
    pixels, codes = read(write_dicom("q.dcm", arm(), VOILUTSequence=short, **FULL))
    np.testing.assert_array_equal(pixels, right)
    assert codes == ["invalid-window"]


def test_a_modality_lut_of_one_value_or_none_is_ignored(write_dicom: Write, right: NDArray[np.int64]) -> None:
    for lut, codes in (
        (table(np.full(4096, 7, np.uint16), 16), ["invalid-rescale"]),
        (pydicom.Sequence([pydicom.Dataset()]), []),
    ):
        pixels, found = read(write_dicom("q.dcm", arm(), ModalityLUTSequence=lut, **FULL))
        np.testing.assert_array_equal(pixels, right)
        assert found == codes


@pytest.mark.parametrize(("signed", "padding"), [(False, 65535), (True, -32768)])
def test_padding_that_needs_more_bits_than_are_stored(write_dicom: Write, signed: bool, padding: int) -> None:
    values = (arm().astype(np.int32) - 2048).astype(np.int16) if signed else arm()
    center = 0 if signed else 2048
    header = {"BitsStored": 12, "WindowCenter": center, "WindowWidth": 4096, "PixelPaddingValue": padding}
    plain, none = read(write_dicom("r.dcm", values, **header))
    values[:, :20] = padding
    pixels, codes = read(write_dicom("q.dcm", values, **header))
    np.testing.assert_array_equal(pixels[:, 20:], plain[:, 20:])
    assert not pixels[:, :20].any()
    assert codes == none == []


@pytest.mark.parametrize(("surplus", "codes"), [(b"\0" * 1000, []), (b"\1" * 1000, ["surplus-data"]), (b"\1\1", [])])
def test_more_pixels_than_the_header_tells_of(write_dicom: Write, surplus: bytes, codes: list[str]) -> None:
    path = write_dicom("q.dcm", arm(), **FULL)
    ds = pydicom.dcmread(path)
    ds.PixelData += surplus
    ds.save_as(path)
    assert read(path)[1] == codes


def test_samples_that_contradict_the_photometric_interpretation(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    colour = np.dstack([grey] * 3)
    stream = cv2.imencode(".jpg", grey)[1].tobytes()
    jpeg = {"syntax": "1.2.840.10008.1.2.4.50"}
    for path in (
        write_dicom("a.dcm", grey, PhotometricInterpretation="RGB"),
        write_dicom("b.dcm", colour, PhotometricInterpretation="MONOCHROME2"),
        write_dicom("c.dcm", colour, frames=[stream], **jpeg),
        write_dicom("d.dcm", grey, frames=[cv2.imencode(".jpg", colour)[1].tobytes()], **jpeg),
    ):
        pixels, codes = read(path)
        assert np.abs((pixels if pixels.ndim == 2 else pixels[..., 0]) - grey).mean() < 2
        assert codes == ["contradictory-colours"]
    assert "whether bone is bright" in refusal(write_dicom("e.dcm", grey, PhotometricInterpretation=None))


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


def test_real_numbers_are_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", arm())
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.FloatPixelData = arm().astype(np.float32).tobytes()
    ds.save_as(path)
    assert "real numbers" in refusal(path)


@pytest.mark.parametrize("kind", ["portrait", "landscape", "colour", "rle", "frames"])
def test_exchanged_rows_and_columns(write_dicom: Write, kind: str) -> None:
    """The pixels are read as they lie: a header with rows and columns exchanged would show them sheared."""
    values = (arm() // 16).astype(np.uint8)
    values = np.ascontiguousarray(values.T) if kind == "landscape" else values
    height, width = values.shape
    shown = {"colour": np.dstack([values] * 3), "frames": np.stack([values] * 2)}.get(kind, values)
    path = write_dicom("q.dcm", shown)
    ds = pydicom.dcmread(path)
    if kind == "rle":
        ds.compress(RLE)
    right = read_frames(path)
    ds.Rows, ds.Columns = width, height
    ds.save_as(path)
    wrong = read_frames(path)
    assert [str(notice.code) for notice in right[0].notices] == []
    assert [str(notice.code) for notice in wrong[0].notices] == ["exchanged-size"]
    for one, other in zip(right, wrong, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert read_values(path.read_bytes(), 1, MAX_BYTES, MAX_PIXELS)[0].values.shape == (height, width)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_bytes_in_the_wrong_order(write_dicom: Write, bits: int, signed: bool) -> None:
    rng = np.random.default_rng(5)
    values = arm(2 ** (bits - 1) - 200, 240, 180) + rng.integers(0, 40, (240, 180)).astype(np.uint16)
    kind = np.int16 if signed else np.uint16
    window = {"BitsStored": bits, "WindowCenter": 2 ** (bits - 2), "WindowWidth": 2 ** (bits - 1)}
    right, none = read(write_dicom("right.dcm", values.astype(kind), **window))
    pixels, codes = read(write_dicom("wrong.dcm", values.byteswap().astype(kind), **window))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["contradictory-bits"], [])
    eight = (values >> (bits - 8)).astype(np.uint16)
    for shift in (0, 8):  # one of the two bytes is empty
        assert read(write_dicom("eight.dcm", eight << shift, BitsStored=16))[1] == []


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("pattern", ["grid", "steps", "slope", "noise", "checks"])
def test_pictures_that_are_not_exchanged(write_dicom: Write, pattern: str, turned: bool) -> None:
    y, x = np.mgrid[0:120, 0:90]
    noise = np.random.default_rng(4).integers(0, 9, (120, 90))
    values = {
        "grid": y % 3 * 60,
        "steps": y // 20 * 30,
        "slope": y,
        "noise": 20 * noise,
        "checks": (x // 8 + y // 8) % 2 * 90,
    }
    picture = values[pattern].astype(np.uint8)
    assert read(write_dicom("q.dcm", np.ascontiguousarray(picture.T) if turned else picture))[1] == []


def test_windows_of_functional_groups(write_dicom: Write) -> None:
    """Each frame has its own window; the rescale and the spacing of all frames are in the shared group."""
    values = np.stack([arm(), arm()[::-1]])
    windows = [{"WindowCenter": 2048, "WindowWidth": 4096}, {"WindowCenter": 1800, "WindowWidth": 3000}]
    shared = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    want = [
        read(write_dicom("one.dcm", frame, BitsStored=12, PixelSpacing=[0.2, 0.1], **window, **shared))[0]
        for frame, window in zip(values, windows, strict=True)
    ]
    path = write_dicom("q.dcm", values, BitsStored=12, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.3")
    ds = pydicom.dcmread(path)
    ds.SharedFunctionalGroupsSequence = [
        group(PixelValueTransformationSequence=shared, PixelMeasuresSequence={"PixelSpacing": [0.2, 0.1]})
    ]
    ds.PerFrameFunctionalGroupsSequence = [group(FrameVOILUTSequence=window) for window in windows]
    ds.save_as(path)
    for frame, picture in zip(read_frames(path), want, strict=True):
        np.testing.assert_array_equal(frame.pixels, picture)
        assert frame.notices == ()
    grey, pixels = read_values(path.read_bytes(), 2, MAX_BYTES, MAX_PIXELS)
    np.testing.assert_array_equal(pixels, want[1])
    assert (grey.windows[0].center, grey.windows[0].width, grey.values.shape) == (1800, 3000, want[1].shape)
    ds.WindowCenter, ds.WindowWidth = 2048, 4096  # the header's own counts more
    ds.save_as(path)
    np.testing.assert_array_equal(read_frames(path)[0].pixels, want[0])
    assert not np.array_equal(read_frames(path)[1].pixels, want[1])


def group(**sequences: dict[str, Any]) -> Any:
    """A functional group of sequences of one item each."""
    item = pydicom.Dataset()
    for keyword, elements in sequences.items():
        inner = pydicom.Dataset()
        for name, value in elements.items():
            setattr(inner, name, value)
        setattr(item, keyword, [inner])
    return item


@pytest.mark.parametrize("bits", [8, 9, 10, 11])
def test_values_of_more_bits_in_a_steep_picture(write_dicom: Write, bits: int) -> None:
    """Hard edges are larger than what fewer bits can hold, and the values go on all the same."""
    values = arm(4000, 480, 360)
    values[:, ::60] = 4000
    values[60:64] = 10
    want, _ = read(write_dicom("r.dcm", values, **FULL))
    pixels, codes = read(write_dicom("q.dcm", values, **FULL | {"BitsStored": bits}))
    np.testing.assert_array_equal(pixels, want)
    assert codes == ["values-beyond-bits"]


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_sign_that_the_header_does_not_tell_of(write_dicom: Write, bits: int, compressed: bool) -> None:
    values = (arm(3400, 240, 180).astype(int) - 1500).astype(np.int16)
    right, none = read(write_dicom("right.dcm", values, BitsStored=bits))
    plain = values.view(np.uint16) & np.uint16(2**bits - 1)
    more: dict[str, Any] = {}
    if compressed:
        more = {"syntax": J2K, "frames": [cv2.imencode(".jp2", plain, LOSSLESS)[1].tobytes()]}
    pixels, codes = read(write_dicom("q.dcm", plain, BitsStored=bits, **more))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["contradictory-bits"], [])


@pytest.mark.parametrize("kind", ["frame", "marker", "two values", "noise"])
def test_white_beside_black_is_no_missing_sign(write_dicom: Write, kind: str) -> None:
    rng = np.random.default_rng(3)
    values = arm(1500, 240, 180)
    values[values < 200] = 0
    if kind == "frame":
        values[:12], values[:, -9:] = 4095, 4095
    elif kind == "marker":
        cv2.rectangle(mark := np.zeros(values.shape, np.uint8), (10, 10), (40, 80), 1, 3)
        values[mark > 0] = 4095
    elif kind == "two values":
        values = np.where(values > 500, 4095, 0).astype(np.uint16)
    else:
        values = rng.integers(0, 4096, values.shape).astype(np.uint16)
    _, codes = read(write_dicom("q.dcm", values, **FULL))
    assert "contradictory-bits" not in codes


def test_a_window_of_fewer_bits_for_a_narrow_limb(write_dicom: Write) -> None:
    """The limb is an eighth of the pixels, and all of it white."""
    values = arm(3200, 240, 180) // 20
    values[:, 70:93] = np.linspace(400, 4000, 240, dtype=np.uint16)[:, None]
    _, codes = read(write_dicom("q.dcm", values, BitsStored=12, WindowCenter=128, WindowWidth=256))
    assert codes == ["unfit-window"]
    _, codes = read(write_dicom("r.dcm", values, BitsStored=12, WindowCenter=1900, WindowWidth=3800))
    assert codes == []
