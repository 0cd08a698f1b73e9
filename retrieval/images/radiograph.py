"""One radiograph: from a file's bytes to pixels, or one sentence that says why not."""

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.codestream import STREAM_END
from retrieval.images.raster_headers import IMAGE_SUFFIXES, Header, HeaderError, read_header
from retrieval.notices import Code, Notice
from retrieval.wording import predicate

if TYPE_CHECKING:
    from retrieval.images.dicom_reader import DicomPicture

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Radiograph",
    "decode_frames",
    "decode_radiograph",
    "file_and_frame",
    "file_digest",
    "is_dicom",
    "read_frames",
    "read_radiograph",
]

MAX_BYTES = 128 * 2**20
"""The largest file that is read, in bytes. A 16-bit TIFF of a whole leg, 12,000 x 3,000 pixels, has 69 MiB."""

MAX_PIXELS = 64_000_000
"""The largest picture that is decoded, 8,000 x 8,000 pixels. In DICOM all samples of all frames count together."""

# The file may become a pipe after its status was read; opening it must not wait for a writer.
_READ_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_DICOM_STARTS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # the group of a first element, in either byte order
_FRAME = re.compile(r"(.+)\[([1-9]\d{0,5})\]", re.DOTALL)
_BEYOND_RANGE = 0.001  # the share of an image's values, at either end, that its range leaves out
_MISSING = 128  # libjpeg's value for a block that is missing in the file
_MOST_ROWS_MISSING = 0.25  # the share of its rows that a cut JPEG may lack


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A radiograph as stored in its file, upright, before any preprocessing.

    `pixels` is (H, W) grey or (H, W, 3) BGR, uint8. `digest` is the SHA-256 of the file's bytes, 64 hex digits; where
    a DICOM file has several frames, it is the SHA-256 of the file's digest and the frame's number. `notices` is
    empty for a file in order. `patient` is DICOM's Patient ID, which
    must be neither shown nor stored. `frame` counts from 1; it is 0 where the radiograph stands for the whole file.
    """

    pixels: NDArray[np.uint8]
    digest: str
    notices: tuple[Notice, ...] = ()
    patient: str = field(default="", repr=False)
    frame: int = 0

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
    read_dicom = _first_frame if frame is None else partial(_frames, frame=frame)
    return _decoded(_read(file, name), file.suffix, name or str(path), read_dicom)[0]


def read_frames(path: Path, name: str | None = None, most: int | None = None) -> list[Radiograph]:
    """Read a file like `read_radiograph`, but all frames of DICOM, unless `path` names a frame.

    A file with more than `most` frames is refused before any is decoded.
    """
    file, frame = file_and_frame(path)
    return _decoded(_read(file, name), file.suffix, name or str(path), partial(_frames, frame=frame, most=most))


def decode_frames(data: bytes, name: str, most: int | None = None) -> list[Radiograph]:
    """Decode a file's bytes like `decode_radiograph`, but all frames of DICOM; `most` as in `read_frames`."""
    return _decoded(data, Path(name).suffix, name, partial(_frames, most=most))


def decode_radiograph(data: bytes, name: str = "radiograph") -> Radiograph:
    """Decode a file's bytes; `name` is the file's name in errors.

    Grey stays grey, colour becomes BGR, and alpha is laid on black. EXIF orientation is applied. Of several frames or
    pages the first is read, with a warning. Pixels of other than 8 bits are scaled linearly to 0..255, from the image's
    0.1 % to its 99.9 % quantile: detectors use different numbers of the 16 bits, and a few dead or hot pixels must not
    set the range. A TIFF whose zero is white is inverted, so that white is always dense. For DICOM see
    `retrieval.images.dicom_reader.read_picture`.

    A JPEG that ends early is read with a warning if at least three quarters of its rows are present; the missing rows
    are black. The checksums of a PNG are checked. The other formats have no checksums, so changed bytes go unnoticed.

    Raises RadiographError, one line, for everything else: empty, too large (`MAX_BYTES` and `MAX_PIXELS` are checked
    before decoding), truncated, damaged, DICOM that is not a radiograph, or not an image. Raises MissingExtra for DICOM
    where the extra that reads it is not installed.
    """
    return _decoded(data, Path(name).suffix, name, _first_frame)[0]


def is_dicom(file: Path) -> bool:
    """Whether a file has DICOM's preamble, or DICOM's file name ending and first bytes. Raises OSError."""
    with file.open("rb") as opened:
        return _is_dicom(opened.read(132), file.suffix)


