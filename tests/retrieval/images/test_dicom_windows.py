"""Windows, lookup tables and rescaling of DICOM that do not fit the values, or are no numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")
from retrieval.images.dicom_reader import read_values  # noqa: E402
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, read_frames, read_radiograph  # noqa: E402
from tests.dicom_files import FULL, arm, read, refusal  # noqa: E402

Write = Callable[..., Path]


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


def test_lookup_tables_that_are_too_large_or_not_whole(write_dicom: Write) -> None:
    long = table(np.zeros(2**16, np.uint16), 16)
    sequence = pydicom.Sequence([long[0]] * 40)
    assert "functional groups that are too large" in refusal(write_dicom("q.dcm", arm(), VOILUTSequence=sequence))
    short = table(np.zeros(9, np.uint16), 16)
    short[0].LUTDescriptor = [99, 0, 16]
    assert "a lookup table is incomplete" in refusal(write_dicom("s.dcm", arm(), ModalityLUTSequence=short))


@pytest.mark.parametrize("kind", ["FD", "US"])
def test_numbers_in_binary(write_dicom: Write, right: NDArray[np.int64], kind: str) -> None:
    path = write_dicom("q.dcm", arm(), BitsStored=12)
    ds = pydicom.dcmread(path)
    ds.add_new("WindowCenter", kind, 2048)
    ds.add_new("WindowWidth", kind, 4096)
    ds.save_as(path)
    np.testing.assert_array_equal(read(path)[0], right)


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


def test_a_window_of_fewer_bits_for_a_narrow_limb(write_dicom: Write) -> None:
    """The limb is an eighth of the pixels, and all of it white."""
    values = arm(3200, 240, 180) // 20
    values[:, 70:93] = np.linspace(400, 4000, 240, dtype=np.uint16)[:, None]
    _, codes = read(write_dicom("q.dcm", values, BitsStored=12, WindowCenter=128, WindowWidth=256))
    assert codes == ["unfit-window"]
    _, codes = read(write_dicom("r.dcm", values, BitsStored=12, WindowCenter=1900, WindowWidth=3800))
    assert codes == []


@pytest.mark.parametrize(("slope", "intercept"), [(1e308, 1e308), (1e29, 0), (1, -1e31)])
def test_a_rescale_to_numbers_beyond_all_measure_is_ignored(write_dicom: Write, slope: float, intercept: float) -> None:
    right, _ = read(write_dicom("right.dcm", arm()))
    path = write_dicom("wrong.dcm", arm(), RescaleSlope=slope, RescaleIntercept=intercept)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels, right)
    assert codes == ["invalid-rescale"]
