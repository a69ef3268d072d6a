"""The server's metrics, in the form of Prometheus. docs/trigger-server.md lists them."""

import time
from collections import Counter as Counted
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """All metrics of one server, in a registry of its own. Labels have few values, whatever is sent to the server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"lmmpress_trigger_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"lmmpress_trigger_{name}", what, labels, registry=self.registry)

        def seconds(name: str, what: str, buckets: Iterable[float], *labels: str) -> Histogram:
            full = f"lmmpress_trigger_{name}_seconds"
            return Histogram(full, what, labels, registry=self.registry, buckets=tuple(buckets))

        self.requests = counter("requests", "Requests that were answered.", "route", "method", "status")
        self.request_seconds = seconds("request", "From a request to its answer.", _QUICK, "route")
        self.deliveries = counter("deliveries", "Deliveries of MLflow's webhook by what came of them.", "result")
        self.fires = counter("fires", "Models that were looked at because of a hint or a person.", "cause", "result")
        self.fire_seconds = seconds("fire", "How long it took to look at a model and claim it.", _SLOW)
        self.rounds = counter("reconciler_rounds", "Rounds of the reconciler.", "result")
        self.round_seconds = seconds("reconciler_round", "How long a round of the reconciler took.", _SLOW)
        self.last_round = gauge(
            "reconciler_last_success_timestamp_seconds", "When a round of this server last ended without a fault."
        )
        self.claims = gauge("claims", "Claims in the store, by state.", "model", "state")
        self.pending = gauge("pending_models", "Models that were hinted at and not looked at yet.")
        self.noting = gauge("deliveries_under_way", "Deliveries that are being noted in the store.")
        self.working = gauge("requests_under_way", "Requests that are being worked on, without deliveries and probes.")
        self.acts = counter("acts", "What persons and programs have done with a token.", "what", "outcome")
        self._claimed: set[tuple[str, str]] = set()

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)

    def count_claims(self, claims: Iterable[tuple[str, str]]) -> None:
        """Set the number of claims from all of them: (model, state) of each."""
        counted = Counted(claims)
        for model, state in self._claimed - set(counted):
            self.claims.labels(model, state).set(0)
        for (model, state), count in counted.items():
            self.claims.labels(model, state).set(count)
        self._claimed |= set(counted)

    @contextmanager
    def timed(self, histogram: Histogram) -> Iterator[None]:
        """Observe how long the block takes, with whatever outcome."""
        began = time.perf_counter()
        try:
            yield
        finally:
            histogram.observe(time.perf_counter() - began)
