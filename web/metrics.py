"""What a Prometheus server reads from /metrics: requests by route and status, how long they took, and the queues.

Routes are named by their patterns, so no case, study or patient is in a label.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from web.service.service import Service

__all__ = ["Meters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Meters:
    """The figures of one server."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mura_search_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "mura_search_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is looked up rather than counted; called by the registry."""
        service = self._service
        cases, studies = service.engine.index.size()
        for name, help_text, value in (
            ("requests_at_work", "Uploads being answered now.", service.gate.inside),
            ("bytes_at_work", "Bytes that they hold.", service.gate.bytes),
            ("pictures_waiting", "Radiographs that wait for the encoder.", service.batcher.waiting),
            ("studies_remembered", "Studies kept in memory for their heatmaps.", len(service.kept)),
            ("bytes_remembered", "Bytes that they hold.", service.kept.bytes),
            ("index_cases", "Cases in the index.", cases),
            ("index_studies", "Studies in the index.", studies),
        ):
            yield GaugeMetricFamily(f"mura_search_{name}", help_text, value=value)
        yield CounterMetricFamily("mura_search_batches_encoded", "Batches encoded.", value=service.batcher.batches)
        yield CounterMetricFamily("mura_search_pictures_encoded", "Radiographs encoded.", value=service.batcher.encoded)
