"""What an hour without entries costs in the lease table: real workers in virtual time, counted."""

from __future__ import annotations

from random import Random
from typing import Final

import anyio
import trio
from trio.testing import MockClock

from scripts.bench import prices, report
from streamjournal.core.clock import Clock
from streamjournal.core.settings import Settings
from streamjournal.ingest.service import WorkerService
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease
from streamjournal.store.memory import MemoryStore
from streamjournal.stream.memory import MemoryStream

_START_NS: Final = 1_795_000_000 * 10**9
_FLEETS: Final = ((1, 4), (2, 4), (4, 16))  # workers, shards
_ROW_BYTES: Final = 400  # of a row in DynamoDB; a scan pays by 4 KB


class _CountedLeases(MemoryLeases):
    """A lease table that counts its scans; the writes are in its history."""

    scans = 0

    async def rows(self) -> list[Lease]:
        self.scans += 1
        return await super().rows()


def rows(lease_seconds: float) -> list[report.Row]:
    """A row per fleet."""
    return [_row(workers, shards, lease_seconds) for workers, shards in _FLEETS]


def _row(workers: int, shards: int, lease_seconds: float) -> report.Row:
    writes, scans = anyio.run(
        _hour,
        workers,
        shards,
        lease_seconds,
        backend="trio",
        backend_options={"clock": MockClock(autojump_threshold=0)},
    )
    units = scans * -(-shards * _ROW_BYTES // 4096)
    return {
        "fleet": f"{workers} workers, {shards} shards" if workers > 1 else f"1 worker, {shards} shards",
        "writes per shard-hour": writes / shards,
        "scans per worker-hour": scans / workers,
        "$ per month": (writes * prices.LEASE_WRITE + units * prices.LEASE_READ) * 730,
    }


async def _hour(workers: int, shards: int, lease_seconds: float) -> tuple[int, int]:
    """Writes and scans in an hour, after the leases have been shared."""
    clock = Clock(
        time_ns=lambda: _START_NS + int(trio.current_time() * 1e9),
        monotonic=trio.current_time,
        rng=Random(1),
    )
    settings = Settings(stream="model", bucket="model", lease_seconds=lease_seconds)
    stream, store = MemoryStream(shards=shards, clock=clock), MemoryStore(clock)
    leases = _CountedLeases()
    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(WorkerService(stream, store, leases, settings, clock).run)
        await anyio.sleep(60)
        writes, scans = len(leases.history), leases.scans
        await anyio.sleep(3600)
        writes, scans = len(leases.history) - writes, leases.scans - scans
        tasks.cancel_scope.cancel()
    return writes, scans
