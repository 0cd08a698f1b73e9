"""How much may be at work at once: requests, the bytes that they take, and the time that they wait."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from web.errors import Refused

__all__ = ["Admission", "Share", "busy"]

_ALWAYS = 4  # requests at work that are never refused for the time that they may take
_FRESH = 30.0  # seconds for which the measured pace is believed


def busy(seconds: float = 1) -> Refused:
    """The refusal of a request that may be sent again after that many seconds."""
    return Refused(503, "the server is busy; try again in a moment", retry=max(1, math.ceil(seconds)))


class Share:
    """What one request has taken of the memory for all."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.bytes = 0

    def take(self, count: int) -> None:
        """Take bytes, given back when the request ends. Raises Refused if other requests hold the rest."""
        if self._admission.bytes + count > self._admission.memory and self._admission.bytes > self.bytes:
            raise busy()
        self._admission.bytes += count
        self.bytes += count

    @contextmanager
    def lend(self, count: int) -> Iterator[None]:
        """Take bytes for a while. Raises Refused."""
        self.take(count)
        try:
            yield
        finally:
            self._admission.bytes -= count
            self.bytes -= count


class Admission:
    """Lets in up to `requests` at once, which share `memory` bytes, if they are to be answered within `wait` seconds.

    The expected time is the number of requests at work times the seconds that each has cost lately. A request alone may
    take more than `memory`: it has limits of its own. All methods belong to one thread, that of the event loop.
    """

    def __init__(
        self, requests: int, memory: int, wait: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests = requests
        self.memory = memory
        self.wait = wait
        self._clock = clock
        self.inside = 0
        self.bytes = 0
        self._working = 0
        self._pace = 0.0  # seconds from one answer to the next
        self._measured = 0.0  # when

    @property
    def working(self) -> int:
        """How many requests are being answered, after their last byte."""
        return self._working

    @contextmanager
    def enter(self) -> Iterator[Share]:
        """One request's share, from its first byte on. Raises Refused."""
        if self.inside >= self.requests:
            raise busy()
        self._require_time()
        share = Share(self)
        self.inside += 1
        try:
            yield share
        finally:
            self.inside -= 1
            self.bytes -= share.bytes

    @contextmanager
    def work(self) -> Iterator[None]:
        """The time in which a request is answered, after its last byte. Raises Refused."""
        self._require_time()
        started = self._clock()
        self._working += 1
        try:
            yield
        finally:
            self._measured = self._clock()
            pace = (self._measured - started) / self._working
            self._pace += 0.2 * (pace - self._pace) if self._pace else pace
            self._working -= 1

    def _require_time(self) -> None:
        expected = self._pace * (self._working + 1)
        fresh = self._clock() - self._measured < _FRESH
        if self._working >= _ALWAYS and fresh and expected > self.wait:
            raise busy(expected - self.wait)
