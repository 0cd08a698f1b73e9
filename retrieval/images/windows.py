"""Grey values and the windows through which they are seen; no pixel is read here."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["GreyValues", "Spacing", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of output values x by DICOM's formula (PS3.3, C.11.2.1.2.1).

    y = (x - (center - 0.5)) / (width - 1) + 0.5

    y is 0 for black and 1 for white, clipped. A window of 8 bits, center 128 and width 256, changes nothing.
    """

    name: str
    center: float
    width: float

    @classmethod
    def between(cls, name: str, black: float, white: float) -> "Window":
        """The window whose black and white are these values."""
        white = max(white, black + 1e-6)
        return cls(name, (black + white + 1) / 2, white - black + 1)


@dataclass(frozen=True, slots=True)
class Spacing:
    """The side of a pixel in millimetres, and where it is so: "" in the patient, "at the detector", "on the film"."""

    millimetres: float
    where: str = ""


@dataclass(frozen=True, slots=True)
class GreyValues:
    """Grey values (H, W), uint8 or uint16, upright, with square pixels.

    The output value of v, in the units of the file, is v * slope + intercept. `inverted`: the least output is white.
    `windows`: the first is the one through which the encoder sees the radiograph; then the file's others, then presets.
    `bits`: how many the file stores. `part`, `view`, `laterality` are words of fixed tables, "" if unknown.
    """

    values: NDArray[Any]
    bits: int
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    windows: tuple[Window, ...] = ()
    spacing: Spacing | None = None
    part: str = ""
    view: str = ""
    laterality: str = ""
    colour: bool = False
