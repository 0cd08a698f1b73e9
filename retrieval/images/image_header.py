"""What the header of an image file says."""

from dataclasses import dataclass

__all__ = ["Header", "HeaderError"]


class HeaderError(ValueError):
    """A broken header; `str(error)` completes "q.png cannot be read: ..."."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file.

    `kind` is the format's name. OpenCV decodes `channels` of `depth` bytes each, with `scratch` bytes a pixel for the
    decoder itself. `orientation` is EXIF's (1 to 8, 1 = as stored). `pictures` is "" for one picture, else
    "frames" or "pages". `cut` marks a JPEG whose data stop before its end marker, `measurable` one whose decoded rows
    show how much is missing. `inverted` marks a TIFF whose zero is white, `straight_alpha` one whose colours are not
    yet multiplied by its alpha. `white` is the value of white where that is not the greatest, else 0. `planes` is the
    number of planes of a TIFF that OpenCV would mix up, `paired` marks one in which grey and alpha alternate. `data` is
    what to decode: the file's bytes, or the part of them that makes the picture. `numbers` is
    not empty where a palette is short: a file of the same pixels whose grey levels stand for the numbers of the
    palette's colours, the last of which has the level `last_number`. `surplus` marks uncompressed pixels beyond those
    that the header declares.
    """

    kind: str
    width: int
    height: int
    data: bytes
    channels: int = 1
    depth: int = 1
    scratch: int = 0
    orientation: int = 1
    pictures: str = ""
    cut: bool = False
    measurable: bool = True
    inverted: bool = False
    straight_alpha: bool = False
    white: int = 0
    planes: int = 0
    paired: bool = False
    numbers: bytes = b""
    last_number: int = 0
    surplus: bool = False

    @property
    def memory(self) -> int:
        """An upper bound of the bytes that decoding and preparing the picture takes at any time."""
        stored, shown = self.channels * self.depth, 1 if self.channels == 1 else 3
        to_eight_bits = 0 if self.depth == 1 and self.channels in (1, 3) else shown * self.depth + shown
        statistics = 3 * 4 * self.channels if self.depth > 2 else 0
        preparing = 5 * shown  # contrast enhancement in another colour space
        return self.width * self.height * max(stored + self.scratch, stored + to_eight_bits + statistics, preparing)
