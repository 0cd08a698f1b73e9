"""Which predictions are borderline: those that mild changes of the radiographs could turn.

A change c is one of `images.corruptions` at its mild strength: something that another device, export or viewer does and
that a radiologist hardly sees. Under it the probability p of a study becomes p_c. Of a reader, classifier or vote, the
width is

    w = the 68th percentile of |p_c - p|, over studies with p near the threshold t and over changes c

as far as one standard deviation reaches if the shifts are normal. A prediction is borderline where |p - t| <= w. The
similarity s to the nearest study has a width in the same way; it is borderline where limit <= s < limit + w.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Borderline", "width"]

_SHARE = 0.68


@dataclass(frozen=True, slots=True)
class Borderline:
    """The widths of classifier, vote and similarity, each from 0 to 1; 0 makes no prediction borderline."""

    classifier: float = 0.0
    knn: float = 0.0
    similarity: float = 0.0

    def __post_init__(self) -> None:
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in asdict(self).values()):  # NaN is not
            raise ValueError("the widths of borderline predictions are numbers from 0 to 1")

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The widths of a JSON object. Raises ValueError for a missing, unknown or invalid one."""
        if not isinstance(values, Mapping) or set(values) != set(cls.__slots__):
            raise ValueError(f"the widths of borderline predictions are exactly {', '.join(cls.__slots__)}")
        return cls(**values)

    def near_limit(self, similarity: float, limit: float) -> bool:
        """Whether a similarity is just above the limit of familiarity."""
        return limit <= similarity < limit + self.similarity


def width(shifts: NDArray[np.floating]) -> float:
    """The width of shifts of any shape and sign; 0 where there is none. Shifts that are not finite do not count.

    >>> width(np.array([0.1, -0.2, 0.3, 0.0]))
    0.204
    """
    sizes = np.abs(shifts[np.isfinite(shifts)])
    return round(min(1.0, float(np.quantile(sizes, _SHARE))), 4) if sizes.size else 0.0
