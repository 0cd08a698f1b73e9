"""The part of a DICOM header that a radiograph needs, from pydicom's Dataset, without an import of pydicom.

No text of a header leaves this module except identifiers, which the caller hashes, and words of fixed tables.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retrieval.images.body_part import body_part, laterality, projection
from retrieval.notices import Code, Notice

__all__ = [
    "COLOUR",
    "GREY",
    "GROUPS",
    "OVERLAY_BITS",
    "OWN_MODEL_NAME",
    "PALETTE",
    "RADIOGRAPH_CLASSES",
    "SYNTAXES",
    "DicomError",
    "DicomLayout",
    "DicomRecord",
    "NoRadiograph",
    "frame_groups",
    "header_notices",
    "layout_of",
    "numbers",
    "record_of",
    "registered_name",
    "require_radiograph",
    "sample",
    "text",
]

_RADIOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # and for processing
}
_DICOMDIR = "1.2.840.10008.1.3.10"
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_CAPTURES = {
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.2",  # multi-frame, grayscale byte
    "1.2.840.10008.5.1.4.1.1.7.3",  # grayscale word
    "1.2.840.10008.5.1.4.1.1.7.4",  # true colour
}
RADIOGRAPH_CLASSES = frozenset(_RADIOGRAPHS | _CAPTURES)
"""The SOP classes whose instances may be radiographs; secondary captures may be of anything."""

_RADIOGRAPHY = {"CR", "DX", "RG", "DR", "RX", "XR"}  # the last three are no defined terms, but in use
_CAPTURED = {"", "OT", "SC"} | _RADIOGRAPHY
_OTHERS = {"CT", "ES", "IO", "MG", "MR", "NM", "OP", "PT", "PX", "RF", "SM", "SR", "US", "XA", "XC"}

OWN_MODEL_NAME = "mura-search"
"""The Manufacturer's Model Name of what this tool itself puts into an archive."""

SYNTAXES = {
    "1.2.840.10008.1.2": "implicit VR little endian",
    "1.2.840.10008.1.2.1": "explicit VR little endian",
    "1.2.840.10008.1.2.1.99": "deflated explicit VR little endian",
    "1.2.840.10008.1.2.2": "explicit VR big endian",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first-order prediction",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "high-throughput JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.202": "high-throughput JPEG 2000 lossless, with resolutions",
    "1.2.840.10008.1.2.4.203": "high-throughput JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE lossless",
}
"""The transfer syntaxes that are read, by UID."""

_BINARY_NUMBERS = {"FD", "FL", "SL", "SS", "UL", "US"}
OVERLAY_BITS = [0x60000102 + (group << 16) for group in range(0, 0x20, 2)]
"""The tags of Overlay Bit Position."""

GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_GROUPED = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "PixelMeasuresSequence": ("PixelSpacing",),
}

GREY = {"MONOCHROME1", "MONOCHROME2"}
COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
PALETTE = "PALETTE COLOR"


class DicomError(ValueError):
    """Bytes that give no radiograph; `str(error)` completes "q.dcm ..." and holds no text of the header."""


class NoRadiograph(DicomError):
    """DICOM of another kind. `kind` is the standard's name for it."""

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class DicomRecord:
    """The header of a radiograph. Identifiers are as the header has them, "" where they are missing."""

    image: str = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    accession: str = field(repr=False)
    patient: str = field(repr=False)
    part: str
    view: str
    laterality: str
    frames: int
    burnt_in: bool


@dataclass(frozen=True, slots=True)
class DicomLayout:
    """How pixels are stored. `overlay_bits` are those that hold a drawing (PS3.3, C.9.2)."""

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    overlay_bits: tuple[int, ...] = ()


def record_of(ds: Any, most_samples: int) -> DicomRecord:
    """The record of a radiograph's header. Raises DicomError where there is no picture, or it is too large."""
    frames = _frames(ds)
    _require_size(_whole(ds, "Rows"), _whole(ds, "Columns"), _whole(ds, "SamplesPerPixel", 1), frames, most_samples)
    return DicomRecord(
        image=text(ds, "SOPInstanceUID"),
        study=text(ds, "StudyInstanceUID"),
        series=text(ds, "SeriesInstanceUID"),
        accession=text(ds, "AccessionNumber"),
        patient=text(ds, "PatientID"),
        part=body_part(text(ds, "BodyPartExamined")),
        view=projection(text(ds, "ViewPosition")),
        laterality=laterality(text(ds, "ImageLaterality") or text(ds, "Laterality")),
        frames=frames,
        burnt_in=text(ds, "BurnedInAnnotation").upper() == "YES",
    )


