"""What a worker has done since it started: plain numbers that anything may show."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counters of one worker.

    Args:
        lag_ms: per shard, how far behind the newest record the last read was, milliseconds.
        buffered_bytes: entries read and not durable.
    """

    records: int = 0
    entries: int = 0
    bytes: int = 0
    commits: int = 0
    conflicts: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    buffered_bytes: int = 0
    shards: int = 0
    lag_ms: dict[str, int] = field(default_factory=dict)
