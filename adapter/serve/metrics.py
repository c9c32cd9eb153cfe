"""Counts and times for Prometheus: of one server, not of the process."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Requests by route and status, their seconds, and the sizes of batches."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "aape_requests", "Requests that were answered.", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "aape_request_seconds", "From the first byte to the answer.", ["route"],
            registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "aape_batch_size", "Requests that shared a pass.", buckets=_SIZES,
            registry=self.registry,
        )  # fmt: skip

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batches.observe(size)

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()
