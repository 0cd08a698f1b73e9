"""The limit that a new study exceeds with a chosen probability, beyond what few known studies show themselves.

Peaks over a threshold (Pickands 1975): of S values, the k largest exceed the next one, u, by e_1..e_k with the sum E.
Far out, excesses are near to exponential. Of an exponential variable that is known by k draws alone, a further draw
exceeds x with probability (1 + x / E)^-k, as E is a gamma variable. So a new value exceeds u + x with probability
k / S (1 + x / E)^-k, and the limit for a share p is

    u + E ((k / (S p))^(1 / k) - 1)

The quantile of S < 1 / p values would be their largest, which the next study exceeds with probability 1 / (S + 1).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["tail_limit"]

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
