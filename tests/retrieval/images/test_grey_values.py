"""Grey values with all their bits: what a window makes of them is what is read, and what a file says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.grey_values import decode_grey_values, deeper_than_pixels, read_grey_values, shrunk
from retrieval.images.radiograph import decode_radiograph
from retrieval.images.windows import GreyValues, Spacing, Window

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def seen(grey: GreyValues, window: Window) -> NDArray[np.float64]:
    """DICOM's linear window, 0 to 255."""
    output = grey.values * grey.slope + grey.intercept
    y = np.clip((output - (window.center - 0.5)) / (window.width - 1) + 0.5, 0, 1)
    return 255 * np.asarray(1 - y if grey.inverted else y)


@pytest.mark.parametrize(
    "header",
    [
        {"WindowCenter": 2000, "WindowWidth": 1000},
        {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": [1800, 100], "WindowWidth": [3000, 20], "PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 4000},
        {"RescaleSlope": -1, "RescaleIntercept": 4095},
        {"PresentationLUTShape": "INVERSE"},
    ],
)
def test_the_first_window_is_what_the_encoder_sees(dicom_bytes: Callable[..., bytes], header: dict[str, Any]) -> None:
    data = dicom_bytes(RAMP, BitsStored=12, HighBit=11, **header)
    grey = decode_grey_values(data, "q.dcm")
    assert (grey.bits, len(np.unique(grey.values))) == (12, 4096)
    assert np.abs(seen(grey, grey.windows[0]) - decode_radiograph(data, "q.dcm").pixels).max() <= 0.51
    assert [window.name for window in grey.windows[-3:]] == ["bone", "soft tissue", "full range"]


def test_windows_of_the_file_have_numbers_and_no_free_text(dicom_bytes: Callable[..., bytes]) -> None:
    data = dicom_bytes(
        RAMP, BitsStored=12, HighBit=11, WindowCenter=[2000, 60000], WindowWidth=[3000, 2],
        WindowCenterWidthExplanation=["MUELLER", "OTHER"],
    )  # fmt: skip
    names = [window.name for window in decode_grey_values(data, "q.dcm").windows]
    assert names[:2] == ["file's window 1", "file's window 2 (does not fit)"]


@pytest.mark.parametrize(
    ("header", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.2]}, Spacing(0.2)),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, Spacing(0.1, "at the detector")),
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1]}, Spacing(0.1, "at the detector")),
        (
            {"PixelSpacing": [0.1] * 2, "ImagerPixelSpacing": [0.1] * 2, "PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing(0.1),
        ),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, Spacing(0.3, "on the film")),
        ({"PixelSpacing": [0, 0]}, None),
        ({}, None),
    ],
)
def test_where_the_spacing_holds(
    dicom_bytes: Callable[..., bytes], header: dict[str, Any], spacing: Spacing | None
) -> None:
    assert decode_grey_values(dicom_bytes(RAMP, BitsStored=12, HighBit=11, **header), "q.dcm").spacing == spacing


def test_padding_is_dark_and_pixels_become_square(dicom_bytes: Callable[..., bytes]) -> None:
    picture = np.full((20, 40), 1000, np.uint16)
    picture[:, 20:], picture[:, :2] = 2000, 4000
    data = dicom_bytes(picture, BitsStored=12, HighBit=11, PixelPaddingValue=4000, PixelSpacing=[0.4, 0.2])
    grey = decode_grey_values(data, "q.dcm")
    assert grey.values.shape == (40, 40)
    assert grey.spacing == Spacing(0.2)
    output = grey.values * grey.slope + grey.intercept
    assert (output[0, 0], output[0, 10], output[0, 39]) == (1000, 1000, 2000)


def test_a_16_bit_png_keeps_its_values_and_8_bits_are_the_pixels(tmp_path: Path) -> None:
    deep = (RAMP * 16).astype(np.uint16)
    for picture, bits in ((deep, 16), ((RAMP >> 4).astype(np.uint8), 8)):
        file = tmp_path / f"{bits}.png"
        cv2.imwrite(str(file), picture)
        grey = read_grey_values(file, file.name)
        assert grey.bits == bits
        assert (grey.values == picture).all()
        assert deeper_than_pixels(file.read_bytes(), file.name) == (bits == 16)
        assert (
            np.abs(seen(grey, grey.windows[0]) - decode_radiograph(file.read_bytes(), file.name).pixels).max() <= 0.51
        )


def test_a_shrunk_radiograph_has_larger_pixels() -> None:
    grey = shrunk(GreyValues(RAMP, 12, spacing=Spacing(0.1)), 32)
    assert grey.values.shape == (32, 32)
    assert grey.spacing == Spacing(0.2)
