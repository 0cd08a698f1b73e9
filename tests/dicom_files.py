"""DICOM files to read, and what highdicom shows of them."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.radiograph import read_radiograph

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
hd = pytest.importorskip("highdicom", reason="the extra dicom is not installed")

__all__ = [
    "BIG",
    "DEFLATED",
    "EXPLICIT",
    "FILES",
    "FULL",
    "IMPLICIT",
    "J2K",
    "LOSSLESS",
    "RAMP",
    "RLE",
    "arm",
    "as_radiograph",
    "highdicoms",
    "read",
    "real",
    "refusal",
]

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE, J2K = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FULL = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
LOSSLESS = (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def real(name: str) -> Path:
    """A file of the package pydicom-data, the real radiographs RG1 and RG3 among them."""
    store = pytest.importorskip("data_store", reason="the package pydicom-data is not installed")
    return Path(store.__file__).parent / "data" / name


def arm(top: int = 4000, height: int = 120, width: int = 90) -> NDArray[np.uint16]:
    """A smooth picture: dark air, a grey limb, a bright bone, each with a slope, up to `top`."""
    y, x = np.mgrid[0:height, 0:width] / (height - 1)
    limb = np.clip(1.6 - np.abs(x - 0.37) / 0.16, 0, 1) * (0.35 + 0.2 * y)
    bone = np.clip(1.6 - np.abs(x - 0.37) / 0.07, 0, 1) * (0.4 + 0.05 * y)
    picture = 0.03 * (1 + x) + limb + bone
    values: NDArray[np.uint16] = np.rint(picture / picture.max() * top).astype(np.uint16)
    return values


def read(path: Path) -> tuple[NDArray[np.int64], list[str]]:
    """The pixels of a file, and the codes of its notices."""
    radiograph = read_radiograph(path)
    return radiograph.pixels.astype(int), [str(notice.code) for notice in radiograph.notices]


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
