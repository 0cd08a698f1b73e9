"""DICOM radiographs: grey levels and frames, held against pydicom's and highdicom's own ways, and by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402  # only where it is installed

from retrieval.images.radiograph import file_digest, read_frames, read_radiograph  # noqa: E402
from retrieval.query import read_views  # noqa: E402
from tests.dicom_files import BIG, EXPLICIT, FILES, IMPLICIT, highdicoms, real, refusal  # noqa: E402

Write = Callable[..., Path]
CRS = sorted((FILES / "dicomdirtests" / "77654033").glob("CR*/*"))


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
def test_computed_radiographs_with_rescale_and_window(path: Path, tmp_path: Path) -> None:
    """Their own window shows them in 33 to 46 of 256 levels, so it does not count; a narrower one does."""
    radiograph = read_radiograph(path)
    assert [notice.code for notice in radiograph.notices] == ["unfit-window"]
    assert radiograph.pixels.std() > 30
    ds = pydicom.dcmread(path)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 1600, 1200, "LINEAR_EXACT"
    ds.save_as(tmp_path / "q.dcm")
    assert np.abs(read_radiograph(tmp_path / "q.dcm").pixels - highdicoms(tmp_path / "q.dcm")).max() < 0.51


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
    contradicts = (shape, photometric) in (("IDENTITY", "MONOCHROME1"), ("INVERSE", "MONOCHROME2"))
    assert [notice.code for notice in radiograph.notices] == ["contradictory-polarity"] * contradicts


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
    assert radiograph.warnings == ("has an invalid window: its full range is shown",)


def test_each_frame_is_a_view(write_dicom: Write) -> None:
    pixels = np.array([[[0, 255]], [[10, 50]], [[30, 31]]], np.uint8)
    path = write_dicom("run.dcm", pixels)
    frames = read_frames(path)
    assert [frame.pixels.tolist() for frame in frames] == pixels.tolist()
    assert [frame.frame for frame in frames] == [1, 2, 3]
    assert len({frame.digest for frame in frames}) == 3
    second = read_radiograph(path.with_name("run.dcm[2]"))
    assert second.pixels.tolist() == [[10, 50]]
    assert second.digest == frames[1].digest == file_digest(path.with_name("run.dcm[2]"))
    first = read_radiograph(path)
    assert (first.pixels.tolist(), first.digest) == ([[0, 255]], file_digest(path))
    assert first.warnings == ("holds several frames: the first is read",)
    assert refusal(path.with_name("run.dcm[4]")) == "has no frame 4: it has 3"
    views, said = read_views(path)
    assert [view.name for view in views] == [f"{path}[{number}]" for number in (1, 2, 3)]
    assert [(notice.code, notice.view) for notice in said] == [("nearly-blank", f"{path}[3]")]


def test_a_study_folder_of_numbered_files(write_dicom: Write, tmp_path: Path) -> None:
    write_dicom("study/IM0001", np.zeros((4, 4), np.uint8))
    write_dicom("study/1.2.840.7", np.full((4, 4), 9, np.uint8))
    (tmp_path / "study" / "notes.txt").write_text("no radiograph", encoding="utf-8")
    views, _ = read_views(tmp_path / "study")
    assert sorted(int(view.pixels.max()) for view in views) == [0, 9]
