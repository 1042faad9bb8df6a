"""Prometheus metrics under the names of controller-runtime, so that its dashboards fit.

Imported only when ``--metrics-port`` is given. Labels name no object: their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from loopscope.controller.clock import Clock
from loopscope.controller.observer import Result
from loopscope.specs.keys import Key

QUEUE = "controller"
DURATION_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Standing:
    """How a state stands at one moment."""

    jobs: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many there are, by state and stage."""
    objects: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many there are, by kind and by the status of their Ready condition."""
    stalled: dict[str, int] = field(default_factory=dict)
    """How many need a human, by kind."""
    oldest_pending_seconds: float = 0.0
    """For how long the oldest job has waited."""
    free_bytes: int | None = None
    """How many bytes can still be written; None where that was not found out."""
    free_bytes_floor: int = 0
    """Below so many nothing starts."""


@dataclass(eq=False)  # a registry keeps its collectors by identity
class Metrics:
    """The ``Observer`` for Prometheus; gauges are computed when they are scraped."""

    clock: Clock
    look: Callable[[], Standing]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _waiting: dict[Key, float] = field(default_factory=dict)
    _processing: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, label: str) -> Histogram:
            return Histogram(name, text, [label], registry=self.registry, buckets=DURATION_BUCKETS)

        self._adds = counter("workqueue_adds_total", "Keys added", "name")
        self._retries = counter("workqueue_retries_total", "Keys put back with a delay", "name")
        self._queued = histogram("workqueue_queue_duration_seconds", "Time a key waited", "name")
        self._worked = histogram("workqueue_work_duration_seconds", "Time a key took", "name")
        self._total = counter(
            "controller_runtime_reconcile_total", "Reconciles", "controller", "result"
        )
        self._errors = counter(
            "controller_runtime_reconcile_errors_total", "Failed reconciles", "controller"
        )
        self._seconds = histogram(
            "controller_runtime_reconcile_time_seconds", "Time of a reconcile", "controller"
        )
        for each in (self._adds, self._retries, self._queued, self._worked):
            each.labels(QUEUE)
        self.registry.register(self)

    def added(self, key: Key, now: float) -> None:
        """Count, and remember since when the key waits."""
        self._adds.labels(QUEUE).inc()
        self._waiting.setdefault(key, now)

    def taken(self, key: Key, now: float) -> None:
        """Measure how long the key waited."""
        self._queued.labels(QUEUE).observe(max(0.0, now - self._waiting.pop(key, now)))
        self._processing[key] = now

    def done(self, key: Key, now: float) -> None:
        """Measure how long the key took."""
        self._worked.labels(QUEUE).observe(max(0.0, now - self._processing.pop(key, now)))

    def retried(self, key: Key) -> None:
        """Count."""
        self._retries.labels(QUEUE).inc()

    def reconciled(self, key: Key, result: Result, seconds: float) -> None:
        """Count and measure, by kind."""
        controller = key.kind.lower()
        self._total.labels(controller, result).inc()
        self._seconds.labels(controller).observe(max(0.0, seconds))
        if result == "error":
            self._errors.labels(controller).inc()

    def collect(self) -> Iterator[Metric]:
        """Yield what is true at this moment."""
        now = self.clock.elapsed()
        since = [now - at for at in list(self._processing.values())]
        for name, text, value in (
            ("workqueue_depth", "Keys that wait", len(self._waiting)),
            ("workqueue_unfinished_work_seconds", "Time in keys being processed", sum(since)),
            (
                "workqueue_longest_running_processor_seconds",
                "Time in the key that is processed longest",
                max(since, default=0.0),
            ),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["name"])
            gauge.add_metric([QUEUE], value)
            yield gauge
        yield from _gauges(self.look())


def _gauges(standing: Standing) -> Iterator[Metric]:
    counted = GaugeMetricFamily("loopscope_jobs", "Jobs", labels=["state", "stage"])
    for (state, stage), number in sorted(standing.jobs.items()):
        counted.add_metric([state, stage], number)
    yield counted
    ready = GaugeMetricFamily(
        "loopscope_objects", "Objects by their Ready condition", labels=["kind", "ready"]
    )
    for (kind, status), number in sorted(standing.objects.items()):
        ready.add_metric([kind, status], number)
    yield ready
    stalled = GaugeMetricFamily(
        "loopscope_objects_stalled", "Objects that need a human", labels=["kind"]
    )
    for kind, number in sorted(standing.stalled.items()):
        stalled.add_metric([kind], number)
    yield stalled
    yield GaugeMetricFamily(
        "loopscope_oldest_pending_job_seconds",
        "How long the oldest job has waited",
        standing.oldest_pending_seconds,
    )
    if standing.free_bytes is not None:
        yield GaugeMetricFamily(
            "loopscope_free_bytes",
            "Bytes that can still be written on the fuller disk of the state",
            standing.free_bytes,
        )
        yield GaugeMetricFamily(
            "loopscope_free_bytes_floor",
            "Below so many free bytes no job starts",
            standing.free_bytes_floor,
        )
