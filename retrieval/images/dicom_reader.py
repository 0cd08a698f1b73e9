"""DICOM radiographs, from bytes to grey levels as a radiologist sees them. Only this file reads with pydicom.

pydicom parses and decodes, with pylibjpeg's plugins for compressed frames. It puts values of the header into warnings,
logs and errors; `dicom_silence.py` keeps them in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO, cast
from zlib import MAX_WBITS, decompressobj

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MissingExtra
from retrieval.images.codestream import MOST_SCANS, read_codestream, rle_fits
from retrieval.images.dicom_header import (
    COLOUR,
    GREY,
    GROUPS,
    OVERLAY_BITS,
    SYNTAXES,
    DicomError,
    DicomLayout,
    DicomRecord,
    frame_groups,
    header_notices,
    layout_of,
    record_of,
    registered_name,
    require_radiograph,
    text,
)
from retrieval.images.dicom_pixels import (
    colours,
    grey_levels,
    grey_values,
    spacing_of,
    squared,
)
from retrieval.images.dicom_silence import as_sentence, be_silent
from retrieval.images.stored_values import (
    byte_swapped,
    padded_beyond,
    read_in_planes,
    size_by_pixels,
    without_unused_bits,
    zeros_at_the_end,
)
from retrieval.images.windows import GreyValues, Window
from retrieval.notices import Code, Notice

try:
    import pydicom
    from pydicom import filereader, pixels
    from pydicom.encaps import encapsulate, generate_fragments, get_frame
    from pydicom.uid import UID
except ImportError as error:
    raise MissingExtra(error.name or "pydicom", "dicom") from error

__all__ = [
    "DicomPicture",
    "listed_files",
    "memory_to_decode",
    "read_elements",
    "read_picture",
    "read_record",
    "read_values",
]

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_DEFLATED, _RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_IDENTIFYING = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID",
    "Modality", "ManufacturerModelName", "BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality",
    "BurnedInAnnotation", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
]  # fmt: skip
_PALETTE = [
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_PICTURE: list[str | int] = [
    *_IDENTIFYING, *_PALETTE, *OVERLAY_BITS, *GROUPS,
    "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "FloatPixelData", "DoubleFloatPixelData",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence",
    "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PresentationLUTShape", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio",
    "PixelSpacingCalibrationType",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
]  # fmt: skip


_MOST_READS = 200_000  # of a file's header; real ones take a few thousand
_MOST_TABLES = 2**22  # bytes
_PHOTOMETRIC = {1: "MONOCHROME2", 3: "RGB"}  # by samples, of a frame that has others than its header says
_MOST_MISSING = 0.25  # of a picture's rows
_DECODING, _PREPARING = 12, 5  # bytes a sample: JPEG 2000 takes most; contrast enhancement in another colour space


@dataclass(frozen=True, slots=True)
class DicomPicture:
    """The frames that were asked for, each (H, W) grey or (H, W, 3) BGR, uint8, of `count` in the file."""

    frames: tuple[NDArray[np.uint8], ...]
    count: int
    patient: str = field(repr=False)
    notices: tuple[Notice, ...] = ()
    study: str = field(default="", repr=False)


def read_record(file: BinaryIO, most_bytes: int, most_samples: int) -> DicomRecord:
    """The header of a radiograph, without its pixels. Raises DicomError as `read_picture` does."""
    with as_sentence("has a header that cannot be read; export it again"):
        ds = _dataset(file, _IDENTIFYING, most_bytes, pixels_too=False)
        require_radiograph(ds)
        return record_of(ds, most_samples)


def read_elements(file: BinaryIO, keywords: tuple[str, ...], most_bytes: int) -> Any:
    """Some elements of a radiograph's header, as pydicom's Dataset. Raises DicomError as `read_record` does."""
    with as_sentence("has a header that cannot be read; export it again"):
        ds = _dataset(file, [*_IDENTIFYING, *keywords], most_bytes, pixels_too=False)
        require_radiograph(ds)
        return ds


def read_picture(
    data: bytes, frame: int | None, most_bytes: int, most_samples: int, most_frames: int | None = None
) -> DicomPicture:
    """Decode one frame, counted from 1, or all of them.

    Grey: Modality LUT or rescale, then the VOI LUT, or the first window where there is none, then inverted where the
    file is MONOCHROME1 or its Presentation LUT Shape is INVERSE. The least output of the window or the VOI LUT becomes
    0 and the greatest 255, rounded. Without either, 8 bits or fewer stay as they are, and more are scaled from the
    least to the greatest value of the frame. Pixel padding does not count there and is black. Colour becomes BGR.

    Raises DicomError for what is not a radiograph, is stored in a way that is not supported, is damaged or not whole,
    unpacks to more than `most_bytes`, has more than `most_samples` samples in all its frames, or, where all are asked
    for, more than `most_frames` frames.
    """
    with as_sentence("has a header that cannot be read; export it again"):
        ds = _dataset(BytesIO(data), _PICTURE, most_bytes, pixels_too=True)
        require_radiograph(ds)
        syntax = _syntax(ds)
        layout = layout_of(ds, most_samples)
        notices, patient = header_notices(ds, layout), text(ds, "PatientID")
    if frame is not None and frame > layout.frames:
        raise DicomError(f"has no frame {frame}: it has {layout.frames}")
    if frame is None and most_frames is not None and layout.frames > most_frames:
        raise DicomError(
            f"has {layout.frames:,} frames, more than the {most_frames:,} views of one study; export fewer"
        )
    pictures, fragments = [], list[bytes]()
    for index in range(layout.frames) if frame is None else [frame - 1]:
        with as_sentence("is damaged or incomplete: its picture cannot be decoded; copy or export it again"):
            if not fragments and syntax not in _NATIVE:
                fragments = list(generate_fragments(ds.PixelData))[1:]  # the first one is the offset table
            stored, decoded, repaired = _decoded(ds, fragments, syntax, layout, index)
        explained = as_sentence("has grey levels or colours that its header does not explain; export it again")
        with explained, frame_groups(ds, index):
            if decoded.photometric in GREY:
                picture, doubts = _grey(stored, ds, decoded)
            else:
                picture, doubts = colours(stored, ds, decoded, pixels)
            if decoded.samples != layout.samples:
                doubts = [Notice(Code.CONTRADICTORY_COLOURS), *doubts]
            notices += [doubt for doubt in dict.fromkeys(repaired + doubts) if doubt not in notices]
            pictures.append(np.ascontiguousarray(squared(picture, ds, most_samples)))
    return DicomPicture(tuple(pictures), layout.frames, patient, tuple(notices), text(ds, "StudyInstanceUID"))


def _grey(stored: NDArray[Any], ds: Any, layout: DicomLayout) -> tuple[NDArray[np.uint8], list[Notice]]:
    stored, padding = _without_padding(stored, ds, layout)
    values, used, bits = without_unused_bits(stored, layout)
    picture, doubts = grey_levels(values, ds, used)
    if padding is not None:
        picture[padding] = 0
    return picture, bits + doubts


def _without_padding(
    stored: NDArray[Any], ds: Any, layout: DicomLayout
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The values with the darkest one in place of padding that needs more bits than are stored; where that is."""
    padding = padded_beyond(stored, ds, layout)
    if padding is None:
        return stored, None
    others = stored[~padding]
    return np.where(padding, others.max() if layout.photometric == "MONOCHROME1" else others.min(), stored), padding


