"""Trying again what fails for a while."""

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["patiently"]

T = TypeVar("T")

_FIRST, _LONGEST = 0.1, 5.0  # seconds


def patiently(action: Callable[[], T], seconds: float, passing: Callable[[Exception], bool]) -> T:
    """What `action` gives, tried again for up to `seconds` while its errors are such that `passing` says will pass.

    The pause doubles from 0.1 s to 5 s and is cut by up to half at random, so that many clients that a server's restart
    has stopped do not all come back at once. Raises the last error.
    """
    end = time.monotonic() + seconds
    for attempt in itertools.count():
        try:
            return action()
        except Exception as error:  # broad: which of them pass is for `passing` to say; all others are raised
            pause = min(_LONGEST, _FIRST * 2**attempt) * random.uniform(0.5, 1)
            if not passing(error) or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
    raise AssertionError  # count() has no end