def require_radiograph(ds: Any) -> None:
    """Raise NoRadiograph, with what it is, for everything but CR, DX and secondary captures of them."""
    kind, modality = text(ds, "SOPClassUID"), text(ds, "Modality").upper()
    if text(getattr(ds, "file_meta", {}), "MediaStorageSOPClassUID") == _DICOMDIR:
        raise NoRadiograph("is a DICOMDIR, a list of other files; name one of them, or index its folder", "DICOMDIR")
    if kind in _RADIOGRAPHS or (not kind and modality in _RADIOGRAPHY):
        return
    if kind in _CAPTURES:
        if text(ds, "ManufacturerModelName") == OWN_MODEL_NAME:  # the overlay would be read as another view
            raise NoRadiograph("is a heatmap that this tool made, not a radiograph", "heatmap of mura-search")
        if modality in _CAPTURED:
            return
        source = modality if modality in _OTHERS else "another modality"
        raise NoRadiograph(f"is a secondary capture of {source}, not of a radiograph", f"capture of {source}")
    if not kind:
        raise DicomError("does not say what it is: no SOP class; export it again as CR, DX or secondary capture")
    name = registered_name(ds.SOPClassUID, "private or unknown")
    raise NoRadiograph(f"is DICOM, but not a radiograph ({name}): only CR, DX and secondary capture are read", name)


def registered_name(uid: Any, otherwise: str) -> str:
    """The standard's name of a UID; `otherwise` for an unknown one, which may be any text."""
    name = str(getattr(uid, "name", uid))
    return otherwise if name == str(uid) else name


def _require_size(rows: int, columns: int, samples: int, frames: int, most: int) -> None:
    if min(rows, columns, samples, frames) < 1:
        raise DicomError("holds no picture")
    if rows * columns * samples * frames > most:
        size = f"{columns:,} x {rows:,} pixels" + (f" in each of {frames:,} frames" if frames > 1 else "")
        raise DicomError(f"has {size}, more than {most:,} in all; export it smaller")


def layout_of(ds: Any, most_samples: int) -> DicomLayout:
    """How the pixels are stored. Raises DicomError for a way that is not read."""
    allocated = _whole(ds, "BitsAllocated")
    stored = _whole(ds, "BitsStored") or _whole(ds, "HighBit", allocated - 1) + 1
    layout = DicomLayout(
        rows=_whole(ds, "Rows"),
        columns=_whole(ds, "Columns"),
        samples=_whole(ds, "SamplesPerPixel", 1),
        frames=_frames(ds),
        allocated=allocated,
        stored=stored,
        high=_whole(ds, "HighBit", stored - 1),
        signed=_whole(ds, "PixelRepresentation") == 1,
        photometric=text(ds, "PhotometricInterpretation").upper(),
        overlay_bits=tuple(int(ds[tag].value or 0) for tag in OVERLAY_BITS if tag in ds),
    )
    _require_size(layout.rows, layout.columns, layout.samples, layout.frames, most_samples)
    if not ds.get("PixelData"):
        real = any(keyword in ds for keyword in ("FloatPixelData", "DoubleFloatPixelData"))
        numbers = "stores its pixels as real numbers, which are not supported; export it with 16 bits"
        raise DicomError(numbers if real else "holds no picture")
    if layout.allocated not in (8, 16) or not 2 <= layout.stored <= layout.allocated:
        bits = f"stores {layout.stored} of {layout.allocated} bits per sample"
        raise DicomError(f"{bits}; 2 to 8 of 8 and 2 to 16 of 16 are supported: export it with 16")
    return replace(layout, photometric=_photometric(layout))


def _photometric(layout: DicomLayout) -> str:
    """The photometric interpretation; that of the samples where it is one of other samples. Raises DicomError."""
    if not layout.photometric:
        raise DicomError("does not say whether bone is bright: no photometric interpretation; export it as MONOCHROME2")
    if layout.photometric not in GREY | COLOUR | {PALETTE}:
        raise DicomError("has a photometric interpretation that is not supported; export it as MONOCHROME2")
    if layout.samples == 3 and layout.photometric == "MONOCHROME2":
        return "RGB"
    if layout.samples == 1 and layout.photometric in COLOUR:
        return "MONOCHROME2"
    if layout.samples != (3 if layout.photometric in COLOUR else 1):
        raise DicomError("is damaged: its samples per pixel do not fit its photometric interpretation")
    return layout.photometric