def read_values(data: bytes, frame: int, most_bytes: int, most_samples: int) -> tuple[GreyValues, NDArray[np.uint8]]:
    """The values (H, W) of one frame, counted from 1, with all their bits, and what `read_picture` makes of it.

    Raises DicomError as `read_picture` does.
    """
    pixels8 = read_picture(data, frame, most_bytes, most_samples).frames[0]
    with as_sentence("has grey levels or colours that its header does not explain; export it again"):
        ds = _dataset(BytesIO(data), _PICTURE, most_bytes, pixels_too=True)
        layout, syntax, record = layout_of(ds, most_samples), _syntax(ds), record_of(ds, most_samples)
        if layout.photometric in GREY:
            fragments = [] if syntax in _NATIVE else list(generate_fragments(ds.PixelData))[1:]
            stored, decoded, _ = _decoded(ds, fragments, syntax, layout, frame - 1)
            values, used, _ = without_unused_bits(_without_padding(stored, ds, decoded)[0], decoded)
            with frame_groups(ds, frame - 1):
                grey = grey_values(values, ds, used)
                grey = replace(grey, values=np.ascontiguousarray(squared(grey.values, ds, most_samples)))
        else:
            colour = cv2.cvtColor(pixels8, cv2.COLOR_BGR2GRAY) if pixels8.ndim == 3 else pixels8
            grey = GreyValues(np.asarray(colour), 8, windows=(Window("as read", 128.0, 256.0),), colour=True)
        with frame_groups(ds, frame - 1):
            spacing = spacing_of(ds, (layout.rows, layout.columns), most_samples)
    part, view, laterality = record.part, record.view, record.laterality
    return replace(grey, spacing=spacing, part=part, view=view, laterality=laterality), pixels8


