"""The figures for a Prometheus server, at /metrics: requests by route and status, times, queues, and scores.

Routes are named by their patterns, so no case, study or patient is in a label.
"""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

__all__ = ["Counted", "Figure", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
Figure = tuple[str, str, float]
"""A name, what it counts, and its value."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many values of a score lie up to each bound (B,) and above the bound before it; last, above all (B + 1,)."""

    score: str
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Measured(Protocol):
    """An object with figures."""

    def gauges(self) -> Iterable[Figure]: ...

    def counters(self) -> Iterable[Figure]: ...

    def histograms(self) -> Iterable[Counted]: ...


class Metrics:
    """The figures of one server: its requests, those of `measured`, its process, and its version."""

    def __init__(self, measured: Measured, version: str = "") -> None:
        self._measured = measured
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "mura_search_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "mura_search_request_duration_seconds", "Time to answer.", ("route",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        build = Info("mura_search_build", "The program.", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """The figures that are looked up on request; the registry calls this."""
        for name, about, value in self._measured.gauges():
            yield GaugeMetricFamily(f"mura_search_{name}", about, value=value)
        for name, about, value in self._measured.counters():
            yield CounterMetricFamily(f"mura_search_{name}", about, value=value)
        scores = HistogramMetricFamily("mura_search_score", "Scores of answered studies.", labels=["score"])
        for histogram in self._measured.histograms():
            ends = [*map(str, histogram.bounds), "+Inf"]
            scores.add_metric(
                [histogram.score], list(zip(ends, accumulate(histogram.counts), strict=True)), histogram.sum
            )
        yield scores
