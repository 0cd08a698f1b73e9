"""DICOM radiographs: what is seen, held against pydicom's and highdicom's own ways, and what is refused."""

import contextlib
import io
import logging
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.radiograph import MAX_BYTES, decode_radiograph, file_digest, read_frames, read_radiograph
from retrieval.views import read_views

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
hd = pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402  # only where it is installed

Write = Callable[..., Path]
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CRS = sorted((FILES / "dicomdirtests" / "77654033").glob("CR*/*"))
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def real(name: str) -> Path:
    """A file of the package pydicom-data, the real radiographs RG1 and RG3 among them."""
    store = pytest.importorskip("data_store", reason="the package pydicom-data is not installed")
    return Path(store.__file__).parent / "data" / name


def refusal(path: Path) -> str:
    """The sentence that a file is refused with, less its name."""
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path} ")


def as_radiograph(source: Path, target: Path) -> Path:
    """A test file of another modality made a CR; its pixels stay as they are."""
    ds = pydicom.dcmread(source)
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.save_as(target)
    return target


def highdicoms(path: Path, frame: int = 1) -> NDArray[np.float64]:
    """A frame as highdicom shows it, 0 to 255, colours in BGR."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = hd.Image.from_dataset(pydicom.dcmread(path, force=True))
        shown = image.get_frame(frame, apply_voi_transform=None, voi_output_range=(0, 255), apply_icc_profile=False)
    return np.asarray(shown[..., ::-1] if shown.ndim == 3 else shown, np.float64)


# What is seen


@pytest.mark.parametrize(
    "name", ["RG1_UNCR.dcm", "RG1_J2KI.dcm", "RG3_UNCR.dcm", "RG3_UNCI.dcm", "RG3_J2KR.dcm", "RG3_J2KI.dcm"]
)
def test_real_radiographs_are_seen_as_highdicom_shows_them(name: str) -> None:
    """RG1 is a chest and RG3 an extremity, both MONOCHROME1 with a window."""
    ours = read_radiograph(real(name)).pixels
    assert np.abs(ours - highdicoms(real(name))).max() < 0.51  # rounding
    assert ours.std() > 20


def test_a_real_extremity_is_seen_as_pydicom_shows_it() -> None:
    ds = pydicom.dcmread(real("RG3_UNCR.dcm"))
    seen = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds) / (2**ds.BitsStored - 1)
    assert np.abs(read_radiograph(real("RG3_UNCR.dcm")).pixels - (255 - seen * 255)).max() < 0.51
    ours = read_radiograph(real("RG3_UNCR.dcm")).pixels
    air, bone = ours[700:900, 500:560], ours[700:900, 830:870]
    assert air.max() < 60
    assert bone.min() > 130


@pytest.mark.parametrize("path", CRS, ids=lambda path: path.name)
def test_computed_radiographs_with_rescale_and_window(path: Path) -> None:
    assert np.abs(read_radiograph(path).pixels - highdicoms(path)).max() < 0.51


def test_a_modality_lut() -> None:
    ds = pydicom.dcmread(real("mlut_18.dcm"))
    output = apply_modality_lut(ds.pixel_array, ds).astype(float)  # without a window, from the least to the greatest
    expected = (output - output.min()) / np.ptp(output) * 255
    assert np.abs(read_radiograph(real("mlut_18.dcm")).pixels - expected).max() < 0.51


def test_a_voi_lut() -> None:
    ds = pydicom.dcmread(real("vlut_04.dcm"))
    expected = apply_voi_lut(ds.pixel_array, ds) / 257  # 16 bits
    assert np.abs(read_radiograph(real("vlut_04.dcm")).pixels - expected).max() < 0.51


@st.composite
def greyscales(draw: st.DrawFn) -> dict[str, Any]:
    """Elements of a grey radiograph: bits, sign, rescale, window, photometric interpretation."""
    bits = draw(st.integers(8, 16))
    elements: dict[str, Any] = {
        "BitsStored": bits,
        "PixelRepresentation": draw(st.integers(0, 1)),
        "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
    }
    if draw(st.booleans()):
        elements["PresentationLUTShape"] = (
            "INVERSE" if elements["PhotometricInterpretation"] == "MONOCHROME1" else "IDENTITY"
        )
    elements["RescaleSlope"] = draw(st.sampled_from([None, 0.25, 1, 2, 0.684]))
    elements["RescaleIntercept"] = None if elements["RescaleSlope"] is None else draw(st.integers(-1000, 1000))
    elements["WindowCenter"] = draw(st.integers(-(2 ** (bits - 1)), 2**bits))
    elements["WindowWidth"] = draw(st.integers(2, 2**bits))
    elements["VOILUTFunction"] = draw(st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    return elements


@settings(deadline=None, max_examples=60)
@given(elements=greyscales(), seed=st.integers(0, 999), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_any_greyscale_is_seen_as_pydicom_and_highdicom_show_it(
    tmp_path_factory: pytest.TempPathFactory,
    dicom_bytes: Callable[..., bytes],
    elements: dict[str, Any],
    seed: int,
    syntax: str,
) -> None:
    bits, signed = elements["BitsStored"], elements["PixelRepresentation"]
    low = -(2 ** (bits - 1)) if signed else 0
    pixels = np.random.default_rng(seed).integers(low, low + 2**bits, (9, 7)).astype(np.int16 if signed else np.uint16)
    path = tmp_path_factory.mktemp("greyscale") / "q.dcm"
    path.write_bytes(dicom_bytes(pixels, syntax=syntax, **elements))
    ours = read_radiograph(path).pixels
    ds = pydicom.dcmread(path)
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    least, greatest = (slope * value + intercept for value in (low, low + 2**bits - 1))
    seen = (apply_voi_lut(apply_modality_lut(pixels, ds), ds) - least) / (greatest - least) * 255
    assert np.abs(ours - (255 - seen if ds.PhotometricInterpretation == "MONOCHROME1" else seen)).max() < 0.51
    # highdicom takes the 1 off a LINEAR window's width before the rescale, where the standard takes it off after, and
    # it reads no big endian.
    if slope == 1 or elements["VOILUTFunction"] in ("LINEAR_EXACT", "SIGMOID"):
        little = path.with_name("little.dcm")
        little.write_bytes(dicom_bytes(pixels, **elements))
        assert np.abs(ours - highdicoms(little)).max() < 0.51


def test_a_window_by_hand(write_dicom: Write) -> None:
    """PS3.3, C.11.2.1.2.1: centre 100.5 and width 101 make 50 black, 150 white and 100 grey between them."""
    pixels = np.array([[0, 50, 100, 150, 4095]], np.uint16)
    path = write_dicom("q.dcm", pixels, BitsStored=12, WindowCenter=[100.5, 7], WindowWidth=[101, 9])
    assert read_radiograph(path).pixels.tolist() == [[0, 0, 128, 255, 255]]
    path = write_dicom("q.dcm", pixels, BitsStored=12, WindowCenter=100.5, WindowWidth=101,
                       PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    assert read_radiograph(path).pixels.tolist() == [[255, 255, 127, 0, 0]]


def test_a_falling_rescale_turns_the_picture_once(write_dicom: Write) -> None:
    """Slope -1: the greatest stored value is the least output, and the window makes it black."""
    pixels = np.array([[0, 1000, 4095]], np.uint16)
    path = write_dicom("q.dcm", pixels, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095,
                       WindowCenter=2048, WindowWidth=4096)  # fmt: skip
    assert read_radiograph(path).pixels.tolist() == [[255, 193, 0]]
    assert np.abs(read_radiograph(path).pixels - highdicoms(path)).max() < 0.51


@pytest.mark.parametrize(("shape", "photometric"), [("INVERSE", "MONOCHROME1"), ("INVERSE", "MONOCHROME2"),
                                                    (None, "MONOCHROME1"), ("IDENTITY", "MONOCHROME1")])  # fmt: skip
def test_inverted_once(write_dicom: Write, shape: str | None, photometric: str) -> None:
    pixels = np.array([[0, 1, 255]], np.uint8)
    path = write_dicom("q.dcm", pixels, PresentationLUTShape=shape, PhotometricInterpretation=photometric)
    radiograph = read_radiograph(path)
    assert radiograph.pixels.tolist() == [[255, 254, 0]]
    assert bool(radiograph.warnings) == (shape == "IDENTITY")  # the one that contradicts itself


def test_without_a_window_8_bits_stay_and_more_fill_the_range(write_dicom: Write) -> None:
    dim = np.array([[10, 20, 30]], np.uint8)
    assert read_radiograph(write_dicom("8.dcm", dim)).pixels.tolist() == dim.tolist()
    wide = np.array([[1000, 1100, 1200]], np.uint16)
    assert read_radiograph(write_dicom("16.dcm", wide)).pixels.tolist() == [[0, 128, 255]]
    signed = wide.astype(np.int16) - 1100
    assert read_radiograph(write_dicom("s.dcm", signed)).pixels.tolist() == [[0, 128, 255]]
    flat = np.full((2, 2), 900, np.uint16)
    assert np.ptp(read_radiograph(write_dicom("flat.dcm", flat)).pixels) == 0


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_counts_for_nothing_and_is_black(write_dicom: Write, syntax: str, photometric: str) -> None:
    pixels = np.array([[-2000, 100, 200, 300]], np.int16)
    path = write_dicom("q.dcm", pixels, syntax=syntax, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
    grey = [0, 128, 255] if photometric == "MONOCHROME2" else [255, 127, 0]
    assert read_radiograph(path).pixels.tolist() == [[0, *grey]]
    ranged = write_dicom("r.dcm", pixels, syntax=syntax, PixelPaddingValue=-2000, PixelPaddingRangeLimit=100)
    assert read_radiograph(ranged).pixels.tolist() == [[0, 0, 0, 255]]


def lookup(count: int, first: int, bits: int, data: Any) -> Any:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count % 65536, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return pydicom.Sequence([item])


def test_lookup_tables_by_hand(write_dicom: Write) -> None:
    pixels = np.array([[0, 10, 11, 12, 999]], np.uint16)
    table = lookup(3, 10, 10, [1023, 0, 341])
    path = write_dicom("v.dcm", pixels, VOILUTSequence=table, WindowCenter=500, WindowWidth=3)  # the table comes first
    assert read_radiograph(path).pixels.tolist() == [[255, 255, 0, 85, 85]]
    path = write_dicom("m.dcm", pixels, ModalityLUTSequence=table, WindowCenter=512, WindowWidth=1024)
    assert read_radiograph(path).pixels.tolist() == [[255, 255, 0, 85, 85]]
    signed = np.array([[-5, -4, -3]], np.int16)
    path = write_dicom("s.dcm", signed, VOILUTSequence=lookup(3, -5, 8, [0, 51, 255]))
    assert read_radiograph(path).pixels.tolist() == [[0, 51, 255]]


def test_tables_of_bytes_that_pydicom_goes_astray_on(write_dicom: Write) -> None:
    """8 bits an entry and more than 256 entries, one in a word and two in a word."""
    pixels = np.array([[0, 300, 511]], np.uint16)
    entries = (np.arange(512) // 2).astype(np.uint8)
    for name, data in (("words.dcm", entries.astype("<u2").tobytes()), ("bytes.dcm", entries.tobytes())):
        path = write_dicom(name, pixels, BitsStored=9, VOILUTSequence=lookup(512, 0, 8, data))
        assert read_radiograph(path).pixels.tolist() == [[0, 150, 255]]


@pytest.mark.parametrize(
    "window", [{"WindowWidth": 0}, {"VOILUTFunction": "CURVE"}, {"WindowWidth": 0, "VOILUTFunction": "SIGMOID"}]
)
def test_a_window_that_is_none_is_told(write_dicom: Write, window: dict[str, Any]) -> None:
    wide = np.array([[1000, 1100, 1200]], np.uint16)
    radiograph = read_radiograph(write_dicom("q.dcm", wide, **{"WindowCenter": 5, "WindowWidth": 10} | window))
    assert radiograph.pixels.tolist() == [[0, 128, 255]]
    assert radiograph.warnings == ("has a window that is none: it is shown in its full range",)


# Colour


@pytest.mark.parametrize(
    "name",
    [
        *("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_gdcm_KY.dcm"),
        *("SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm"),
        *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle_2frame.dcm"),
    ],
)
def test_colour_is_what_highdicom_shows(name: str) -> None:
    frames = read_frames(FILES / name)
    assert len(frames) == (2 if "2frame" in name else 1)
    for number, radiograph in enumerate(frames, start=1):
        assert np.array_equal(radiograph.pixels, highdicoms(FILES / name, number))


def test_colour_in_big_endian() -> None:
    big, little = (read_radiograph(FILES / f"SC_rgb_small_odd{end}.dcm").pixels for end in ("_big_endian", ""))
    assert np.array_equal(big, little)


def test_blue_is_blue(write_dicom: Write) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 10, 20, 200  # red, green, blue
    path = write_dicom("q.dcm", pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    assert read_radiograph(path).pixels[0, 0].tolist() == [200, 20, 10]
    deep = pixels.astype(np.uint16) * 257
    assert read_radiograph(write_dicom("d.dcm", deep)).pixels[0, 0].tolist() == [200, 20, 10]


def test_a_palette_without_preamble_or_meta_header() -> None:
    path = real("OT-PAL-8-face.dcm")
    ds = pydicom.dcmread(path, force=True)
    red = np.frombuffer(ds.RedPaletteColorLookupTableData, "<u2")[ds.PixelData[0]]
    assert abs(int(read_radiograph(path).pixels[0, 0, 2]) - red / 257) <= 0.5


# Transfer syntaxes


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("pixels", [RAMP, RAMP.astype(np.int16) - 2048, (RAMP // 16).astype(np.uint8)])
def test_every_uncompressed_syntax_gives_the_same(write_dicom: Write, syntax: str, pixels: NDArray[Any]) -> None:
    window = {"WindowCenter": int(np.median(pixels)), "WindowWidth": int(np.ptp(pixels)), "BitsStored": None}
    window["BitsStored"] = 8 if pixels.dtype == np.uint8 else 12
    there = read_radiograph(write_dicom("q.dcm", pixels, syntax=syntax, **window)).pixels
    assert np.array_equal(there, read_radiograph(write_dicom("e.dcm", pixels, **window)).pixels)
    assert np.abs(there - highdicoms(write_dicom("h.dcm", pixels, **window))).max() < 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rle(write_dicom: Write, dtype: Any) -> None:
    pixels = (RAMP // 16).astype(dtype)
    plain = write_dicom("e.dcm", pixels)
    ds = pydicom.dcmread(plain)
    ds.compress(RLE)
    ds.save_as(plain.with_name("r.dcm"))
    assert np.array_equal(read_radiograph(plain.with_name("r.dcm")).pixels, read_radiograph(plain).pixels)


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "implicit", "padded", "jp2klossless", "jpeg_ls_lossless"])
def test_one_picture_in_many_syntaxes(tmp_path: Path, kind: str) -> None:
    name = f"MR_small_{kind}.dcm"
    there = read_radiograph(as_radiograph(FILES / name, tmp_path / "q.dcm")).pixels
    assert np.array_equal(there, read_radiograph(as_radiograph(FILES / "MR_small.dcm", tmp_path / "e.dcm")).pixels)


@pytest.mark.parametrize(
    "name",
    [
        *("JPGExtended.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"),
        *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "image_dfl.dcm"),
    ],
)
def test_compressed_grey(tmp_path: Path, name: str) -> None:
    """JPEG extended of 12 bits, JPEG 2000, JPEG-LS and deflated, decoded as pydicom does and scaled by hand."""
    path = as_radiograph(FILES / name, tmp_path / "q.dcm")
    ds = pydicom.dcmread(path)
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.save_as(path)
    stored = ds.pixel_array.astype(float)
    low, high = (0, 255) if ds.BitsStored == 8 else (stored.min(), stored.max())
    assert np.abs(read_radiograph(path).pixels - (stored - low) / (high - low) * 255).max() < 0.51


def test_jpeg_lossless_loses_nothing() -> None:
    lossless, plain = (read_radiograph(path) for path in (FILES / "SC_rgb_jpeg_gdcm.dcm", real("SC_rgb.dcm")))
    assert np.array_equal(lossless.pixels, plain.pixels)


def test_a_baseline_jpeg_is_what_opencv_makes_of_it(write_dicom: Write) -> None:
    smooth = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 8), np.uint8), (64, 48))
    frame = cv2.imencode(".jpg", smooth)[1].tobytes()
    path = write_dicom("q.dcm", smooth, syntax="1.2.840.10008.1.2.4.50", frames=[frame])
    assert np.abs(read_radiograph(path).pixels.astype(int) - cv2.imdecode(np.frombuffer(frame, np.uint8), 0)).max() <= 2


def test_without_preamble_by_its_ending(write_dicom: Write) -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        path = write_dicom("q.dcm", RAMP, syntax=syntax, preamble=False, BitsStored=12)
        assert path.read_bytes()[128:132] != b"DICM"
        assert np.array_equal(read_radiograph(path).pixels, read_radiograph(write_dicom("p.dcm", RAMP)).pixels)


# Frames


def test_each_frame_is_a_view(write_dicom: Write) -> None:
    pixels = np.array([[[0, 255]], [[10, 20]], [[30, 40]]], np.uint8)
    path = write_dicom("run.dcm", pixels)
    frames = read_frames(path)
    assert [frame.pixels.tolist() for frame in frames] == pixels.tolist()
    assert [frame.frame for frame in frames] == [1, 2, 3]
    assert len({frame.digest for frame in frames}) == 3
    second = read_radiograph(path.with_name("run.dcm[2]"))
    assert second.pixels.tolist() == [[10, 20]]
    assert second.digest == frames[1].digest == file_digest(path.with_name("run.dcm[2]"))
    first = read_radiograph(path)
    assert (first.pixels.tolist(), first.digest) == ([[0, 255]], file_digest(path))
    assert first.warnings == ("holds several frames: the first is read",)
    assert refusal(path.with_name("run.dcm[4]")) == "has no frame 4: it has 3"
    views, said = read_views(path)
    assert [view.name for view in views] == [f"{path}[{number}]" for number in (1, 2, 3)]
    assert said == []


def test_a_study_folder_of_numbered_files(write_dicom: Write, tmp_path: Path) -> None:
    write_dicom("study/IM0001", np.zeros((4, 4), np.uint8))
    write_dicom("study/1.2.840.7", np.full((4, 4), 9, np.uint8))
    (tmp_path / "study" / "notes.txt").write_text("no radiograph", encoding="utf-8")
    views, _ = read_views(tmp_path / "study")
    assert sorted(int(view.pixels.max()) for view in views) == [0, 9]


# What is refused


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CT_small.dcm", "is DICOM, but no radiograph (CT Image Storage): CR, DX and secondary capture are read"),
        ("test-SR.dcm", "no radiograph (Comprehensive SR Storage)"),
        ("rtplan.dcm", "no radiograph (RT Plan Storage)"),
        ("dicomdirtests/DICOMDIR", "is a DICOMDIR"),
        ("JPEG-lossy.dcm", "is a secondary capture of NM, not of a radiograph"),
        ("SC_rgb_rle_32bit.dcm", "stores 32 of 32 bits a sample; up to 16 are read"),
    ],
)
def test_what_is_no_radiograph_is_told_what_it_is(name: str, says: str) -> None:
    assert says in refusal(FILES / name)


def test_more_that_is_no_radiograph(write_dicom: Write, tmp_path: Path) -> None:
    def refused(**elements: Any) -> str:
        return refusal(write_dicom("q.dcm", RAMP, **elements))

    assert "Encapsulated PDF Storage" in refused(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert "(private or unknown)" in refused(SOPClassUID="1.2.3.4.5.6.7")
    assert "of another modality" in refused(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="SMITH")
    assert "does not say what it is" in refused(SOPClassUID=None, Modality="CT")
    assert "MPEG2" in refused(syntax="1.2.840.10008.1.2.4.100", frames=[b"1234"])
    assert "a private or unknown transfer syntax" in refused(syntax="1.2.3.4.5", frames=[b"1234"])
    assert "photometric interpretation" in refused(PhotometricInterpretation="HSV")
    assert "samples a pixel do not fit" in refused(SamplesPerPixel=3)
    assert "cannot be decoded" in refusal(as_radiograph(FILES / "JPEG-lossy.dcm", tmp_path / "l.dcm"))  # not conformant
    assert refused(Rows=0) == "holds no picture"
    assert refused(NumberOfFrames=10**6).startswith("has 64 x 64 pixels in each of 1,000,000 frames, more than")
    assert read_radiograph(write_dicom("q.dcm", RAMP, SOPClassUID=None)).pixels.size == RAMP.size  # CR all the same


def test_a_picture_of_another_size_than_announced_is_not_decoded(write_dicom: Write) -> None:
    """A JPEG 2000 of a few bytes may announce gigabytes."""
    huge = bytearray(cv2.imencode(".jp2", np.zeros((64, 64), np.uint8))[1].tobytes())
    at = huge.find(b"\xff\x4f\xff\x51")
    huge[at + 8 : at + 16] = (60_000).to_bytes(4, "big") * 2
    path = write_dicom("q.dcm", RAMP.astype(np.uint8), syntax="1.2.840.10008.1.2.4.91", frames=[bytes(huge)])
    assert refusal(path) == "is damaged: its compressed picture is of another size than its header says"


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom("q.dcm", np.zeros((2000, 2000), np.uint8), syntax=DEFLATED)
    assert path.stat().st_size < 20_000
    assert MAX_BYTES > 2**20
    monkeypatch.setattr("retrieval.radiograph.MAX_BYTES", 2**20)
    assert "unpacks to more than the 1 MiB that are read" in refusal(path)


@pytest.mark.parametrize("source", ["e.dcm", "r.dcm", "d.dcm", "MR_small_jp2klossless.dcm", "JPGExtended.dcm",
                                    "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm"])  # fmt: skip
def test_cut_anywhere_it_is_whole_or_refused(write_dicom: Write, tmp_path: Path, source: str) -> None:
    small = (RAMP[:16, :16] // 16).astype(np.uint8)
    path = write_dicom("e.dcm", small, syntax=DEFLATED if source == "d.dcm" else EXPLICIT)
    if source == "r.dcm":
        ds = pydicom.dcmread(path)
        ds.compress(RLE)
        ds.save_as(path)
    elif source.endswith(".dcm") and len(source) > 5:
        path = as_radiograph(FILES / source, tmp_path / "s.dcm")
    data = path.read_bytes()
    whole = read_radiograph(path).pixels
    cuts = sorted(random.Random(5).sample(range(1, len(data)), min(150, len(data) - 1)))
    for cut in cuts:
        with contextlib.suppress(RadiographError):
            assert np.array_equal(decode_radiograph(data[:cut], "q.dcm").pixels, whole), cut


def test_nothing_is_said_besides(
    write_dicom: Write, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom warns, logs and raises with values of the header; nobody hears of them, but of the place."""
    caplog.set_level(logging.DEBUG)
    mark = "SMITH^JOHN"
    odd = write_dicom("q.dcm", RAMP, WindowCenter=5, WindowWidth=10, BitsStored=12)
    ds = pydicom.dcmread(odd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in ("Rows", "BodyPartExamined", "ViewPosition", "RescaleSlope", "NumberOfFrames", "WindowCenter"):
            changed = pydicom.dcmread(odd)
            element = pydicom.DataElement(pydicom.tag.Tag(keyword), "LO", mark, already_converted=True)
            changed[keyword] = element
            file = io.BytesIO()
            changed.save_as(file, enforce_file_format=False)
            odd.with_name(f"{keyword}.dcm").write_bytes(file.getvalue())
    assert ds.Rows == 64
    heard, refused = "", 0
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for file_ in sorted(odd.parent.glob("*.dcm")):
            try:
                heard += repr(read_radiograph(file_))
            except RadiographError as error:
                heard += str(error)
                refused += 1
    captured = capfd.readouterr()
    for text in (captured.out, captured.err, caplog.text, heard):
        assert "SMITH" not in text
    assert refused >= 3
    assert {record.name for record in caplog.records} == {"mura-search"}
    assert all(re.fullmatch(r"\w+ in \w+:\d+( > [\w<>]+:\d+)*", record.message) for record in caplog.records)


def test_pydicom_is_not_imported_for_other_files(tmp_path: Path) -> None:
    path = tmp_path / "q.png"
    assert cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))
    script = (
        "import sys; from pathlib import Path; from retrieval.views import read_views\n"
        f"read_views(Path({str(path)!r})); read_views(Path({str(tmp_path)!r}))\n"
        "print('pydicom' in sys.modules, 'platformdirs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "False False\n"


@pytest.mark.slow
def test_mutated_files_are_read_or_refused() -> None:
    """A few hundred of the benchmark's mutants: no crash, no hang, no memory beyond bounds, no other error."""
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz_dicom.py"
    command = [sys.executable, str(script), "--mutants", "600", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, cwd=script.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 faults in " in done.stdout
    assert "read " in done.stdout.splitlines()[-2]


def test_the_docs_list_the_syntaxes_that_are_read() -> None:
    from retrieval.dicomheader import SYNTAXES

    text = (Path(__file__).parents[2] / "docs" / "dicom.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "1.2.840.10008.1.2" in line]
    listed = {row[1]: row[0].removeprefix("| ") for row in rows if len(row) == 3}
    assert listed == SYNTAXES
