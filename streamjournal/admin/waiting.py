"""What waits on each shard: the age of the oldest record after its checkpoint, by one short read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import anyio

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError, RecordsTrimmedError, UnavailableError
from streamjournal.core.position import SHARD_END, TRIM_HORIZON, ShardStart
from streamjournal.stream.port import ShardReader, Stream

_READ_SECONDS: Final = 5.0  # for one shard
_AT_ONCE: Final = 16  # shards; each allows five reads a second for everybody, and this takes one


class Waiting(NamedTuple):
    """What waits on a shard.

    Args:
        lag_ms: age of the oldest record that is in no journal yet, milliseconds; 0 if there is none, None
            if it could not be found out.
        trimmed: the stream has deleted records that come after the checkpoint.
        problem: why it could not be found out.
    """

    lag_ms: int | None = 0
    trimmed: bool = False
    problem: str | None = None


async def find_waiting(
    stream: Stream, checkpoints: Mapping[str, str], clock: Clock, *, seconds: float = _READ_SECONDS
) -> dict[str, Waiting]:
    """What waits on shards after their checkpoints; nothing is said of those that are at SHARD_END.

    Args:
        checkpoints: shard -> sequence number, TRIM_HORIZON or SHARD_END.
        seconds: to wait for one shard.
    """
    found: dict[str, Waiting] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def look(shard_id: str, checkpoint: str) -> None:
        async with limiter:
            found[shard_id] = await _find(stream, shard_id, checkpoint, clock, seconds)

    async with anyio.create_task_group() as tasks:
        for shard_id, checkpoint in checkpoints.items():
            if checkpoint != SHARD_END:
                tasks.start_soon(look, shard_id, checkpoint)
    return found


async def _find(stream: Stream, shard_id: str, checkpoint: str, clock: Clock, seconds: float) -> Waiting:
    with anyio.move_on_after(seconds):
        try:
            try:
                return Waiting(await _lag_after(stream, shard_id, ShardStart.after(checkpoint), clock))
            except RecordsTrimmedError:
                start = ShardStart(TRIM_HORIZON)
                return Waiting(await _lag_after(stream, shard_id, start, clock), trimmed=True)
        except (UnavailableError, NotConfiguredError, RecordsTrimmedError) as problem:
            return Waiting(None, problem=str(problem))
    return Waiting(None, problem=f"it did not answer within {seconds:.0f} s")


async def _lag_after(stream: Stream, shard_id: str, start: ShardStart, clock: Clock) -> int:
    reader = stream.reader(shard_id, start)
    try:
        return await _lag_of(reader, clock)
    finally:
        with anyio.move_on_after(1, shield=True):
            await reader.aclose()


async def _lag_of(reader: ShardReader, clock: Clock) -> int:
    """Milliseconds since the first record arrived; a sparse shard may answer emptily before it comes."""
    while True:
        batch = await reader.next(max_records=1)
        if batch.records:
            return max(1, clock.time_ns() // 1_000_000 - batch.records[0].arrival_ms)
        if batch.ended or not batch.behind_ms:
            return 0
