"""How much may be at work at once: requests, and the bytes that they take."""

from collections.abc import Iterator
from contextlib import contextmanager

from web.errors import Refused

__all__ = ["Admission", "Share"]

BUSY = "too much is asked at once; try again in a moment"


class Share:
    """What one request has taken of the memory for all."""

    def __init__(self, gate: "Admission") -> None:
        self._gate = gate
        self.bytes = 0

    def take(self, count: int) -> None:
        """Take bytes, given back when the request ends. Raises Refused where other requests hold the rest."""
        if self._gate.bytes + count > self._gate.memory and self._gate.bytes > self.bytes:
            raise Refused(503, BUSY, retry=1)
        self._gate.bytes += count
        self.bytes += count


class Admission:
    """Lets in up to `requests` at once, which share `memory` bytes; of one thread, as an event loop is.

    One request alone may take more than all of `memory`: its own limits are others.
    """

    def __init__(self, requests: int, memory: int) -> None:
        self.requests = requests
        self.memory = memory
        self.inside = 0
        self.bytes = 0

    @contextmanager
    def enter(self) -> Iterator[Share]:
        """One request's share. Raises Refused where as many as may are inside."""
        if self.inside >= self.requests:
            raise Refused(503, BUSY, retry=1)
        share = Share(self)
        self.inside += 1
        try:
            yield share
        finally:
            self.inside -= 1
            self.bytes -= share.bytes