def file_digest(path: Path) -> str:
    """The digest of `Radiograph`, without decoding the file. Raises OSError."""
    file, frame = file_and_frame(path)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return _frame_digest(digest, frame or 0)


def _is_dicom(data: bytes, suffix: str) -> bool:
    return data[128:132] == b"DICM" or (suffix.lower() in _DICOM_SUFFIXES and data.startswith(_DICOM_STARTS))


def file_and_frame(path: Path) -> tuple[Path, int | None]:
    """The file and frame that `run.dcm[2]` names; the path itself where a file has that very name."""
    match = _FRAME.fullmatch(path.name)
    if match is None or os.path.lexists(path):
        return path, None
    return path.with_name(match[1]), int(match[2])


def _frame_digest(digest: str, frame: int) -> str:
    return hashlib.sha256(f"{digest}[{frame}]".encode()).hexdigest() if frame else digest


def _read(path: Path, name: str | None) -> bytes:
    shown = _shown(name or str(path))
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise RadiographError(f"{shown} is a folder; name a radiograph in it")
        if not stat.S_ISREG(status.st_mode):
            raise RadiographError(f"{shown} is a device or pipe, not a file; save the radiograph as a file first")
        if status.st_size > MAX_BYTES:
            raise RadiographError(_too_many_bytes(shown, status.st_size))
        with os.fdopen(os.open(path, _READ_AT_ONCE), "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RadiographError(f"{shown} cannot be read: {error.strerror}; check its name and permissions") from error


def _decoded(
    data: bytes, suffix: str, name: str, read_dicom: Callable[[bytes, str], list[Radiograph]]
) -> list[Radiograph]:
    """The picture in a file's bytes; `read_dicom` chooses the frames of DICOM, given the bytes and the shown name."""
    shown = _shown(name)
    if not data:
        raise RadiographError(f"{shown} is empty; copy or export it again")
    if len(data) > MAX_BYTES:
        raise RadiographError(_too_many_bytes(shown, len(data)))
    if _is_dicom(data, suffix):
        return read_dicom(data, shown)
    try:
        header = read_header(data)
    except HeaderError as error:
        raise RadiographError(f"{shown} cannot be read: {error}; copy or export it again") from error
    if header is None:
        raise RadiographError(f"{shown} is no image that can be read; export the radiograph as PNG, JPEG or TIFF")
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width:,} x {header.height:,} pixels"
        raise RadiographError(f"{shown} has {size}, more than {MAX_PIXELS:,} in all; export it smaller")
    pixels, notices = _picture(header, shown)
    return [Radiograph(pixels, hashlib.sha256(data).hexdigest(), notices)]


def _first_frame(data: bytes, shown: str) -> list[Radiograph]:
    """The first frame of a DICOM file, which then stands for the whole file."""
    picture = _dicom(data, shown, 1)
    several = (Notice(Code.SEVERAL_PICTURES, detail={"kind": "frames"}),) if picture.count > 1 else ()
    digest = hashlib.sha256(data).hexdigest()
    return [Radiograph(picture.frames[0], digest, picture.notices + several, picture.patient)]


def _frames(data: bytes, shown: str, *, frame: int | None = None, most: int | None = None) -> list[Radiograph]:
    """One frame of a DICOM file, or all frames, each as a radiograph of its own; at most `most` of them."""
    picture = _dicom(data, shown, frame, most)
    first = 0 if picture.count == 1 else frame or 1
    digest = hashlib.sha256(data).hexdigest()
    return [
        Radiograph(pixels, _frame_digest(digest, number), picture.notices, picture.patient, number)
        for number, pixels in enumerate(picture.frames, first)
    ]


def _dicom(data: bytes, shown: str, frame: int | None, most: int | None = None) -> "DicomPicture":
    from retrieval.images.dicom_header import DicomError
    from retrieval.images.dicom_reader import read_picture

    try:
        return read_picture(data, frame, MAX_BYTES, MAX_PIXELS, most)
    except DicomError as error:
        raise RadiographError(f"{shown} {error}") from None  # pydicom's own message may name the patient


