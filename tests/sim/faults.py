"""Adapters that fail on purpose, by a script for one test. (The simulation has `network` for it.)

A fault strikes before its call's effect or after it. The second is the worst one: it was done, and
the caller saw an error.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import anyio

from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    LeasesUnavailableError,
    StoreUnavailableError,
    StreamUnavailableError,
)
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.leases.port import Lease, Leases
from streamjournal.store.meta import Meta
from streamjournal.store.port import Body, DeadLetter, Head, Listed, ListedLetter, Store
from streamjournal.stream.port import (
    Accepted,
    PutRecord,
    ReadBatch,
    Refused,
    Shard,
    ShardReader,
    Stream,
)

T = TypeVar("T")

UNAVAILABLE: Mapping[str, type[Exception]] = {
    "stream": StreamUnavailableError,
    "store": StoreUnavailableError,
    "leases": LeasesUnavailableError,
}


class Fault(NamedTuple):
    """What goes wrong with one call.

    Args:
        error: raised to the caller.
        after: whether the call's effect happens first.
    """

    error: Exception
    after: bool = False


class Faults:
    """What goes wrong, call by call. Call names are `stream.put`, `store.append`, `leases.update`, …

    Args:
        clock: for latency, drawn for each call where `latency` is above 0.
        trace: gets a line per call.

    Attributes:
        away: ports that do not answer at all, `stream`, `store`, `leases`, or single calls' names.
        script: call name -> faults of its next calls; None for a call that works.
        calls: how often each was called.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        latency: float = 0.0,
        trace: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._trace = trace
        self.latency = latency
        self.away: set[str] = set()
        self.script: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self.calls: defaultdict[str, int] = defaultdict(int)

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, as its fault has it."""
        self.calls[name] += 1
        if self.latency:
            await anyio.sleep(self.latency * self._clock.rng.random())
        fault = self._next(name)
        self._trace(f"{name} {fault!r}" if fault else name)
        if fault is not None and not fault.after:
            raise fault.error
        result = await call()
        if fault is not None:
            raise fault.error
        return result

    def _next(self, name: str) -> Fault | None:
        port = name.partition(".")[0]
        if port in self.away or name in self.away:
            return Fault(UNAVAILABLE[port](f"{port} is away"))
        if self.script[name]:
            return self.script[name].popleft()
        return None


class FaultyStream:
    """A stream with faults."""

    def __init__(self, inner: Stream, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.refuse: Callable[[PutRecord], Refused | None] = lambda _: None

    async def identity(self) -> StreamIdentity:
        return await self.faults.around("stream.identity", self.inner.identity)

    async def shards(self) -> list[Shard]:
        return await self.faults.around("stream.shards", self.inner.shards)

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        async def put_some() -> list[Accepted | Refused]:
            refused = [self.refuse(record) for record in records]
            taken = iter(
                await self.inner.put([r for r, no in zip(records, refused, strict=True) if no is None])
            )
            return [no or next(taken) for no in refused]

        return await self.faults.around("stream.put", put_some)

    def reader(self, shard_id: str, start: ShardStart) -> ShardReader:
        self.faults.calls["stream.reader"] += 1
        return FaultyReader(self.inner.reader(shard_id, start), self.faults)

    async def retention(self) -> float:
        return await self.faults.around("stream.retention", self.inner.retention)

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        return await self.faults.around("stream.trim", lambda: self.inner.trim(checkpoints))

    async def aclose(self) -> None:
        await self.inner.aclose()


class FaultyReader:
    """A reader with faults, which strike before the read: a reader that fails skips nothing."""

    def __init__(self, inner: ShardReader, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def next(self, *, wait: float = 0.0, max_records: int = 10_000) -> ReadBatch:
        return await self._faults.around(
            "stream.next", lambda: self._inner.next(wait=wait, max_records=max_records)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyStore:
    """A store with faults; counts the bytes read."""

    def __init__(self, inner: Store, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.bytes_read = 0

    async def head(self, session_id: str) -> Head | None:
        return await self.faults.around("store.head", lambda: self.inner.head(session_id))

    async def was_deleted(self, session_id: str) -> bool:
        return await self.faults.around("store.was_deleted", lambda: self.inner.was_deleted(session_id))

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        return await self.faults.around(
            "store.append", lambda: self.inner.append(session_id, base, lines, meta)
        )

    @asynccontextmanager
    async def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body | None]:
        await self.faults.around("store.open", anyio.lowlevel.checkpoint)
        async with self.inner.open(session_id, start, stop) as body:
            yield None if body is None else body._replace(chunks=self._counted(body.chunks))

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.bytes_read += len(chunk)
            yield chunk

    def journals(self) -> AsyncIterator[Listed]:
        return self.inner.journals()

    async def head_named(self, name: str) -> Head | None:
        return await self.faults.around("store.head_named", lambda: self.inner.head_named(name))

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        return await self.faults.around(
            "store.put_blob", lambda: self.inner.put_blob(session_id, entry_id, data)
        )

    async def get_blob(self, key: str) -> bytes | None:
        return await self.faults.around("store.get_blob", lambda: self.inner.get_blob(key))

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        return await self.faults.around(
            "store.put_dead_letters", lambda: self.inner.put_dead_letters(letters)
        )

    def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        return self.inner.list_dead_letters()

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        return await self.faults.around("store.get_dead_letter", lambda: self.inner.get_dead_letter(key))

    async def remove_dead_letter(self, key: str) -> None:
        await self.faults.around("store.remove_dead_letter", lambda: self.inner.remove_dead_letter(key))

    async def probe(self) -> None:
        await self.inner.probe()

    async def aclose(self) -> None:
        await self.inner.aclose()


class FaultyLeases:
    """A lease table with faults."""

    def __init__(self, inner: Leases, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def rows(self) -> list[Lease]:
        return await self.faults.around("leases.rows", self.inner.rows)

    async def create(self, lease: Lease) -> bool:
        return await self.faults.around("leases.create", lambda: self.inner.create(lease))

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        return await self.faults.around("leases.update", lambda: self.inner.update(seen, changed))

    async def delete(self, lease: Lease) -> None:
        await self.faults.around("leases.delete", lambda: self.inner.delete(lease))

    async def aclose(self) -> None:
        await self.inner.aclose()