def header_notices(ds: Any, layout: DicomLayout) -> list[Notice]:
    """What the header says that casts doubt on the picture, or that a reader has to know."""
    codes = []
    if text(ds, "SOPClassUID") == _FOR_PROCESSING:
        codes.append(Code.FOR_PROCESSING)
    if layout.photometric != text(ds, "PhotometricInterpretation").upper():
        codes.append(Code.CONTRADICTORY_COLOURS)
    surplus = _surplus(ds, layout)
    if len(surplus) >= layout.columns and any(surplus):
        codes.append(Code.SURPLUS_DATA)
    shape = {"MONOCHROME1": "IDENTITY", "MONOCHROME2": "INVERSE"}.get(layout.photometric)
    if shape and text(ds, "PresentationLUTShape").upper() == shape:
        codes.append(Code.CONTRADICTORY_POLARITY)
    if text(ds, "BurnedInAnnotation").upper() == "YES":
        codes.append(Code.BURNED_IN_TEXT)
    return [Notice(code) for code in codes]


def _surplus(ds: Any, layout: DicomLayout) -> bytes:
    """The bytes of uncompressed pixels beyond those that the header declares."""
    if ds["PixelData"].is_undefined_length:
        return b""
    samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples
    size = layout.rows * layout.columns * layout.frames * samples * layout.allocated // 8
    return bytes(ds.PixelData[size:])


@contextmanager
def frame_groups(ds: Any, index: int) -> Iterator[None]:
    """Within it, the header has the window, rescale and spacing of one frame, counted from 0 (PS3.3, C.7.6.16).

    A header of several frames may have them in functional groups, of each frame or of all. Its own elements stay.
    """
    shared, each = (ds.get(keyword) or [] for keyword in GROUPS)
    borrowed = []
    for group in (*each[index : index + 1], *shared[:1]):
        for sequence, keywords in _GROUPED.items():
            for item in (group.get(sequence) or [])[:1]:
                taken = [keyword for keyword in keywords if keyword in item and keyword not in ds]
                borrowed += taken
                for keyword in taken:
                    ds[keyword] = item.get_item(keyword)
    try:
        yield
    finally:
        for keyword in borrowed:
            del ds[keyword]


def text(ds: Any, keyword: str) -> str:
    """An element's value as text, "" where it is missing."""
    value = ds.get(keyword)
    return "" if value is None else str(value).strip().strip("\0")


def numbers(ds: Any, keyword: str) -> list[float | None]:
    """An element's values, [] where it is missing or empty, None for each that is not a finite number.

    The text is read here, since a decimal comma or an empty value makes pydicom refuse the whole element.
    """
    if keyword not in ds:
        return []
    value = ds.get_item(keyword).value
    if isinstance(value, bytes) and ds.get_item(keyword).VR in _BINARY_NUMBERS:
        value = ds[keyword].value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    elif isinstance(value, str) or not isinstance(value, Sequence):
        value = ["" if value is None else value]
    parts = [str(part).strip(" \0").replace(",", ".") for part in value]
    return [_number(part) for part in parts] if any(parts) else []


def _number(part: str) -> float | None:
    try:
        number = float(part)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(ds: Any, keyword: str, default: int = 0) -> int:
    value = ds.get(keyword)
    return default if value is None or value == "" else int(value)


def _frames(ds: Any) -> int:
    return _whole(ds, "NumberOfFrames", 1) or 1


def sample(ds: Any, keyword: str, order: str, signed: bool) -> int | None:
    """An element in stored values; its VR is US or SS as the pixels are, and implicit VR leaves it as bytes."""
    value = ds.get(keyword)
    if value is None or not str(value):
        return None
    if isinstance(value, bytes):
        return int(np.frombuffer(value[:2], f"{order}{'i' if signed else 'u'}2")[0]) if len(value) >= 2 else None
    number = int(value)
    if signed:
        return number - 2**16 if number >= 2**15 else number
    return number % 2**16
