"""One radiograph: from a file's bytes to pixels, or one sentence that says why not."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.blank import blank_notices
from retrieval.images.raster_headers import IMAGE_SUFFIXES
from retrieval.images.raster_reader import RasterError, checked_header, read_raster
from retrieval.notices import Code, Notice
from retrieval.wording import predicate, printable

if TYPE_CHECKING:
    from retrieval.images.dicom_reader import DicomPicture

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_MEMORY",
    "MAX_PIXELS",
    "Radiograph",
    "decode_frames",
    "decode_radiograph",
    "file_and_frame",
    "file_digest",
    "holds_dicom",
    "is_dicom",
    "memory_to_decode",
    "read_bytes",
    "read_frames",
    "read_radiograph",
]

MAX_BYTES = 128 * 2**20
"""The largest file that is read, in bytes. A 16-bit TIFF of a whole leg, 12,000 x 3,000 pixels, has 69 MiB."""

MAX_PIXELS = 64_000_000
"""The largest picture that is decoded, 8,000 x 8,000 pixels. In DICOM all samples of all frames count together."""

MAX_MEMORY = 2**30
"""The most memory that decoding one file may take, in bytes, by the size in its header and the decoder's own needs."""

# The file may become a pipe after its status was read; opening it must not wait for a writer.
_READ_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_DICOM_STARTS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # the group of a first element, in either byte order
_DICOM_HEAD = 512  # bytes, in which the first elements of DICOM without preamble lie
_SHORT_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UI UL US".split())  # those of the first elements
_BARE_LINE_FEED, _FEWEST_LINES = re.compile(rb"(?:^|[^\r])\n"), 16  # fewer may be chance
_FRAME = re.compile(r"(.+)\[([1-9]\d{0,5})\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A radiograph as stored in its file, upright, before any preprocessing.

    `pixels` is (H, W) grey or (H, W, 3) BGR, uint8. `digest` is the SHA-256 of the file's bytes, 64 hex digits; for one
    of several frames, it is the SHA-256 of that and the frame's number. `notices` is empty for a file in order.
    `patient` and `study` are DICOM's Patient ID and Study Instance UID, which must be neither shown nor stored. `frame`
    counts from 1; it is 0 where the radiograph stands for the whole file.
    """

    pixels: NDArray[np.uint8]
    digest: str
    notices: tuple[Notice, ...] = ()
    patient: str = field(default="", repr=False)
    frame: int = 0
    study: str = field(default="", repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices in words, without a subject: "ends early: ..."."""
        return tuple(map(predicate, self.notices))


def read_radiograph(path: Path, name: str | None = None) -> Radiograph:
    """Read one file as `decode_radiograph` does.

    `path` may name a frame of a DICOM file, as in `run.dcm[2]`. `name` is the file's name in errors.

    Raises RadiographError, one line that names the file, for everything that is not a readable radiograph: a missing
    file, a folder, a pipe, no permission, more than `MAX_BYTES`, and what `decode_radiograph` refuses.
    """
    file, frame = file_and_frame(path)
    shown = printable(name or str(path))
    data = _file_bytes(file, shown)
    if frame is not None and _is_dicom(data, file.suffix):
        return _dicom_frames(data, shown, frame)[0]
    return _first_picture(data, file.suffix, shown)


def read_frames(path: Path, name: str | None = None, most: int | None = None) -> list[Radiograph]:
    """Read a file like `read_radiograph`, but all frames of DICOM, unless `path` names a frame.

    A file with more than `most` frames is refused before any is decoded.
    """
    file, frame = file_and_frame(path)
    shown = printable(name or str(path))
    return _all_pictures(_file_bytes(file, shown), file.suffix, shown, frame, most)


def decode_frames(data: bytes, name: str, most: int | None = None) -> list[Radiograph]:
    """Decode a file's bytes like `decode_radiograph`, but all frames of DICOM; `most` as in `read_frames`."""
    return _all_pictures(data, Path(name).suffix, printable(name), None, most)


def decode_radiograph(data: bytes, name: str = "radiograph") -> Radiograph:
    """Decode a file's bytes; `name` is the file's name in errors.

    Grey stays grey, colour becomes BGR, and alpha is laid on black. EXIF orientation is applied. Of several frames or
    pages the first is read, with a notice. Pixels of other than 8 bits are scaled linearly to 0..255, from the image's
    0.1 % to its 99.9 % quantile: detectors use different numbers of the 16 bits, and a few dead or hot pixels must not
    set the range. A TIFF whose zero is white is inverted, so that white is always dense. For DICOM see
    `retrieval.images.dicom_reader.read_picture`.

    A JPEG that ends early is read with a notice if at least three quarters of its rows are present; the missing rows
    are black. The checksums of a PNG are checked. The other formats have no checksums, so changed bytes go unnoticed.

    Raises RadiographError, one line, for everything else: empty, too large (`MAX_BYTES` and `MAX_PIXELS` are checked
    before decoding), truncated, damaged, DICOM that is not a radiograph, or not an image. Raises MissingExtra for DICOM
    where the extra that reads it is not installed.
    """
    return _first_picture(data, Path(name).suffix, printable(name))


def memory_to_decode(data: bytes, name: str = "radiograph") -> int:
    """An upper bound of the bytes that decoding and preparing a file takes at any time, from its header alone.

    Raises RadiographError for what `decode_radiograph` refuses by its header, MissingExtra for DICOM without the extra.
    """
    shown = printable(name)
    _require_bytes(data, shown)
    try:
        if not _is_dicom(data, Path(name).suffix):
            return checked_header(data, MAX_PIXELS, MAX_MEMORY).memory
        from retrieval.images import dicom_reader

        return dicom_reader.memory_to_decode(data, MAX_BYTES, MAX_PIXELS)
    except ValueError as error:  # RasterError or DicomError
        raise RadiographError(f"{shown} {error}") from None


def is_dicom(file: Path) -> bool:
    """Whether a file has DICOM's preamble, or begins with DICOM's first elements, by any name. Raises OSError."""
    with file.open("rb") as opened:
        return _is_dicom(opened.read(_DICOM_HEAD), file.suffix)


def holds_dicom(data: bytes, suffix: str) -> bool:
    """Whether a file's bytes are DICOM; `suffix` is the ending of its name."""
    return _is_dicom(data, suffix)


def read_bytes(path: Path, shown: str) -> bytes:
    """A file's bytes; `shown` is its name in errors. Raises RadiographError as `read_radiograph` does."""
    return _file_bytes(path, shown)


def file_digest(path: Path) -> str:
    """The digest of `Radiograph`, without decoding the file. Raises OSError."""
    file, frame = file_and_frame(path)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return _frame_digest(digest, frame or 0)


def file_and_frame(path: Path) -> tuple[Path, int | None]:
    """The file and frame that `run.dcm[2]` names; the path itself where a file has that very name."""
    match = _FRAME.fullmatch(path.name)
    if match is None or os.path.lexists(path):
        return path, None
    return path.with_name(match[1]), int(match[2])


def _is_dicom(data: bytes, suffix: str) -> bool:
    if b"DICM" in (data[128:132], data[:4]):
        return True
    return data.startswith(_DICOM_STARTS) and (suffix.lower() in _DICOM_SUFFIXES or _begins_with_elements(data))


def _begins_with_elements(data: bytes) -> bool:
    """Whether the data begin with three elements of the groups 2 and 8 in ascending order, of plausible lengths."""
    order: Literal["big", "little"] = "big" if data[0] == 0 else "little"
    position, last = 0, -1
    for _ in range(3):
        group, element = (int.from_bytes(data[position + at : position + at + 2], order) for at in (0, 2))
        tag = group << 16 | element
        kind = data[position + 4 : position + 6]
        # Where the length is, and where the value begins: of a short explicit, a long explicit and an implicit one.
        at, body = (6, 8) if kind in _SHORT_VRS else (8, 12) if kind == b"OB" else (4, 8)
        length = int.from_bytes(data[position + at : position + body], order)
        if group not in (2, 8) or tag <= last or length % 2 or position + body + length > min(len(data), _DICOM_HEAD):
            return False
        position, last = position + body + length, tag
    return True


def _frame_digest(digest: str, frame: int) -> str:
    return hashlib.sha256(f"{digest}[{frame}]".encode()).hexdigest() if frame else digest


def _file_bytes(path: Path, shown: str) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise RadiographError(f"{shown} is a folder; name a radiograph in it")
        if not stat.S_ISREG(status.st_mode):
            raise RadiographError(f"{shown} is a device or pipe, not a file; save the radiograph as a file first")
        _require_size(status.st_size, shown)
        with os.fdopen(os.open(path, _READ_AT_ONCE), "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RadiographError(f"{shown} cannot be read: {error.strerror}; check its name and permissions") from error


def _require_size(size: int, shown: str) -> None:
    if size > MAX_BYTES:
        limit = f"the {MAX_BYTES / 2**20:.0f} MiB that are read"
        raise RadiographError(f"{shown} has {size / 2**20:,.0f} MiB, more than {limit}; export it alone, or smaller")


def _require_bytes(data: bytes, shown: str) -> None:
    if not data:
        raise RadiographError(f"{shown} is empty; copy or export it again")
    _require_size(len(data), shown)


def _all_pictures(data: bytes, suffix: str, shown: str, frame: int | None, most: int | None) -> list[Radiograph]:
    return _dicom_frames(data, shown, frame, most) if _is_dicom(data, suffix) else [_raster(data, shown)]


def _first_picture(data: bytes, suffix: str, shown: str) -> Radiograph:
    """The picture of a file, or the first frame of a DICOM file, which then stands for the whole file."""
    if not _is_dicom(data, suffix):
        return _raster(data, shown)
    picture = _dicom(data, shown, 1)
    several = (Notice(Code.SEVERAL_PICTURES, detail={"kind": "frames"}),) if picture.count > 1 else ()
    digest = hashlib.sha256(data).hexdigest()
    pixels = picture.frames[0]
    notices = picture.notices + several + blank_notices(pixels)
    return Radiograph(pixels, digest, notices, picture.patient, study=picture.study)


def _require_binary(data: bytes, shown: str) -> None:
    """Refuse a file that was changed as texts are: each line feed got a carriage return before it."""
    if _BARE_LINE_FEED.search(data) is None and data.count(b"\n") >= _FEWEST_LINES:
        raise RadiographError(
            f"{shown} is damaged: it was sent or copied as if it were a text; copy it again in binary mode"
        )


def _raster(data: bytes, shown: str) -> Radiograph:
    _require_bytes(data, shown)
    _require_binary(data, shown)
    try:
        pixels, notices = read_raster(data, MAX_PIXELS, MAX_MEMORY)
    except RasterError as error:
        raise RadiographError(f"{shown} {error}") from error
    return Radiograph(pixels, hashlib.sha256(data).hexdigest(), notices + blank_notices(pixels))


def _dicom_frames(data: bytes, shown: str, frame: int | None, most: int | None = None) -> list[Radiograph]:
    """One frame of a DICOM file, or all frames, each as a radiograph of its own; at most `most` of them."""
    picture = _dicom(data, shown, frame, most)
    first = 0 if picture.count == 1 else frame or 1
    digest = hashlib.sha256(data).hexdigest()
    return [
        Radiograph(
            pixels,
            _frame_digest(digest, number),
            picture.notices + blank_notices(pixels),
            picture.patient,
            number,
            picture.study,
        )
        for number, pixels in enumerate(picture.frames, first)
    ]


def _dicom(data: bytes, shown: str, frame: int | None, most: int | None = None) -> "DicomPicture":
    from retrieval.images.dicom_header import DicomError
    from retrieval.images.dicom_reader import read_picture

    _require_size(len(data), shown)
    _require_binary(data, shown)
    try:
        return read_picture(data, frame, MAX_BYTES, MAX_PIXELS, most)
    except DicomError as error:
        raise RadiographError(f"{shown} {error}") from None  # pydicom's own message may name the patient
