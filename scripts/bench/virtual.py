"""The pipeline in virtual time: the real emitter, sender, worker and S3 store, on counted models of
Kinesis and S3. Hours of flush intervals pass in seconds, and the same run gives the same counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple, cast

import anyio
import trio
from trio.testing import MockClock

from scripts.bench.entries import Sample
from scripts.bench.model_s3 import ModelS3
from scripts.bench.tally import Tally
from streamjournal.core.aws import AwsClient
from streamjournal.core.clock import Clock
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.sender import Sender
from streamjournal.emit.wakeup import Wakeup
from streamjournal.ingest.service import WorkerService
from streamjournal.ingest.worker import Worker
from streamjournal.leases.memory import MemoryLeases
from streamjournal.store.s3 import S3Store
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import Accepted, PutRecord, Refused

_START_NS = 1_795_000_000 * 10**9
_CACHE_BYTES = 64 * 2**20  # of journals' bodies in the worker


class Event(NamedTuple):
    """An entry, and when it is emitted: seconds since the start."""

    at: float
    sample: Sample


class Counts(NamedTuple):
    """What a run took."""

    tally: Tally
    entries: int
    hours: float


class CountedStream(MemoryStream):
    """A stream in memory that counts PutRecords."""

    def __init__(self, tally: Tally, clock: Clock, shards: int) -> None:
        super().__init__(shards=shards, clock=clock)
        self._tally = tally

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put records, counted."""
        self._tally.note_put(list(records))
        return await super().put(records)


def count(events: Sequence[Event], *, flush_interval: float, shards: int) -> Counts:
    """Emit entries at their times, and count what it takes until all are in their journals.

    Args:
        events: by time.
        flush_interval: seconds.
    """
    return anyio.run(
        _run,
        events,
        flush_interval,
        shards,
        backend="trio",
        backend_options={"clock": MockClock(autojump_threshold=0)},
    )


def count_drain(samples: Sequence[Sample], *, shards: int) -> Counts:
    """Emit everything at once, and only then drain it: what can be repeated on real adapters."""
    return anyio.run(
        _drain,
        samples,
        shards,
        backend="trio",
        backend_options={"clock": MockClock(autojump_threshold=0)},
    )


class _Parts:
    """The pipeline's parts on one set of models."""

    def __init__(self, flush_interval: float, shards: int) -> None:
        self.settings = Settings(
            stream="model", bucket="model", spool="off", shards=shards, flush_interval=flush_interval
        )
        self.clock = Clock(
            time_ns=lambda: _START_NS + int(trio.current_time() * 1e9),
            monotonic=trio.current_time,
            rng=Random(1),
        )
        self.tally = Tally()
        self.stream = CountedStream(self.tally, self.clock, shards)
        client = cast("AwsClient", ModelS3(self.tally))
        self.store = S3Store("model", clock=self.clock, client=client, cache_bytes=_CACHE_BYTES)
        self.leases = MemoryLeases()
        self.wakeup = Wakeup()
        self.emitter = Emitter(self.settings, self.clock, lambda: None, self.wakeup.set, self.wakeup.set)
        self.sender = Sender(self.emitter, self.stream, self.store, self.settings, self.clock, self.wakeup)
        self.service = WorkerService(self.stream, self.store, self.leases, self.settings, self.clock)

    def emit(self, sample: Sample) -> None:
        """One entry."""
        self.emitter.emit(
            sample.event_type,
            session_id=sample.session_id,
            tool_name=sample.tool_name,
            details=sample.details,
            level=sample.level,
        )

    def counts(self) -> Counts:
        """What was counted; the entries are those in journals."""
        self.tally.lease_writes = len(self.leases.history)
        return Counts(self.tally, self.service.stats.entries, trio.current_time() / 3600)


async def _run(events: Sequence[Event], flush_interval: float, shards: int) -> Counts:
    parts = _Parts(flush_interval, shards)
    started: list[Worker] = []

    async def work() -> None:
        await parts.service.run(on_start=started.append)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, name="worker")
        async with anyio.create_task_group() as sending:
            sending.start_soon(parts.sender.run, name="sender")
            for at, sample in events:
                await anyio.sleep(max(0.0, at - trio.current_time()))
                parts.emit(sample)
            parts.sender.stop()
        stats = parts.service.stats
        while stats.entries < len(events) or stats.buffered_bytes:  # noqa: ASYNC110 - the worker tells nobody
            await anyio.sleep(1.0)
        started[0].stop()
    return parts.counts()


async def _drain(samples: Sequence[Sample], shards: int) -> Counts:
    parts = _Parts(30.0, shards)
    async with anyio.create_task_group() as sending:
        for sample in samples:
            parts.emit(sample)
        sending.start_soon(parts.sender.run, name="sender")
        parts.sender.stop()
    await parts.service.run(drain=True)
    return parts.counts()._replace(hours=0.0)  # too short to say anything per hour


def as_is(samples: Sequence[Sample], *, seconds_between: float) -> list[Event]:
    """Each session at its own pace; sessions begin in their order, so many seconds apart."""
    begins: dict[str, float] = {}
    events: list[Event] = []
    for sample in samples:
        begin = begins.setdefault(sample.session_id, len(begins) * seconds_between)
        events.append(Event(begin + sample.seconds, sample))
    return sorted(events, key=lambda event: event.at)


def one_session(samples: Sequence[Sample], *, entries: int, seconds: float) -> list[Event]:
    """So many entries of one session, evenly over so many seconds."""
    return [
        Event(n * seconds / entries, samples[n % len(samples)]._replace(session_id="one"))
        for n in range(entries)
    ]


def naive(samples: Sequence[Sample], line_bytes: Any) -> Tally:
    """The design without a stream: for each entry, get the journal, add a line, put it back."""
    tally = Tally()
    sizes: dict[str, int] = {}
    for sample in samples:
        size = sizes[sample.session_id] = sizes.get(sample.session_id, 0) + line_bytes(sample)
        tally.s3["GetObject"] += 1
        tally.s3["PutObject"] += 1
        tally.uploaded += size
    return tally
