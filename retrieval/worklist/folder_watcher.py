"""A folder that studies keep coming to: which of them are there, and no longer being written."""

import time
from collections.abc import Callable
from pathlib import Path

from retrieval.worklist.worklist import Found, find_studies

__all__ = ["Watch"]

State = tuple[tuple[str, int, int], ...]  # of each file: its path, size and time of change in nanoseconds


class Watch:
    """Remembers which studies of a folder were given, in which state.

    A study is ready when no file of it has come, gone or changed for `settle` seconds; how long that is, `clock` tells.
    One that changes afterwards is ready again.
    """

    def __init__(self, folder: Path, settle: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._settle = settle
        self._clock = clock
        self._since: dict[str, tuple[State, float]] = {}
        self._given: dict[str, State] = {}

    def give(self, found: Found) -> None:
        """Count a study as given, in the state that it is in now."""
        self._given[found.study] = _state(found)

    def look(self) -> tuple[list[Found], set[str]]:
        """The studies that are ready, each state once, and the names of those given that are gone.

        Raises RadiographError while the folder itself is not there.
        """
        now = self._clock()
        found, _ = find_studies(self.folder)
        states = {one.study: _state(one) for one in found}
        gone = set(self._given) - set(states)
        for name in (set(self._since) - set(states)) | gone:
            self._since.pop(name, None)
            self._given.pop(name, None)
        ready = []
        for one in found:
            state = states[one.study]
            former, since = self._since.get(one.study, (None, now))
            if former != state:
                self._since[one.study] = (state, now)
                since = now
            if now - since >= self._settle and self._given.get(one.study) != state:
                self._given[one.study] = state
                ready.append(one)
        return ready, gone


def _state(found: Found) -> State:
    state = []
    for file in found.files:
        try:
            status = file.stat()
        except OSError:  # gone a moment ago, or a link to nothing
            state.append((str(file), -1, -1))
        else:
            state.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(state)
