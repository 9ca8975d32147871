"""Keeps the lease table in step with the stream: a row for each listed shard, none for long gone ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from streamjournal.core.clock import Clock
from streamjournal.core.errors import LeaseLostError
from streamjournal.core.position import SHARD_END, StreamIdentity
from streamjournal.leases.port import Lease, Leases
from streamjournal.stream.port import Shard

_log = structlog.get_logger("streamjournal.ingest")
_GONE_SECONDS: Final = 60.0  # a list may be older than a row that another worker made from a newer one


class ShardSync:
    """Makes, replaces and removes rows. Every worker does it; the table lets one of them win.

    Args:
        sink: the name that rows carry.
    """

    def __init__(self, leases: Leases, sink: str, clock: Clock) -> None:
        self._leases = leases
        self._sink = sink
        self._clock = clock
        self._known: set[str] = set()  # keys of rows that were there
        self._gone: dict[str, float] = {}  # keys of rows without a shard, and since when

    async def rows(self, identity: StreamIdentity, shards: Sequence[Shard]) -> dict[str, Lease]:
        """The lease of each listed shard, by its id.

        A row that is missing is made, to start at the oldest record: the shard is new, or somebody
        deleted its row. What was committed already is then read again and recognised.
        """
        found = {row.key: row for row in await self._leases.rows()}
        stream = identity.named
        rows: dict[str, Lease] = {}
        for shard in shards:
            rows[shard.id] = await self._row_of(shard, found.pop(shard.id, None), stream)
        self._known = set(rows)
        await self._note_children(rows, shards)
        await self._remove(found)
        return rows

    async def _row_of(self, shard: Shard, row: Lease | None, stream: str) -> Lease:
        fresh = Lease(
            shard.id,
            parents=shard.parents,
            stream=stream,
            sink=self._sink,
            hashes=(shard.first_hash, shard.last_hash),
        )
        if row is None:
            if shard.id in self._known:
                _log.error(
                    "lease_row_deleted", shard=shard.id, note="read again from the oldest record on the shard"
                )
            await self._leases.create(fresh)
            return fresh
        if row.stream == stream:
            return row
        _log.error("lease_of_another_stream", shard=shard.id, stream=row.stream, note="replaced")
        fresh = replace(fresh, counter=row.counter + 1)
        try:
            return await self._leases.update(row, fresh)
        except LeaseLostError:
            return fresh  # another worker replaced it first; who takes this row is refused, and looks again

    async def _note_children(self, rows: dict[str, Lease], shards: Sequence[Shard]) -> None:
        """Write an ended shard's children into its row, once it is nobody's: no other write meets it."""
        for shard in shards:
            for parent in shard.parents:
                row = rows.get(parent)
                if row is None or row.checkpoint != SHARD_END or row.owner or shard.id in row.children:
                    continue
                children = tuple(sorted(child.id for child in shards if parent in child.parents))
                try:
                    rows[parent] = await self._leases.update(row, replace(row, children=children))
                except LeaseLostError:
                    continue  # another worker was faster

    async def _remove(self, rows: dict[str, Lease]) -> None:
        """Delete rows whose shards the stream has not listed for a while: all they held has expired."""
        now = self._clock.monotonic()
        self._gone = {key: self._gone.get(key, now) for key in rows}
        for key, since in self._gone.items():
            if now - since < _GONE_SECONDS:
                continue
            row = rows[key]
            if row.checkpoint == SHARD_END:
                _log.info("lease_removed", shard=key)
            else:
                _log.error(
                    "shard_expired_unread", shard=key, checkpoint=row.checkpoint, note="its row is removed"
                )
            await self._leases.delete(row)
