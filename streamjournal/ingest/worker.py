"""The worker: takes its share of the shards by lease, runs a task for each, and ends them all in order.

A stream, store or lease table that does not answer, at the start or later, is waited for: the
entries are safe on the stream. A drain gives up instead, because somebody waits for it.
"""

from __future__ import annotations

from collections.abc import Collection

import anyio
import structlog
from anyio.abc import TaskGroup

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    ForeignLeaseTableError,
    LeaseLostError,
    NotConfiguredError,
    RecordsTrimmedError,
    UnavailableError,
)
from streamjournal.core.position import SHARD_END, StreamIdentity
from streamjournal.core.settings import Settings
from streamjournal.ingest.balance import Sightings, divide
from streamjournal.ingest.drain import Drained
from streamjournal.ingest.held_lease import HeldLease
from streamjournal.ingest.shard_sync import ShardSync
from streamjournal.ingest.shard_task import Outcome, ShardTask
from streamjournal.ingest.sink import Budget, Sink
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.leases.port import Lease, Leases
from streamjournal.stream.port import Shard, Stream

_log = structlog.get_logger("streamjournal.ingest")
_GRACE = 8.0  # seconds that a stop leaves for flushing; the process has 10
_RELEASE_SECONDS = 1.5  # more, for letting go of the leases
_DRAIN_PATIENCE = 10.0  # seconds that a drain waits for what does not answer
_TRIM_EVERY = 60.0
_LONGEST_ROUND = 0.5  # seconds, so that a lease that was let go is taken up in less than one


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
        self._stopped = float("inf")  # when it was told to
        self._sync = ShardSync(leases, sink.name, clock)
        self._sightings = Sightings(clock, settings.lease_seconds)
        self._drained = Drained(stream)
        self._tasks: dict[str, ShardTask] = {}
        self._held: dict[str, HeldLease] = {}
        self._checkpoints: dict[str, str] = {}
        self._next_trim = 0.0
        self._identity = StreamIdentity("", "")
        self._looked = False  # a round went through, so the shards are known
        self._gave_up: Exception | None = None

    def stop(self) -> None:
        """Flush, checkpoint, release, end. Callable from the worker's own loop."""
        self._stopped = min(self._stopped, self._clock.monotonic())
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`, or (drain) until drained.

        Raises:
            ForeignLeaseTableError: the lease table is not ours to write into.
            UnavailableError, NotConfiguredError: only when draining.
        """
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._limit_stop, outer.cancel_scope, name="limit of the stop")
            async with anyio.create_task_group() as tasks:
                await self._supervise(tasks)
            outer.cancel_scope.cancel()
        await self._let_go()
        if self._gave_up is not None:
            raise self._gave_up

    async def _let_go(self) -> None:
        """Leave no row with this worker's name, so that nobody waits for it to expire.

        There may be some: of tasks that were cut short, of what was asked for in vain, of what was taken or
        released by a write without an answer.
        """
        left = self._stopped + _GRACE - self._clock.monotonic() if self._gave_up is None else 0.0
        with anyio.move_on_after(max(0.0, left) + _RELEASE_SECONDS):
            while True:
                try:
                    named = [row for row in await self._leases.rows() if row.left_by(self.name) is not row]
                    if not named:
                        return
                    for row in named:
                        await self._leases.update(row, row.left_by(self.name))
                except (LeaseLostError, UnavailableError, NotConfiguredError):
                    await anyio.sleep(0.05)  # it changed hands just now, or the table is away: look again
        _log.warning("release_failed", note="others take what is left once it expires")

    async def _supervise(self, tasks: TaskGroup) -> None:
        """Round after round until stopped; what does not answer makes the rounds rarer."""
        interval = min(self._settings.lease_seconds / 20, _LONGEST_ROUND)
        backoff = Backoff(self._clock, first=0.2, longest=1.0 if self._drain else 30.0)
        while not self._stop.is_set():
            wait = interval
            try:
                if await self._round(tasks):
                    wait = interval / 4
            except ForeignLeaseTableError:
                raise  # time does not mend it, and waiting would hide it
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
            for shard_id, task in self._tasks.items():
                if task.drained.is_set():
                    self._drained.add(shard_id)
            if self._looked and self._drained.shards >= self._checkpoints.keys():
                self.stop()
            await anyio.sleep(0.02)

    async def _round(self, tasks: TaskGroup) -> bool:
        """Look at shards and leases once, take what is free, and ask for what is missing of a fair share.

        Returns:
            Whether to look again soon: leases are free that seem to be others' share. A worker that stops
            lets go of one after the other, and counts as one of those others until the last.
        """
        if not self._identity.arn:
            self._identity = await self._stream.identity()
            _log.info("worker_started", worker=self.name, stream=self._identity.arn)
        shards = await self._stream.shards()
        rows = await self._sync.rows(self._identity, shards)
        self._sightings.look(rows.values())
        self._checkpoints = {key: row.checkpoint for key, row in rows.items()}
        for key, held in self._held.items():
            if key in rows:
                held.saw(rows[key])
        ready = [rows[shard.id] for shard in shards if self._is_ready(shard, rows)]
        unsettled = await self._divide(ready, tasks)
        if self._drain:
            for row in rows.values():
                if row.checkpoint == SHARD_END:
                    self._drained.add(row.key)
            for row in ready:
                if row.key not in self._tasks:
                    await self._drained.look(row)
        self._looked = True
        await self._trim()
        return unsettled

    def _is_ready(self, shard: Shard, rows: dict[str, Lease]) -> bool:
        """Whether there is work: a child starts when its listed parents have ended; an unlisted one has
        expired.
        """
        if rows[shard.id].checkpoint == SHARD_END:
            return False
        return all(rows[parent].checkpoint == SHARD_END for parent in shard.parents if parent in rows)

    async def _divide(self, ready: Collection[Lease], tasks: TaskGroup) -> bool:
        for row in ready:
            if row.owner == self.name and row.key not in self._tasks and self._may_start(row):
                await self._take(row, tasks)
        free = {row.key for row in ready if self._is_free(row)}
        overdue = {row.key for row in ready if row.key in free and self._sightings.overdue(row)}
        division = divide(list(ready), self.name, free, overdue, self._clock.rng.shuffle)
        for row in division.take:
            await self._take(row, tasks)
        for row in () if self._drain else division.ask:  # a drain is gone soon; it only fills in
            await self._ask(row)
        return len(division.take) < len(free)

    def _is_free(self, row: Lease) -> bool:
        """Whether nobody holds the lease, or its owner has given no sign of life for too long.

        What a task of ours still works on is not free, whoever the table says has it: first that ends.
        """
        if row.owner == self.name or row.key in self._tasks:
            return False
        return row.owner is None or self._sightings.expired(row)

    def _may_start(self, row: Lease) -> bool:
        """Whether a lease of ours without a task is to be worked on.

        It was handed over; or it was taken by a write whose answer got lost, or not released by one; or
        its last owner died while it flushed.
        """
        return row.checkpoint_owner is None or self._sightings.expired(row)

    async def _ask(self, row: Lease) -> None:
        try:
            await self._leases.update(row, row.asked_by(self.name))
        except LeaseLostError:
            return  # it was renewed, or somebody else asked; the next round looks again
        self._stats.lease_asked_for()
        _log.info("lease_asked_for", shard=row.key, of=row.owner)

    async def _take(self, row: Lease, tasks: TaskGroup) -> None:
        try:
            taken = await self._leases.update(row, row.taken_by(self.name))
        except LeaseLostError:
            return  # somebody was faster
        self._stats.lease_taken(row.key, self._clock.monotonic())
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
        self._tell_of_shard("lease_taken", shard=row.key, checkpoint=row.checkpoint, from_worker=row.owner)
        tasks.start_soon(self._work, row.key, task, held, name=f"shard {row.key}")

    async def _work(self, shard_id: str, task: ShardTask, held: HeldLease) -> None:
        try:
            async with anyio.create_task_group() as both:
                both.start_soon(held.keep, self._settings.lease_seconds / 3, name=f"renew {shard_id}")
                outcome = await task.run()
                both.cancel_scope.cancel()
            if task.drained.is_set():
                self._drained.add(shard_id)
            if outcome is Outcome.LOST:
                self._stats.lease_gone(shard_id, "lost")
            else:
                await self._release(held)
            del self._held[shard_id]  # not in `finally`: who is cut short releases at the end of the run
            self._tell_of_shard(
                "shard_left", shard=shard_id, why=outcome.value, checkpoint=held.row.checkpoint
            )
        finally:
            self._tasks.pop(shard_id, None)
            self._stats.shards = len(self._tasks)
            self._stats.forget(shard_id)
            for what in ("shard", "lease", "store for"):
                self._trouble.worked(f"{what} {shard_id}")

    async def _release(self, held: HeldLease) -> None:
        try:
            await held.release()
        except (LeaseLostError, UnavailableError, NotConfiguredError) as problem:
            _log.warning("release_failed", shard=held.row.key, problem=str(problem))
        else:
            self._stats.lease_gone(held.row.key, "released")

    def _tell_of_shard(self, event: str, **fields: str | None) -> None:
        """A line about a lease; a drain takes all of them for a moment, which nobody wants to read."""
        (_log.debug if self._drain else _log.info)(event, **fields)

    async def _trim(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_trim:
            return
        self._next_trim = now + _TRIM_EVERY
        trimmed = await self._stream.trim({s: c for s, c in self._checkpoints.items() if c.isdigit()})
        if trimmed:
            _log.info("stream_trimmed", records=trimmed)
