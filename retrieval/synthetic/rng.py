"""Random numbers that are the same on every machine and with every version of NumPy."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomStream"]

T = TypeVar("T")


class RandomStream:
    """A stream of random numbers from the raw output of PCG64.

    NumPy promises the raw stream of a bit generator and `SeedSequence` (NEP 19), but not what `Generator` makes of
    it, so the few distributions needed here are made from the raw 64-bit numbers by exact arithmetic.

    >>> RandomStream(7, 1).integer(0, 100) == RandomStream(7, 1).integer(0, 100)
    True
    """

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Give a number in [low, high) from the upper 53 bits of the next draw."""
        upper = int(self._bits.random_raw()) >> 11
        return low + (high - low) * (upper * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """Give a whole number from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def sign(self) -> float:
        return 1.0 if self.chance(0.5) else -1.0

    def choice(self, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the items, with probabilities in proportion to the weights; by default all alike."""
        shares = weights or [1.0] * len(items)
        mark = self.uniform(0.0, sum(shares))
        for item, share in zip(items, shares, strict=True):
            mark -= share
            if mark < 0:
                return item
        return items[-1]

    def around(self, middle: float, spread: float) -> float:
        """Give a number near `middle`, `spread` being the standard deviation (sum of four uniform numbers)."""
        total = self.uniform() + self.uniform() + self.uniform() + self.uniform()
        return middle + spread * (total - 2.0) * 3**0.5

    def noise(self, height: int, width: int) -> NDArray[np.float64]:
        """Give (height, width) nearly normal numbers, mean 0 and standard deviation 1.

        Each is the sum of the four 16-bit parts of one raw draw, standardised.
        """
        raw = np.asarray(self._bits.random_raw(height * width), dtype="<u8").view("<u2").reshape(height, width, 4)
        total = np.zeros((height, width), dtype=np.float64)
        for part in range(4):
            total += raw[:, :, part]
        total -= 4 * 32767.5
        total /= (4 * (65536.0**2 - 1) / 12) ** 0.5
        return total
