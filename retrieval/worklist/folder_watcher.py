"""A folder that studies keep coming to: which of them are there, and no longer being written."""

import time
from collections.abc import Callable
from pathlib import Path

from retrieval.errors import RadiographError
from retrieval.worklist.worklist import StudyFiles, find_studies

__all__ = ["Watch"]

State = tuple[tuple[str, int, int], ...]  # of each file: its path, size and time of change in nanoseconds


class Watch:
    """The studies of a folder that are complete, each once.

    A study is ready when none of its files has come, gone or changed for `settle` seconds of `clock`. A study that
    changes afterwards is ready again.
    """

    def __init__(self, folder: Path, settle: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._settle = settle
        self._clock = clock
        self._since: dict[str, tuple[State, float]] = {}
        self._given: dict[str, State] = {}

    def give(self, study: StudyFiles) -> None:
        """Count a study as given, in its present state."""
        self._given[study.study] = _state(study)

    def look(self) -> tuple[list[StudyFiles], set[str]]:
        """The studies that are ready, each state once, and the names of given studies that are gone.

        Raises RadiographError while the folder itself is missing.
        """
        now = self._clock()
        studies, _ = find_studies(self.folder)
        states = {study.study: _state(study) for study in studies}
        if not self.folder.is_dir():  # it went while it was read: its studies are not known to be gone
            raise RadiographError(f"{self.folder} does not exist; name a folder of studies")
        gone = set(self._given) - set(states)
        for name in (set(self._since) - set(states)) | gone:
            self._since.pop(name, None)
            self._given.pop(name, None)
        ready = []
        for study in studies:
            name, state = study.study, states[study.study]
            former, since = self._since.get(name, (None, now))
            if former != state:
                since = now
                self._since[name] = (state, since)
            if now - since >= self._settle and self._given.get(name) != state:
                self._given[name] = state
                ready.append(study)
        return ready, gone


def _state(study: StudyFiles) -> State:
    state = []
    for file in study.files:
        try:
            status = file.stat()
        except OSError:  # gone a moment ago, or a link to nothing
            state.append((str(file), -1, -1))
        else:
            state.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(state)
