"""One task owns one shard: read, hand to the sink, flush what is due, move the checkpoint on.

Nobody else touches the task's state. It reads only after it has flushed what was due, so a slow
store slows the reading instead of filling the memory.
"""

from __future__ import annotations

from enum import Enum

import anyio
import structlog

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    LeaseLostError,
    NotConfiguredError,
    RecordsTrimmedError,
    UnavailableError,
)
from streamjournal.core.position import SHARD_END, TRIM_HORIZON, ShardStart
from streamjournal.ingest.held_lease import HeldLease
from streamjournal.ingest.sink import Budget, ShardSink
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.stream.caught_up import CaughtUp
from streamjournal.stream.port import ReadBatch, ShardReader, Stream

_log = structlog.get_logger("streamjournal.ingest")
_LONGEST_WAIT = 1.0  # seconds in one read, so that a stop is seen soon
_HAND_OVER_SECONDS = 5.0  # that who asked for the lease waits for a flush; then he reads the rest again
_MAX_RECORDS = 200  # per read: at most 200 MiB, and mostly some 10 MB


class Outcome(Enum):
    """How a shard's task ended."""

    STOPPED = "the worker stops"  # everything is flushed as far as possible
    ENDED = "the shard has ended"  # it is closed, and everything in it is durable
    HANDED_OVER = "handed over"  # another worker asked for it; what is not flushed it reads again
    LOST = "lost to another worker"


