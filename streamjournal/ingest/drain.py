"""When a drain is done: everything that was on the stream at its start is in the journals."""

from __future__ import annotations

import anyio

from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import ShardStart
from streamjournal.leases.port import Lease
from streamjournal.stream.caught_up import CaughtUp
from streamjournal.stream.port import Stream


class Drained:
    """The shards that are drained: by this worker, or, as their checkpoints show, by another."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._last: dict[str, str | None] = {}  # of shards elsewhere: the last sequence number to wait for
        self.shards: set[str] = set()

    def add(self, shard_id: str) -> None:
        """Count a shard as drained."""
        self.shards.add(shard_id)

    async def look(self, row: Lease) -> None:
        """Another worker has the shard; it is drained once its checkpoint is past today's end."""
        if row.key in self.shards:
            return
        if row.key not in self._last:
            self._last[row.key] = await self._last_sequence(row)
        last = self._last[row.key]
        if last is None or (row.checkpoint.isdigit() and int(row.checkpoint) >= int(last)):
            self.add(row.key)

    async def _last_sequence(self, row: Lease) -> str | None:
        """The newest sequence number on a shard after its checkpoint, None if there is none."""
        try:
            return await self._last_after(row.key, ShardStart.after(row.checkpoint))
        except RecordsTrimmedError:
            return await self._last_after(row.key, ShardStart("TRIM_HORIZON"))

    async def _last_after(self, shard_id: str, start: ShardStart) -> str | None:
        reached = CaughtUp()
        reader = self._stream.reader(shard_id, start)
        last: str | None = None
        try:
            while True:
                batch = await reader.next()
                if batch.records:
                    last = batch.records[-1].sequence
                if reached(batch):
                    return last
        finally:
            with anyio.move_on_after(1, shield=True):
                await reader.aclose()
