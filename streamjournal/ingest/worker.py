"""The worker: takes shards by lease, runs a task for each, and ends them all in order.

A stream, store or lease table that does not answer, at the start or later, is waited for: the
entries are safe on the stream. A drain gives up instead, because somebody waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import anyio
import structlog
from anyio.abc import TaskGroup

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    LeaseLostError,
    NotConfiguredError,
    RecordsTrimmedError,
    UnavailableError,
)
from streamjournal.core.position import SHARD_END, ShardStart, StreamIdentity
from streamjournal.core.settings import Settings
from streamjournal.ingest.held_lease import HeldLease
from streamjournal.ingest.shard_task import Outcome, ShardTask, reached_start
from streamjournal.ingest.sink import Budget, Sink
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.leases.port import Lease, Leases
from streamjournal.stream.port import Shard, Stream

_log = structlog.get_logger("streamjournal.ingest")
_GRACE = 8.0  # seconds that a stop leaves for flushing; the process has 10
_RELEASE_SECONDS = 1.0
_DRAIN_PATIENCE = 10.0  # seconds that a drain waits for what does not answer
_TRIM_EVERY = 60.0


@dataclass(slots=True)
class Seen:
    """A row as this worker saw it last; it expires by this worker's own clock."""

    counter: int
    owner: str | None
    since: float


