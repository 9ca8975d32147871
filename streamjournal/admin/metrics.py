"""A worker's numbers as Prometheus takes them.

The pipeline knows nothing of it: a collector reads the plain `Stats` when somebody scrapes.
prometheus-client is an extra of the package, imported here only, and not before a port is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError
from streamjournal.ingest.stats import FLUSH_BOUNDS, Histogram
from streamjournal.ingest.watchdog import Watchdog, retention_share

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_PREFIX: Final = "streamjournal_worker_"
_COUNTERS: Final = {
    "records": "Records read from the stream.",
    "entries": "Entries found in these records.",
    "bytes": "Bytes of entries that are in their journals now.",
    "commits": "Writes of journals.",
    "conflicts": "Writes that met another version of the journal, or got no answer; each is resolved.",
    "duplicates": "Entries that their journal had already; they were dropped.",
    "dead_letters": "Records and entries that were kept aside, because they can be in no journal.",
    "flush_failures": "Rounds of writing that ended with an error; what they left is tried again.",
}


class WorkerCollector:
    """Gives prometheus-client a worker's numbers as they are at the moment of the scrape."""

    def __init__(self, watchdog: Watchdog, clock: Clock) -> None:
        self._watchdog = watchdog
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        from prometheus_client.metrics_core import CounterMetricFamily

        stats = self._watchdog.stats
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(stats, name))
        changes = CounterMetricFamily(
            f"{_PREFIX}lease_changes", "Leases taken, lost, released and asked for.", labels=["change"]
        )
        for change, count in stats.lease_changes.copy().items():
            changes.add_metric([change], count)
        yield changes
        yield _histogram(stats.flushes)
        yield from self._state()
        yield from self._shards()

    def _state(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        watchdog = self._watchdog
        stats = watchdog.stats
        for name, text, value in (
            ("buffered_bytes", "Bytes of entries that are read and in no journal yet.", stats.buffered_bytes),
            ("shards", "Shards whose lease this worker holds.", len(stats.held)),
            ("shards_standing_still", "Held shards that have not moved.", len(watchdog.standing_still)),
            ("ready", "1 while /readyz says so, else 0.", not watchdog.reasons()),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)
        if stats.retention_seconds is not None:
            yield GaugeMetricFamily(
                f"{_PREFIX}retention_seconds", "How long the stream keeps a record.", stats.retention_seconds
            )

    def _shards(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        lag = GaugeMetricFamily(
            f"{_PREFIX}lag_seconds",
            "How far the reading is behind the shard's newest record, to the millisecond.",
            labels=["shard"],
        )
        unwritten = GaugeMetricFamily(
            f"{_PREFIX}unwritten_age_seconds",
            "Age of the shard's oldest record that is read and in no journal yet.",
            labels=["shard"],
        )
        share = GaugeMetricFamily(
            f"{_PREFIX}lag_retention_ratio",
            "The part of the stream's retention that the oldest record not in a journal has used up.",
            labels=["shard"],
        )
        stats = self._watchdog.stats
        now, now_ms = self._clock.monotonic(), self._clock.time_ns() // 1_000_000
        for shard_id, shard in sorted(stats.held.copy().items()):
            lag.add_metric([shard_id], shard.lag_ms(now) / 1000)
            unwritten.add_metric([shard_id], shard.unwritten_ms(now_ms) / 1000)
            part = retention_share(stats, shard, now, now_ms)
            if part is not None:
                share.add_metric([shard_id], part)
        yield from (lag, unwritten, share)


def _histogram(flushes: Histogram) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    buckets: list[tuple[str, float]] = []
    counts, total, below = list(flushes.counts), flushes.total, 0
    for bound, count in zip((*map(str, FLUSH_BOUNDS), "+Inf"), counts, strict=True):
        below += count
        buckets.append((bound, below))
    return HistogramMetricFamily(
        f"{_PREFIX}flush_seconds",
        "How long the write of one session took, from its beginning until it was durable.",
        buckets=buckets,
        sum_value=total,
    )


def metrics_page(watchdog: Watchdog, clock: Clock) -> Callable[[], tuple[str, bytes]]:
    """Makes the page: its content type, and its body as it is then.

    Raises:
        NotConfiguredError: prometheus-client is not installed.
    """
    try:
        import prometheus_client as prometheus
    except ImportError:
        raise NotConfiguredError(
            "a metrics port is set, but prometheus-client is not installed: "
            "pip install 'streamjournal[metrics]', or unset STREAMJOURNAL_METRICS_PORT"
        ) from None
    registry = prometheus.CollectorRegistry()
    registry.register(WorkerCollector(watchdog, clock))
    prometheus.ProcessCollector(registry=registry)  # memory, CPU, open files
    return lambda: (prometheus.CONTENT_TYPE_LATEST, prometheus.generate_latest(registry))
