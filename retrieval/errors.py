"""The errors between a file and an answer; continues the tree of `index.errors`.

MuraSearchError
├── RadiographError        a file that cannot be read as a radiograph
├── CollectionError        a folder or table of labelled radiographs that cannot be used
├── SiteKeyError           a site key, which hashes patients' identifiers, that cannot be used
├── BundleError            a model bundle that is damaged, incomplete or of another version
├── EvaluationError        an evaluation whose figures would mislead, or that has no studies
├── HeatmapError           a heatmap that cannot be written to its file
├── OutputError            a file of results that cannot be written
├── DicomResultError       an answer that cannot be written as DICOM
└── ArchiveError           a DICOM archive that refuses a request or does not answer it
"""

import time
from collections.abc import Callable
from traceback import walk_tb

from index.errors import MissingExtra, MuraSearchError

__all__ = [
    "ArchiveError",
    "BundleError",
    "CollectionError",
    "DicomResultError",
    "EvaluationError",
    "HeatmapError",
    "MissingExtra",
    "MuraSearchError",
    "OutputError",
    "RadiographError",
    "RateLimitedLog",
    "SiteKeyError",
    "redacted_traceback",
]


class RadiographError(MuraSearchError):
    pass


class CollectionError(MuraSearchError):
    pass


class SiteKeyError(MuraSearchError):
    pass


class BundleError(MuraSearchError):
    pass


class HeatmapError(MuraSearchError):
    pass


class EvaluationError(MuraSearchError):
    pass


class OutputError(MuraSearchError):
    pass


class DicomResultError(MuraSearchError):
    pass


class ArchiveError(MuraSearchError):
    pass


def redacted_traceback(error: BaseException) -> str:
    """The kind of an error and the last six calls, innermost last: `KeyError in read:12 > parse:7`.

    The error's own message is left out, since it may name a file or a value of a DICOM header.
    """
    calls = [f"{frame.f_code.co_name}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return f"{type(error).__name__} in {' > '.join(calls[-6:])}"


_MINUTE = 60.0  # seconds


class RateLimitedLog:
    """Writes what may happen very often: the first time at once, later once a minute how often it happened since."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._counts: dict[str, int] = {}  # since the last line, by message
        self._next: dict[str, float] = {}  # the time of the next line

    def add(self, message: str) -> None:
        """Count what `message` says; messages that differ are counted apart."""
        if message in self._counts:
            self._counts[message] += 1
            self.flush()
        else:
            self._counts[message], self._next[message] = 0, self._clock() + _MINUTE
            self._write(message)

    def flush(self) -> None:
        """Write the counts whose minute is over."""
        now = self._clock()
        for message in [message for message, due in self._next.items() if due <= now]:
            if self._counts[message]:
                self._write(f"{message} ({self._counts[message]:,} times more)")
                self._counts[message], self._next[message] = 0, now + _MINUTE
            else:
                del self._counts[message], self._next[message]
