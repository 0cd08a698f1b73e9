"""The scores of what a server was asked: histograms for Prometheus, and whether they differ from those of the index."""

import logging
import threading

from retrieval.answer import Answer
from retrieval.decision.reference import SCORES, Reference
from retrieval.evaluation.drift import DriftMonitor, scored
from web.metrics import Counted, Figure

__all__ = ["ScoreWatch"]

logger = logging.getLogger("mura-search")

_BOUNDS = tuple(n / 20 for n in range(1, 20))  # of the histograms; a score is at most 1


class ScoreWatch:
    """Counts the scores of answers. Several threads may use it."""

    def __init__(self) -> None:
        self.monitor = DriftMonitor()
        self._counts = {name: [0] * (len(_BOUNDS) + 1) for name in SCORES}
        self._sums = dict.fromkeys(SCORES, 0.0)
        self._lock = threading.Lock()

    def add(self, answer: Answer, reference: Reference | None) -> None:
        """Count an answer, and log it when scores differ from those of the index."""
        study = scored(answer)
        with self._lock:
            for name in SCORES:
                value = getattr(study, name)
                if value is not None:
                    self._counts[name][sum(value > bound for bound in _BOUNDS)] += 1
                    self._sums[name] += value
        if said := self.monitor.add(answer, reference):
            logger.warning("%s", said)

    def gauges(self) -> list[Figure]:
        """How far the scores of the latest answers differ from those of the index; empty with too few answers."""
        drift = self.monitor.drift
        if drift is None or not drift.enough:
            return []
        psi = [
            (
                f"drift_psi_{comparison.score}",
                f"Population stability index of the {comparison.score} score.",
                comparison.psi,
            )
            for comparison in drift.comparisons
        ]
        return [*psi, ("drift_parted", "Scores that differ from those of the index.", len(drift.parted))]

    def histograms(self) -> list[Counted]:
        """The scores of all answers since the start."""
        with self._lock:
            return [Counted(name, _BOUNDS, tuple(self._counts[name]), self._sums[name]) for name in SCORES]
