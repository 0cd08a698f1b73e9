"""Studies that are kept for a while, in memory alone, for their heatmaps and comparisons."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval.encoding.encoder import Encoded
from retrieval.images.measures import Measures
from retrieval.notices import Notice
from retrieval.query import View
from retrieval.searcher import Searcher
from web.errors import Refused

__all__ = ["Study", "StudyStore"]


@dataclass(frozen=True, slots=True)
class Study:
    """A study of V views, read and encoded, and the patient whom its question named.

    `model` is the SHA-256 of the model that encoded it, `encode` the seconds that this took. `listed` is its number on
    the worklist, if it was opened from there. `previews` is true for indexed studies of which only the small pictures
    in the index are at hand. `measures` (V,) are of the radiographs as read, none if they are not known.
    """

    views: tuple[View, ...]
    encoded: Encoded
    notices: tuple[Notice, ...]
    patient: str | None
    model: str
    encode: float
    listed: str = ""
    previews: bool = False
    measures: tuple[Measures, ...] = ()

    def view(self, number: int) -> View:
        """View `number`, 1 to V. Raises Refused with 404."""
        if not 1 <= number <= len(self.views):
            raise Refused(404, f"this study has views 1 to {len(self.views)}")
        return self.views[number - 1]

    def joined(self, more: "Study") -> "Study":
        """The views of both, of the patient whom the later question named."""
        known = len(self.measures) == len(self.views) and len(more.measures) == len(more.views)
        return Study(
            views=(*self.views, *more.views),
            encoded=Encoded(
                np.concatenate([self.encoded.embeddings, more.encoded.embeddings]),
                np.concatenate([self.encoded.logits, more.encoded.logits]),
            ),
            notices=tuple(dict.fromkeys([*self.notices, *more.notices])),
            patient=more.patient or self.patient,
            model=self.model,
            encode=self.encode + more.encode,
            measures=(*self.measures, *more.measures) if known else (),
        )

    def only(self, rows: Sequence[int]) -> "Study":
        """The study with some of its views alone."""
        return replace(
            self,
            views=tuple(self.views[row] for row in rows),
            encoded=Encoded(self.encoded.embeddings[rows], self.encoded.logits[rows]),
            measures=tuple(self.measures[row] for row in rows) if self.measures else (),
        )

    def require_model(self, searcher: Searcher) -> None:
        """Raise Refused with 404 if the index has another model by now."""
        if searcher.encoder.bundle.sha256 != self.model:
            raise Refused(404, "the index has another model now; send the radiographs again")

    def require_radiographs(self, purpose: str) -> None:
        """Raise Refused with 404 if only the small pictures of the index are at hand; `purpose` needs more."""
        if self.previews:
            raise Refused(404, f"the index stores only a small picture of this radiograph; {purpose} needs --files")

    @property
    def bytes(self) -> int:
        files = {id(view.original.source): view.original.source for view in self.views if view.original}
        return sum(view.pixels.nbytes for view in self.views) + sum(
            len(source) for source in files.values() if isinstance(source, bytes)
        )


class StudyStore:
    """The latest studies: each for `seconds`, together at most `most` bytes.

    A study's name has 128 random bits, and only its sender gets it.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.seconds = seconds
        self.bytes = 0
        self._clock = clock
        self._studies: OrderedDict[str, tuple[float, Study]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._studies)

    def __contains__(self, name: object) -> bool:
        self.expire()
        return name in self._studies

    def add(self, study: Study) -> str:
        """Keep a study, and forget the oldest ones if there is no room. Gives its name."""
        self.expire()
        name = secrets.token_urlsafe(16)
        self._studies[name] = (self._clock() + self.seconds, study)
        self.bytes += study.bytes
        while self.bytes > self.most and len(self._studies) > 1:
            self.forget(next(iter(self._studies)))
        return name

    def get(self, name: str) -> Study:
        """The study of a name. Raises Refused with 404 if it is unknown or forgotten."""
        self.expire()
        if name not in self._studies:
            raise Refused(404, "this study is no longer remembered; send its radiographs again")
        return self._studies[name][1]

    def forget(self, name: str) -> None:
        """Forget a study, if it is known."""
        if name in self._studies:
            self.bytes -= self._studies.pop(name)[1].bytes

    def expire(self) -> None:
        """Forget the studies whose time is over."""
        while self._studies:
            name, (until, _) = next(iter(self._studies.items()))
            if until > self._clock():
                break
            self.forget(name)

    def seconds_to_next(self) -> float | None:
        """After how many seconds the oldest study has to go; None if there is none."""
        return next((until - self._clock() for until, _ in self._studies.values()), None)
