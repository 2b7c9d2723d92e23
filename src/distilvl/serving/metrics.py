"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as _latest

from distilvl.serving.batching import Modality

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "distilvl_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "distilvl_request_seconds", "From header to end of answer.", ("route",), registry=registry, buckets=_SECONDS
        )
        self._batch_items = Histogram(
            "distilvl_batch_items", "Items a batch of the model.", ("modality",), registry=registry, buckets=_ITEMS
        )
        self._batch_seconds = Histogram(
            "distilvl_batch_seconds",
            "Seconds a batch of the model.",
            ("modality",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._waiting = Gauge("distilvl_items_waiting", "Items waiting or being encoded.", registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, modality: Modality, items: int, seconds: float) -> None:
        """The model encoded a batch."""
        self._batch_items.labels(modality).observe(items)
        self._batch_seconds.labels(modality).observe(seconds)

    def waiting(self, items: int) -> None:
        """So many items are under way."""
        self._waiting.set(items)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return _latest(self._registry)