def memory_to_decode(data: bytes, most_bytes: int, most_samples: int) -> int:
    """An upper bound of the bytes that decoding the largest frame takes at any time, with the pixels of the others.

    Raises DicomError as `read_picture` does.
    """
    with as_sentence("has a header that cannot be read; export it again"):
        ds = _dataset(BytesIO(data), _PICTURE, most_bytes, pixels_too=True)
        require_radiograph(ds)
        layout = layout_of(ds, most_samples)
    samples = layout.samples
    if samples == layout.frames == 1 and ds["PixelData"].is_undefined_length:
        stream = read_codestream(next(islice(generate_fragments(ds.PixelData), 1, None), b""))
        samples = stream.components if stream and stream.components in _PHOTOMETRIC else samples
    frame, colour = layout.rows * layout.columns, 1 if samples == 1 and layout.photometric in GREY else 3
    return len(data) + frame * (_DECODING * samples + _PREPARING * colour) + frame * colour * layout.frames


def listed_files(file: BinaryIO, most_bytes: int) -> list[tuple[str, ...]]:
    """The files that a DICOMDIR lists, each as folders and name (PS3.3, F.3.2.2). Raises DicomError."""
    with as_sentence("is not a readable DICOMDIR"):
        ds = _dataset(file, ("DirectoryRecordSequence",), most_bytes, pixels_too=False, most_reads=100 * _MOST_READS)
        named = [record.get("ReferencedFileID") for record in ds.get("DirectoryRecordSequence") or []]
        return [(name,) if isinstance(name, str) else tuple(map(str, name)) for name in named if name]


def _dataset(
    file: BinaryIO, keywords: Sequence[str | int], most_bytes: int, *, pixels_too: bool, most_reads: int = _MOST_READS
) -> Any:
    """Some elements of a file with or without preamble. Raises DicomError where it has absurdly many."""
    be_silent()
    if file.read(4) == b"DICM":  # without the 128 bytes before
        file = BytesIO(bytes(128) + b"DICM" + file.read(most_bytes))
    file.seek(0)
    file = cast(BinaryIO, _Bounded(file, most_reads))
    filereader.read_preamble(file, force=True)
    meta = filereader._read_file_meta_info(file)
    end = file.tell()
    file.seek(0)
    if meta.get("TransferSyntaxUID") == _DEFLATED:  # pydicom would unpack it to any size
        head = file.read(end).replace(_DEFLATED.encode(), b"1.2.840.10008.1.2.1\0\0\0")
        unpacking = decompressobj(-MAX_WBITS)
        body = unpacking.decompress(file.read(), most_bytes)
        if unpacking.unconsumed_tail:
            raise DicomError(f"unpacks to more than the {most_bytes / 2**20:.0f} MiB that are read; export it smaller")
        if not unpacking.eof:
            raise DicomError("ends early; copy or export it again")
        file = cast(BinaryIO, _Bounded(BytesIO(head + body), most_reads))
    ds = pydicom.dcmread(file, force=True, specific_tags=list(keywords), stop_before_pixels=not pixels_too)
    for keyword in ("ModalityLUTSequence", "VOILUTSequence", *GROUPS):
        if keyword in ds and len(ds.get_item(keyword).value or b"") > _MOST_TABLES:
            raise DicomError("has lookup tables or functional groups that are too large; export it again")
    return ds


class _Bounded:
    """A file that is read in a bounded number of pieces: each element costs two, and each of them time."""

    def __init__(self, file: BinaryIO, most_reads: int) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self._left = most_reads

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise DicomError("has more elements than a radiograph needs; export it again")
        return self._read(size)


