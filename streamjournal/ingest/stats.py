"""What a worker has done since it started, and how its shards stand: plain numbers that anything may show.

The pipeline writes them and never asks them anything. Another thread may read them (the metrics are
scraped so): each number is replaced in one step, and a dict is gone through as a copy.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, Literal

LeaseChange = Literal["taken", "lost", "released", "asked_for"]

FLUSH_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STALE_SECONDS: Final = 5.0  # since a read ended, after which what it said is too old to stand by itself


@dataclass(slots=True)
class Histogram:
    """How often something took how long.

    Args:
        counts: how often it took at most the bound of that place, and more than the one before; the last
            place is for what took longer than every bound.
        total: seconds, all together.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(FLUSH_BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(FLUSH_BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class ShardStats:
    """How a shard stands whose lease this worker holds. Times are monotonic seconds.

    Args:
        taken_at: when the lease was taken.
        read_at: when a read last brought something, or found that there was nothing; `taken_at` at first.
        written_at: when something of it last became durable; `taken_at` at first.
        behind_ms: how far behind the newest record the last read was, milliseconds.
        due_since: since when something has been due to be written without everything due being so; None
            while nothing is due.
        oldest_ms: when the stream took the oldest record that is read and not durable, milliseconds since
            1970; None if there is none.
    """

    taken_at: float
    read_at: float
    written_at: float
    behind_ms: int = 0
    due_since: float | None = None
    oldest_ms: int | None = None

    def read(self, now: float, behind_ms: int, *, found: bool) -> None:
        """Note that a read ended.

        One that finds nothing and is no nearer to the newest record has not moved: a stream that gives
        empty answers for ever stands still, although it answers.

        Args:
            found: whether it brought records.
        """
        if found or behind_ms == 0 or behind_ms < self.behind_ms:
            self.read_at = now
        self.behind_ms = behind_ms

    def wrote(self, now: float) -> None:
        """Note that something became durable: entries in their journal, or the checkpoint moved on."""
        self.written_at = now

    def lag_ms(self, now: float) -> int:
        """How far behind the newest record the reading may be.

        Nobody knows what came since the last read; where that is long ago, all of the time since counts.
        """
        since = now - self.read_at
        return self.behind_ms + (int(since * 1000) if since > _STALE_SECONDS else 0)

    def unwritten_ms(self, now_ms: int) -> int:
        """The age of the oldest record that is read and not durable, 0 if there is none.

        Args:
            now_ms: wall time, milliseconds since 1970.
        """
        return 0 if self.oldest_ms is None else max(0, now_ms - self.oldest_ms)


@dataclass(slots=True)
class Stats:
    """Counters of one worker.

    Args:
        records: read from the stream.
        entries: found in them.
        bytes: of entries that are in their journals now.
        commits: writes of journals.
        conflicts: writes that met another version of the journal, or got no answer.
        duplicates: entries that their journal had already.
        dead_letters: records and entries kept aside.
        flush_failures: rounds of writing that ended with an error; what they left is tried again.
        buffered_bytes: entries read and not durable.
        shards: how many are worked on.
        held: those whose lease is held.
        lag_ms: per shard, how far behind the newest record the last read was, milliseconds.
        lease_changes: how often a lease was taken, lost, released, asked for.
        flushes: how long one session's write took, until it was durable.
        retention_seconds: how long the stream keeps a record; None while it is not known.
    """

    records: int = 0
    entries: int = 0
    bytes: int = 0
    commits: int = 0
    conflicts: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    flush_failures: int = 0
    buffered_bytes: int = 0
    shards: int = 0
    held: dict[str, ShardStats] = field(default_factory=dict)
    lag_ms: dict[str, int] = field(default_factory=dict)
    lease_changes: dict[LeaseChange, int] = field(
        default_factory=lambda: {"taken": 0, "lost": 0, "released": 0, "asked_for": 0}
    )
    flushes: Histogram = field(default_factory=Histogram)
    retention_seconds: float | None = None

    def shard(self, shard_id: str, now: float) -> ShardStats:
        """A held shard's numbers; they begin now if there are none yet.

        Args:
            now: monotonic seconds.
        """
        known = self.held.get(shard_id)
        if known is None:
            known = self.held[shard_id] = ShardStats(now, now, now)
        return known

    def lease_taken(self, shard_id: str, now: float) -> None:
        """Note a lease that was taken; the shard's numbers begin anew."""
        self.lease_changes["taken"] += 1
        self.held[shard_id] = ShardStats(now, now, now)

    def lease_gone(self, shard_id: str, how: Literal["lost", "released"]) -> None:
        """Note a lease that was held and is not any more."""
        self.lease_changes[how] += 1
        self.forget(shard_id)

    def lease_asked_for(self) -> None:
        """Note that this worker asked another one for a lease."""
        self.lease_changes["asked_for"] += 1

    def forget(self, shard_id: str) -> None:
        """Drop the numbers of a shard that is not worked on any more."""
        self.held.pop(shard_id, None)
        self.lag_ms.pop(shard_id, None)
