"""Is a radiograph acquired, processed and exported like those indexed? Limits of its plain measures.

A network's scores hold for radiographs like those that they were learned on: softer ones, for instance, all score
higher. `images.measures` has the measures. Each limit is for one side of one measure, on a scale on which its tail is
light, by the most unusual radiograph of each study (`decision.tail_limit`). A limit lies at least `slack` beyond the
95 % quantile of the indexed studies, so that an index of radiographs that are all alike does not flag what differs
from them by next to nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.decision.tail_limit import tail_limit
from retrieval.images.measures import MEASURES, TABLE, unpacked
from retrieval.notices import Unlike

__all__ = ["FEWEST", "KEY", "MeasureLimits", "learn_measure_limits", "limits_of", "stored_limits", "stored_measures"]

Floats = NDArray[np.float64]

KEY = "measure_limits"  # of the metadata of an index
FEWEST = 50  # studies; fewer say too little about what is unusual
FALSE_ALARMS = 0.005  # this share of known studies lies beyond any of the limits


def _same(values: Floats) -> Floats:
    return values


@dataclass(frozen=True, slots=True)
class _Side:
    """A side of a measure: high if `sign` is 1, low if it is -1; `scale` and `back` go to the scale and back.

    No limit is lower than `least`, on the scale.
    """

    measure: str
    sign: int
    slack: float
    scale: Callable[[Any], Any] = _same
    back: Callable[[Any], Any] = _same
    least: float = -np.inf

    def values(self, rows: Floats) -> Floats:
        """(N,) of measures (N, M), on the scale; high is unusual."""
        return self.sign * np.asarray(self.scale(rows[:, MEASURES.index(self.measure)]), np.float64)


def _log_level(values: Any) -> Any:
    return np.log(np.asarray(values) + 0.25)


def _level(values: Any) -> Any:
    return np.exp(values) - 0.25


def _log_share(values: Any) -> Any:
    return np.log(np.asarray(values) + 0.01)


def _share(values: Any) -> Any:
    return np.exp(values) - 0.01


_SIDES: Mapping[Unlike, _Side] = {
    Unlike.SOFTER: _Side("sharpness", -1, 0.1),
    Unlike.SHARPER: _Side("sharpness", 1, 0.1),
    Unlike.NOISIER: _Side("noise", 1, 0.3, _log_level, _level),
    Unlike.NARROWER: _Side("grey_range", -1, 10),
    Unlike.FAINTER: _Side("contrast", -1, 0.2, np.log, np.exp),
    Unlike.WHITER: _Side("saturated", 1, 1.1, _log_share, _share),
    Unlike.SMALLER: _Side("size", -1, 0.1, np.log, np.exp),
    Unlike.COMPRESSED: _Side("blocking", 1, 0.2, least=0.7),  # JPEG of quality 75
}


@dataclass(frozen=True, slots=True)
class MeasureLimits:
    """The limits by reason, in the units of the measures; empty where `studies`, from which they are, are too few.

    `radiographs` is how many the index held when they were learned. `local` limits are those of local studies, on which
    the index was calibrated: they stay whatever the index holds.
    """

    studies: int
    limits: Mapping[str, float]
    radiographs: int = 0
    local: bool = False

    def beyond(self, rows: Floats) -> list[tuple[Unlike, str, float, float]]:
        """Which limits a study with measures (V, M) of its V views exceeds: reason, measure, value and limit."""
        exceeded = []
        for reason, side in _SIDES.items():
            if reason not in self.limits or not len(rows):
                continue
            values = rows[:, MEASURES.index(side.measure)]
            value, limit = float((side.sign * values).max() * side.sign), self.limits[reason]
            if side.sign * (value - limit) > 0:
                exceeded.append((reason, side.measure, value, limit))
        return exceeded

    def to_dict(self) -> dict[str, object]:
        values = {"studies": self.studies, "radiographs": self.radiographs, "limits": dict(self.limits)}
        return values | ({"local": True} if self.local else {})

    @classmethod
    def from_dict(cls, values: object) -> Self | None:
        """The limits that `to_dict` gave, also after JSON; None for anything else, such as an index without them."""
        if not isinstance(values, Mapping) or set(values) - {"local"} != {"studies", "radiographs", "limits"}:
            return None
        limits, counts = values["limits"], (values["studies"], values["radiographs"])
        numbers = isinstance(limits, Mapping) and all(type(limit) in (int, float) for limit in limits.values())
        if not numbers or any(type(count) is not int for count in counts):
            return None
        return cls(counts[0], dict(limits), counts[1], bool(values.get("local")))


def learn_measure_limits(studies: Sequence[str], rows: Floats) -> MeasureLimits:
    """The limits of N radiographs with measures (N, M) of the studies named; rows that are not numbers do not count."""
    known: NDArray[np.bool_] = np.atleast_1d(np.isfinite(rows).all(axis=1))
    named = [study for study, counts in zip(studies, known, strict=True) if counts]
    names, study_of = np.unique(named, return_inverse=True)
    if len(names) < FEWEST:
        return MeasureLimits(len(names), {}, len(rows))
    share = FALSE_ALARMS / len(_SIDES)
    limits = {}
    for reason, side in _SIDES.items():
        extremes = np.full(len(names), -np.inf)
        np.maximum.at(extremes, study_of, side.values(rows[known]))
        limit = max(tail_limit(extremes, share), float(np.quantile(extremes, 0.95)) + side.slack, side.least)
        limits[str(reason)] = float(side.back(side.sign * limit))
    return MeasureLimits(len(names), limits, len(rows))


class _Stored(Protocol):
    def metadata(self, key: str) -> object | None: ...
    def cases(self) -> list[Case]: ...
    def extra(self, table: str) -> list[bytes]: ...


class _Sized(_Stored, Protocol):
    def size(self) -> tuple[int, int]: ...


def stored_measures(index: _Stored) -> tuple[list[str], Floats]:
    """The study of each case of an index or a build, and the cases' measures (N, M), which are NaN for none."""
    cases, data = index.cases(), index.extra(TABLE)
    measured = [unpacked(measures) for measures in data] if data else [None] * len(cases)
    rows = np.full((len(cases), len(MEASURES)), np.nan)
    for row, measures in zip(rows, measured, strict=True):
        if measures is not None:
            row[:] = astuple(measures)
    return [case.study for case in cases], rows


def stored_limits(index: _Stored) -> MeasureLimits:
    """The limits of the measures that an index or a build holds now."""
    return learn_measure_limits(*stored_measures(index))


def limits_of(index: _Sized) -> MeasureLimits:
    """The limits that an index keeps, or those of its measures now if it has grown or shrunk by a tenth since."""
    kept = MeasureLimits.from_dict(index.metadata(KEY))
    if kept is not None and (kept.local or abs(index.size()[0] - kept.radiographs) <= 0.1 * kept.radiographs):
        return kept
    return stored_limits(index)
