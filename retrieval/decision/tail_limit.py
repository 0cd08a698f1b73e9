"""The limit that a new study exceeds with a chosen probability, beyond what few known studies show themselves.

By the tail alone: peaks over a threshold (Pickands 1975). Of S values, the k largest exceed the next, u, by e_1..e_k
with the sum E. Far out, excesses are near to exponential. Of an exponential variable that is known by k draws alone, a
further draw exceeds x with probability (1 + x / E)^-k, as E is a gamma variable. So a new value exceeds u + x with
probability k / S (1 + x / E)^-k, and the limit for a share p is

    u + E ((k / (S p))^(1 / k) - 1)

The quantile of S < 1 / p values would be their largest, which the next study exceeds with probability 1 / (S + 1).

By all values, where they are near to normal, as margins of linear layers are. Of S of them with mean m and deviation s,
the limit for a share p is, with Student's t of S - 1 degrees of freedom (Hahn 1969: prediction limits),

    m + t(1 - p) s sqrt(1 + 1 / S)
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["normal_limit", "tail_limit"]

_TAIL = 0.05  # of the values
_FEWEST = 20  # values, so that their mean says something


def tail_limit(values: NDArray[np.floating], share: float) -> float:
    """The limit for values (S,), S at least 2, which a new one exceeds with the probability `share`, below 0.01.

    >>> round(tail_limit(np.log(np.arange(1, 1001) / 1000), 0.001), 1)  # uniform up to 0, and so in the log
    0.1
    """
    descending = np.sort(np.asarray(values, np.float64))[::-1]
    k = min(max(_FEWEST, round(_TAIL * len(descending))), len(descending) - 1)
    threshold, total = descending[k], float((descending[:k] - descending[k]).sum())
    return float(threshold + total * ((k / (len(descending) * share)) ** (1 / k) - 1))


def normal_limit(values: NDArray[np.floating], share: float) -> float:
    """The limit for values (S,) near to normal, S at least 20, which a new one exceeds with the probability `share`.

    >>> round(normal_limit(np.array([NormalDist().inv_cdf((i + 0.5) / 1000) for i in range(1000)]), 0.001), 2)
    3.1
    """
    S, z = len(values), NormalDist().inv_cdf(1 - share)
    n = S - 1
    # Student's quantile as a series in 1 / n (Abramowitz and Stegun 1964, 26.7.5).
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    return float(np.mean(values) + t * np.std(values, ddof=1) * np.sqrt(1 + 1 / S))