class ShardTask:
    """Works off one shard under a held lease.

    Args:
        checkpoint_every: seconds between two writes of the checkpoint.
        drain: flush early, and set `drained` once everything that was on the shard at the start is durable.
        stop: set to have everything flushed and the task end.
    """

    def __init__(
        self,
        shard_id: str,
        stream: Stream,
        lease: HeldLease,
        sink: ShardSink,
        clock: Clock,
        budget: Budget,
        stats: Stats,
        trouble: Trouble,
        *,
        checkpoint_every: float,
        drain: bool,
        stop: anyio.Event,
    ) -> None:
        self._shard_id = shard_id
        self._stream = stream
        self._lease = lease
        self._sink = sink
        self._clock = clock
        self._budget = budget
        self._stats = stats
        self._trouble = trouble
        self._checkpoint_every = checkpoint_every
        self._drain = drain
        self._stop = stop
        self._reached = CaughtUp()
        self._next_checkpoint = clock.monotonic()
        self._backoff = Backoff(clock, first=0.2, longest=30.0)
        self._read_at = clock.monotonic()  # not before
        self._table_backoff = Backoff(clock, first=0.2, longest=10.0)
        self._write_at = clock.monotonic()  # the lease table; not before
        self._from_horizon = lease.row.checkpoint == TRIM_HORIZON
        self._ended = False
        self._caught_up = False
        self.drained = anyio.Event()

    async def run(self) -> Outcome:
        """Work until stopped, ended, or the lease is asked for or lost."""
        reader = self._stream.reader(self._shard_id, ShardStart.after(self._lease.row.checkpoint))
        try:
            while not self._leaving():
                if not self._ended:
                    reader = await self._read(reader)
                if self._lease.lost.is_set():
                    break
                await self._sink.flush(everything=self._ended or self._budget.full)
                await self._note_progress()
                if self._ended and not self._sink.pending and await self._checkpoint(SHARD_END):
                    self.drained.set()
                    return Outcome.ENDED
                if self._ended or self._budget.full:
                    await self._wait(self._sink.pause())
            if self._lease.lost.is_set():
                return self._give_up()
            if self._stop.is_set():
                await self.finish()
                return Outcome.STOPPED
            with anyio.move_on_after(_HAND_OVER_SECONDS):
                await self.finish()
            self._sink.discard()
            return Outcome.HANDED_OVER
        except LeaseLostError:
            return self._give_up()
        finally:
            with anyio.move_on_after(1, shield=True):
                await reader.aclose()

    def _leaving(self) -> bool:
        lease = self._lease
        return self._stop.is_set() or lease.lost.is_set() or lease.asked.is_set()

    def _give_up(self) -> Outcome:
        _log.warning("lease_lost", shard=self._shard_id)
        self._sink.discard()
        return Outcome.LOST

    async def _read(self, reader: ShardReader) -> ShardReader:
        """One read into the sink; returns the reader to go on with."""
        if self._budget.full:
            return reader
        pause = self._sink.pause()
        wait = _LONGEST_WAIT if pause is None else min(pause, _LONGEST_WAIT)
        not_yet = self._read_at - self._clock.monotonic()
        if not_yet > 0:  # the stream is away; what is due goes on being flushed
            await self._wait(min(wait, not_yet))
            return reader
        try:
            batch = await self._next(reader, wait)
        except RecordsTrimmedError as problem:
            return await self._after_gap(reader, problem)
        except (UnavailableError, NotConfiguredError) as problem:
            self._failed_to_read(problem)
            return reader
        self._backoff.worked()
        self._trouble.worked(f"shard {self._shard_id}")
        self._sink.take(batch.records)
        self._stats.lag_ms[self._shard_id] = batch.behind_ms
        now = self._clock.monotonic()
        self._stats.shard(self._shard_id, now).read(now, batch.behind_ms, found=bool(batch.records))
        self._ended = batch.ended
        self._caught_up = self._reached(batch) or self._caught_up
        return reader

    async def _after_gap(self, reader: ShardReader, problem: RecordsTrimmedError) -> ShardReader:
        """Go on at the oldest record; a shard that cannot be read from there either has expired."""
        try:
            if self._from_horizon and not any(s.id == self._shard_id for s in await self._stream.shards()):
                _log.warning("shard_expired", shard=self._shard_id)
                self._ended = True
                return reader
        except (UnavailableError, NotConfiguredError) as away:
            self._failed_to_read(away)
            return reader
        _log.error("records_trimmed", shard=self._shard_id, problem=str(problem))
        if self._from_horizon:  # trimmed while we were reading, or still listed: not in a tight loop
            self._read_at = self._clock.monotonic() + self._backoff.failed()
        self._from_horizon = True
        await reader.aclose()
        return self._stream.reader(self._shard_id, ShardStart("TRIM_HORIZON"))

    def _failed_to_read(self, problem: Exception) -> None:
        wait = self._backoff.failed()
        self._read_at = self._clock.monotonic() + wait
        self._trouble.failed(f"shard {self._shard_id}", problem)
        _log.warning("read_failed", shard=self._shard_id, problem=str(problem), retry_in_s=round(wait, 1))

    async def _next(self, reader: ShardReader, wait: float) -> ReadBatch:
        """Read, but let a stop or a lost lease end the waiting for records that may never come."""
        if wait <= 0:
            return await reader.next(wait=0, max_records=_MAX_RECORDS)
        return await reader.next(wait=min(wait, 0.25), max_records=_MAX_RECORDS)

    async def _wait(self, seconds: float | None) -> None:
        with anyio.move_on_after(0.05 if seconds is None else min(seconds, _LONGEST_WAIT)):
            await self._stop.wait()

    async def _note_progress(self) -> None:
        """Write the checkpoint if it is time, and see whether the start's backlog is durable."""
        now = self._clock.monotonic()
        if now >= self._next_checkpoint:
            self._next_checkpoint = now + self._checkpoint_every
            await self._checkpoint()
        if self._drain and self._caught_up and not self.drained.is_set():
            await self._sink.flush(everything=True)
            if not self._sink.pending and await self._checkpoint():
                self.drained.set()

    async def _checkpoint(self, sequence: str | None = None) -> bool:
        """Write the checkpoint (`sequence`, or what is durable); False if the table does not answer."""
        sequence = sequence or self._sink.durable()
        if sequence is None:
            return not self._sink.pending
        if self._clock.monotonic() < self._write_at:
            return False
        before = self._lease.row.checkpoint
        try:
            await self._lease.checkpoint(sequence)
        except (UnavailableError, NotConfiguredError) as problem:
            wait = self._table_backoff.failed()
            self._write_at = self._clock.monotonic() + wait
            self._trouble.failed(f"lease {self._shard_id}", problem)
            _log.warning(
                "checkpoint_failed", shard=self._shard_id, problem=str(problem), retry_in_s=round(wait, 1)
            )
            return False
        self._table_backoff.worked()
        self._trouble.worked(f"lease {self._shard_id}")
        if self._lease.row.checkpoint != before:
            now = self._clock.monotonic()
            self._stats.shard(self._shard_id, now).wrote(now)
        return True

    async def finish(self) -> None:
        """Flush everything and write the checkpoint, as often as it takes (the caller sets a limit)."""
        while True:
            await self._sink.flush(everything=True)
            if await self._checkpoint() and not self._sink.pending:
                return
            await anyio.sleep(max(self._sink.pause() or 0.0, 0.05))