class Worker:
    """Moves entries from a stream to a sink.

    Args:
        name: the owner in the lease rows; another for each start.
        drain: end once everything that was on the stream at the start is durable.
    """

    def __init__(
        self,
        stream: Stream,
        leases: Leases,
        sink: Sink,
        settings: Settings,
        clock: Clock,
        budget: Budget,
        stats: Stats,
        trouble: Trouble,
        *,
        drain: bool = False,
    ) -> None:
        self.name = f"worker-{clock.draw_id()}"
        self._stream = stream
        self._leases = leases
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._budget = budget
        self._stats = stats
        self._trouble = trouble
        self._drain = drain
        self._stop = anyio.Event()
        self._seen: dict[str, Seen] = {}
        self._tasks: dict[str, ShardTask] = {}
        self._held: dict[str, HeldLease] = {}
        self._elsewhere: dict[str, str | None] = {}  # drain: shard -> last sequence number, of others' shards
        self._drained: set[str] = set()
        self._checkpoints: dict[str, str] = {}
        self._next_trim = 0.0
        self._identity = StreamIdentity("", "")
        self._looked = False  # a round went through, so the shards are known
        self._gave_up: Exception | None = None

    def stop(self) -> None:
        """Flush, checkpoint, release, end. Callable from the worker's own loop."""
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`, or (drain) until drained.

        Raises:
            UnavailableError, NotConfiguredError: only when draining.
        """
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._limit_stop, outer.cancel_scope, name="limit of the stop")
            async with anyio.create_task_group() as tasks:
                await self._supervise(tasks)
            outer.cancel_scope.cancel()
        await self._release_rest()
        if self._gave_up is not None:
            raise self._gave_up

    async def _release_rest(self) -> None:
        """Let go what tasks that were cut short still hold, so that the next worker need not wait."""
        with anyio.move_on_after(_RELEASE_SECONDS):
            for held in list(self._held.values()):
                await self._release(held)

    async def _supervise(self, tasks: TaskGroup) -> None:
        """Round after round until stopped; what does not answer makes the rounds rarer."""
        interval = min(self._settings.lease_seconds / 5, 2.0)
        backoff = Backoff(self._clock, first=0.2, longest=1.0 if self._drain else 30.0)
        while not self._stop.is_set():
            wait = interval
            try:
                await self._round(tasks)
            except (UnavailableError, NotConfiguredError, RecordsTrimmedError) as problem:
                wait = backoff.failed()
                self._trouble.failed("worker", problem)
                _log.warning("not_reachable", problem=str(problem), retry_in_s=round(wait, 1))
            else:
                backoff.worked()
                self._trouble.worked("worker")
            if self._drain:
                await self._watch_drain(wait, tasks)
            else:
                with anyio.move_on_after(wait):
                    await self._stop.wait()

    async def _limit_stop(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        await anyio.sleep(_GRACE)
        _log.error("stop_incomplete", shards=sorted(self._tasks), note="what is not flushed is read again")
        scope.cancel()

    async def _watch_drain(self, seconds: float, tasks: TaskGroup) -> None:
        """Until the next round: stop once everything is drained, or something has failed for too long."""
        deadline = self._clock.monotonic() + seconds
        while not self._stop.is_set() and self._clock.monotonic() < deadline:
            self._gave_up = self._trouble.lasting(_DRAIN_PATIENCE)
            if self._gave_up is not None:
                tasks.cancel_scope.cancel()
            self._drained |= {shard for shard, task in self._tasks.items() if task.drained.is_set()}
            if self._looked and self._drained >= self._checkpoints.keys():
                self.stop()
            await anyio.sleep(0.02)

    async def _round(self, tasks: TaskGroup) -> None:
        """Look at shards and leases once, and take what is free."""
        if not self._identity.arn:
            self._identity = await self._stream.identity()
            _log.info("worker_started", worker=self.name, stream=self._identity.arn)
        shards = await self._stream.shards()
        rows = await self._rows_of(shards)
        self._checkpoints = {shard.id: rows[shard.id].checkpoint for shard in shards}
        for shard in shards:
            row = rows[shard.id]
            if row.checkpoint == SHARD_END:
                self._drained.add(shard.id)
            elif shard.id not in self._tasks and self._parents_done(shard, rows):
                if self._is_free(row):
                    await self._take(row, tasks)
                elif self._drain:
                    await self._watch(row)
        self._looked = True
        await self._trim()

    async def _rows_of(self, shards: Iterable[Shard]) -> dict[str, Lease]:
        """The lease of each shard, made where there is none (or one of another stream)."""
        rows = {row.key: row for row in await self._leases.rows()}
        stream = f"{self._identity.arn} {self._identity.created}"
        for shard in shards:
            row = rows.get(shard.id)
            fresh = Lease(shard.id, parents=shard.parents, stream=stream, sink=self._sink.name)
            if row is None:
                await self._leases.create(fresh)
                rows[shard.id] = fresh
            elif row.stream != stream:
                _log.error("lease_of_another_stream", shard=shard.id, stream=row.stream, note="replaced")
                try:
                    rows[shard.id] = await self._leases.update(row, replace(fresh, counter=row.counter + 1))
                except LeaseLostError:  # another worker replaced it first
                    return await self._rows_of(shards)
        return rows

    def _parents_done(self, shard: Shard, rows: dict[str, Lease]) -> bool:
        """A child starts when its listed parents have ended; an unlisted one has expired."""
        return all(rows[p].checkpoint == SHARD_END for p in shard.parents if p in self._checkpoints)

    def _is_free(self, row: Lease) -> bool:
        """Whether nobody holds the lease, or its owner has given no sign of life for too long.

        What is ours without a task was taken by a write whose answer got lost, or not released by one.
        """
        now = self._clock.monotonic()
        seen = self._seen.get(row.key)
        if seen is None or (seen.counter, seen.owner) != (row.counter, row.owner):
            self._seen[row.key] = seen = Seen(row.counter, row.owner, now)
        return row.owner in (None, self.name) or now - seen.since >= self._settings.lease_seconds

    async def _take(self, row: Lease, tasks: TaskGroup) -> None:
        try:
            taken = await self._leases.update(row, row.taken_by(self.name))
        except LeaseLostError:
            return  # somebody was faster
        held = HeldLease(self._leases, taken)
        sink = self._sink.open(row.key, self._identity.digest, held.still_ours)
        task = ShardTask(
            row.key,
            self._stream,
            held,
            sink,
            self._clock,
            self._budget,
            self._stats,
            self._trouble,
            checkpoint_every=min(self._settings.flush_seconds, 5.0),
            drain=self._drain,
            stop=self._stop,
        )
        self._tasks[row.key] = task
        self._held[row.key] = held
        self._stats.shards = len(self._tasks)
        _log.info("lease_taken", shard=row.key, checkpoint=row.checkpoint, from_worker=row.owner)
        tasks.start_soon(self._work, row.key, task, held, name=f"shard {row.key}")

    async def _work(self, shard_id: str, task: ShardTask, held: HeldLease) -> None:
        try:
            async with anyio.create_task_group() as both:
                both.start_soon(held.keep, self._settings.lease_seconds / 3, name=f"renew {shard_id}")
                outcome = await task.run()
                both.cancel_scope.cancel()
            if task.drained.is_set():
                self._drained.add(shard_id)
            if outcome is not Outcome.LOST:
                await self._release(held)
            del self._held[shard_id]  # not in `finally`: who is cut short releases at the end of the run
            _log.info("shard_done", shard=shard_id, outcome=outcome.value, checkpoint=held.row.checkpoint)
        finally:
            self._tasks.pop(shard_id, None)
            self._stats.shards = len(self._tasks)
            self._stats.lag_ms.pop(shard_id, None)
            for what in ("shard", "lease", "store for"):
                self._trouble.worked(f"{what} {shard_id}")

    async def _release(self, held: HeldLease) -> None:
        try:
            await held.release()
        except (LeaseLostError, UnavailableError, NotConfiguredError) as problem:
            _log.warning("release_failed", shard=held.row.key, problem=str(problem))

    async def _watch(self, row: Lease) -> None:
        """Drain: another worker has the shard; it is drained once its checkpoint is past today's end."""
        if row.key not in self._elsewhere:
            self._elsewhere[row.key] = await self._last_sequence(row)
        last = self._elsewhere[row.key]
        if last is None or (row.checkpoint.isdigit() and int(row.checkpoint) >= int(last)):
            self._drained.add(row.key)

    async def _last_sequence(self, row: Lease) -> str | None:
        """The newest sequence number on a shard after its checkpoint, None if there is none."""
        try:
            return await self._last_after(row.key, ShardStart.after(row.checkpoint))
        except RecordsTrimmedError:
            return await self._last_after(row.key, ShardStart("TRIM_HORIZON"))

    async def _last_after(self, shard_id: str, start: ShardStart) -> str | None:
        started_ms = self._clock.time_ns() // 1_000_000
        reader = self._stream.reader(shard_id, start)
        last: str | None = None
        try:
            while True:
                batch = await reader.next()
                if batch.records:
                    last = batch.records[-1].sequence
                if reached_start(batch, started_ms):
                    return last
        finally:
            with anyio.move_on_after(1, shield=True):
                await reader.aclose()

    async def _trim(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_trim:
            return
        self._next_trim = now + _TRIM_EVERY
        trimmed = await self._stream.trim({s: c for s, c in self._checkpoints.items() if c.isdigit()})
        if trimmed:
            _log.info("stream_trimmed", records=trimmed)