def _picture(header: Header, shown: str) -> tuple[NDArray[np.uint8], tuple[Notice, ...]]:
    notices = []
    if header.cut and not header.measurable:
        raise RadiographError(f"{shown} ends early, before all its detail was sent; copy or export it again")
    stored = _decode(header)
    if stored is None or sorted(stored.shape[:2]) != sorted((header.height, header.width)):
        raise RadiographError(f"{shown} is a damaged {header.kind}, or of a kind not read; copy or export it again")
    if header.cut or (header.kind == "JPEG" and _ran_out(header, stored)):
        missing = _blacken_missing(stored)
        if missing > _MOST_ROWS_MISSING:
            raise RadiographError(f"{shown} ends early: {missing:.0%} of its rows are missing; copy or export it again")
        rows = f"the last {max(missing, 0.01):.0%} of its rows are missing and shown black"
        words = rows if missing else "its last rows or finest detail may be missing"
        notices.append(Notice(Code.ENDS_EARLY, detail={"missing": words}))
    if header.pictures:
        notices.append(Notice(Code.SEVERAL_PICTURES, detail={"kind": header.pictures}))
    pixels = _eight_bits(_on_black(stored), inverted=header.inverted)
    return np.ascontiguousarray(_upright(pixels, header.orientation)), tuple(notices)


def _decode(header: Header) -> NDArray[Any] | None:
    """The picture as OpenCV decodes it, (H, W) or (H, W, 3 or 4) of any depth; None where OpenCV cannot."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    flags = cv2.IMREAD_UNCHANGED
    if header.kind == "TIFF" and not header.straight_alpha:
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR  # "unchanged" would give CMYK as if it were BGR and alpha
    try:
        with _silent_stderr() if header.cut else nullcontext():
            return cv2.imdecode(np.frombuffer(header.data, np.uint8), flags)
    except cv2.error:
        return None


def _ran_out(header: Header, stored: NDArray[Any]) -> bool:
    """Whether a JPEG lacks its last blocks although it has an end marker.

    Missing blocks are mid-grey (see `_blacken_missing`), but blocks of a whole picture may be so too. Bits inserted
    before the end marker fill missing blocks, and do not change a whole picture. 4 KiB fill at least one block.
    """
    if not (stored[-1, -8:] == _MISSING).all():
        return False
    end = header.data.rfind(STREAM_END)
    filled = _decode(replace(header, data=header.data[:end] + bytes(4096) + header.data[end:], cut=True))
    return not np.array_equal(stored, filled) if filled is not None else False


def _blacken_missing(stored: NDArray[Any]) -> float:
    """Blacken the missing part of a cut JPEG, in place, and return the share of rows that are missing altogether.

    libjpeg gives a missing block the middle of the range. Blocks are stored row by row from the top left, so the
    tail of one row of blocks is missing, and all rows below it.
    """
    grey = stored == _MISSING if stored.ndim == 2 else (stored == _MISSING).all(axis=2)
    height, width = grey.shape
    bottom = height - _run(grey.all(axis=1))
    stored[bottom:] = 0
    tail = _run(grey[bottom - 1]) if bottom else 0
    if tail >= 8:  # a block
        rows = _run(grey[:bottom, width - tail :].all(axis=1))
        stored[bottom - rows : bottom, width - tail :] = 0
    return float((height - bottom) / height)


def _run(flags: NDArray[np.bool_]) -> int:
    """The number of set flags at the end."""
    return len(flags) if flags.all() else int(np.argmin(flags[::-1]))


def _on_black(stored: NDArray[Any]) -> NDArray[Any]:
    if stored.ndim == 2 or stored.shape[2] == 3:
        return stored
    colour, alpha = stored[..., :3].astype(np.float32), stored[..., 3:].astype(np.float32)
    opaque = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1.0
    composed: NDArray[Any] = np.rint(colour * (alpha / opaque)).astype(stored.dtype)
    return composed


def _eight_bits(pixels: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels  # libtiff itself has inverted an 8-bit TIFF
    if pixels.dtype.kind == "f":
        pixels = np.where(np.abs(pixels) < 1e30, pixels, 0)  # NaN and absurd values count as 0
    values = pixels.astype(np.float32)
    outermost = int(values.size * _BEYOND_RANGE)  # at either end
    low, high = np.partition(values, (outermost, values.size - 1 - outermost), axis=None)[[outermost, -1 - outermost]]
    scaled = np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255)
    return np.asarray(np.rint(255 - scaled if inverted else scaled), np.uint8)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF 2.3, table 6: 2 to 4 flip the stored picture or turn it by 180 degrees, 5 to 8 also exchange its axes."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


_STDERR = threading.Lock()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep libjpeg from writing to the terminal that a file ends early; `Radiograph.warnings` says so."""
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # a process without stderr
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _shown(name: str) -> str:
    """A file's name on one line; characters that are not printable become escapes, so that the file can be found."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def _too_many_bytes(shown: str, size: int) -> str:
    most = f"the {MAX_BYTES / 2**20:.0f} MiB that are read"
    return f"{shown} has {size / 2**20:,.0f} MiB, more than {most}; export the radiograph alone, or smaller"