def _syntax(ds: Any) -> str:
    meta = getattr(ds, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID") or "") if meta else ""
    if not syntax:  # pydicom found out while reading
        implicit, little = ds.original_encoding
        syntax = "1.2.840.10008.1.2" if implicit else f"1.2.840.10008.1.2.{1 if little else 2}"
    if syntax not in SYNTAXES:
        name = registered_name(UID(syntax), "a private or unknown transfer syntax")
        raise DicomError(f"is stored in a way that is not supported ({name}); export it uncompressed, or as JPEG 2000")
    return syntax


def _decoded(
    ds: Any, fragments: Sequence[bytes], syntax: str, layout: DicomLayout, index: int
) -> tuple[NDArray[Any], DicomLayout, list[Notice]]:
    """One frame's stored values, (H, W) or (H, W, 3), with all their bits, how they are stored, and what was repaired.

    Raises DicomError, and whatever pydicom raises.
    """
    data, plugin, shape, photometric = ds.PixelData, "", layout, layout.photometric
    if syntax not in _NATIVE:
        frame = _frame(ds, fragments, layout, index)
        checked, syntax = _checked_frame(frame, syntax, layout)
        photometric = photometric if checked.samples == layout.samples else checked.photometric
        layout = checked
        bits = min(layout.stored, layout.allocated)
        data, index, shape = encapsulate([frame]), 0, replace(layout, frames=1, stored=bits)
        # A named plugin, so that a picture does not depend on other installed ones.
        plugin = "pydicom" if syntax == _RLE else "pylibjpeg"
    decoder = pixels.get_decoder(UID(syntax))
    if plugin and plugin not in decoder.available_plugins:
        raise MissingExtra("a plugin of pylibjpeg", "dicom")
    stored, _ = decoder.as_array(
        data, index=index, decoding_plugin=plugin, raw=True, correct_unused_bits=False, pixel_keyword="PixelData",
        pixel_vr=ds["PixelData"].VR, rows=shape.rows, columns=shape.columns, samples_per_pixel=shape.samples,
        number_of_frames=shape.frames, bits_allocated=shape.allocated, bits_stored=shape.stored,
        photometric_interpretation=photometric,
        pixel_representation=int(shape.signed), planar_configuration=int(ds.get("PlanarConfiguration") or 0),
    )  # fmt: skip
    if stored.shape[:2] != (layout.rows, layout.columns) or stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise DicomError("is damaged: its picture is not of the size that its header says")
    repaired = []
    if not plugin and byte_swapped(stored):
        stored = stored.byteswap()
        repaired.append(Notice(Code.CONTRADICTORY_BITS))
    missing = 0.0 if plugin else zeros_at_the_end(stored)
    if missing > _MOST_MISSING:
        raise DicomError(f"ends early: {missing:.0%} of its rows hold only zeros; copy or export it again")
    if missing:
        repaired.append(
            Notice(Code.ENDS_EARLY, detail={"missing": f"the last {missing:.0%} of its rows hold only zeros"})
        )
    if not plugin and layout.samples == 3:
        planar = bool(ds.get("PlanarConfiguration"))
        if read_in_planes(stored, planar, photometric.startswith("YBR")) != planar:
            stored = _in_other_planes(stored, planar)
            repaired.append(Notice(Code.CONTRADICTORY_PLANES))
    native = not plugin or syntax == _RLE  # other frames tell their size themselves
    rows, columns = size_by_pixels(stored) if native else (layout.rows, layout.columns)
    if (rows, columns) != (layout.rows, layout.columns):
        stored = stored.reshape(rows, columns, *stored.shape[2:])
        layout = replace(layout, rows=rows, columns=columns)
        repaired.append(Notice(Code.EXCHANGED_SIZE))
    return np.asarray(stored), layout, repaired


def _in_other_planes(stored: NDArray[Any], planar: bool) -> NDArray[Any]:
    """The same samples, (H, W, 3), with the other Planar Configuration than `planar`."""
    rows, columns, samples = stored.shape
    if planar:
        return stored.transpose(2, 0, 1).reshape(rows, columns, samples)
    return stored.reshape(samples, rows, columns).transpose(1, 2, 0)


def _frame(ds: Any, fragments: Sequence[bytes], layout: DicomLayout, index: int) -> bytes:
    """A compressed frame. Where each has one fragment, or there is one frame, a wrong offset table does not matter."""
    if layout.frames == 1:
        return b"".join(fragments)
    if len(fragments) == layout.frames:
        return fragments[index]
    offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in ds else None
    return bytes(get_frame(ds.PixelData, index, number_of_frames=layout.frames, extended_offsets=offsets))


def _checked_frame(frame: bytes, syntax: str, layout: DicomLayout) -> tuple[DicomLayout, str]:
    """Check a compressed frame against the header, before anything is allocated by the size in the frame.

    Gives the layout and the transfer syntax of the frame, which count for more than the header's.
    """
    if syntax == _RLE:
        if not rle_fits(frame, layout.rows * layout.columns):
            raise DicomError("is damaged: its compressed picture unpacks to more than the picture")
        return layout, syntax
    stream = read_codestream(frame)
    if stream is None:
        raise DicomError("is damaged: its compressed picture has no header that can be read")
    known = layout.frames == 1 and layout.photometric in COLOUR | {"MONOCHROME2"}
    if known and stream.components != layout.samples and stream.components in _PHOTOMETRIC:
        layout = replace(layout, samples=stream.components, photometric=_PHOTOMETRIC[stream.components])
    if (stream.height, stream.width, stream.components) != (layout.rows, layout.columns, layout.samples):
        raise DicomError("is damaged: its compressed picture is of another size than its header says")
    if stream.scans > MOST_SCANS:
        raise DicomError(f"has a picture of {stream.scans:,} scans, more than {MOST_SCANS}; export it uncompressed")
    if not stream.whole:
        raise DicomError("ends early: its compressed picture is incomplete; copy or export it again")
    layout = replace(layout, allocated=8 if stream.bits <= 8 else 16)  # a recompressed picture may have fewer bits
    if int(syntax.rpartition(".")[2]) not in stream.syntaxes:
        syntax = f"{syntax.rpartition('.')[0]}.{stream.syntaxes[0]}"
    return replace(layout, photometric="RGB") if stream.rgb else layout, syntax
