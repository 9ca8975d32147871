"""The services as one process sees them: the ports, with the network in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streamjournal.core.errors import (
    CommitConflictError,
    LeaseLostError,
    StoreUnavailableError,
    StreamUnavailableError,
)
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.leases.port import Lease
from streamjournal.read.feed import Feeds
from streamjournal.read.words import Access
from streamjournal.store.meta import Meta
from streamjournal.store.port import Body, DeadLetter, Head, Listed, ListedLetter
from streamjournal.stream.port import Accepted, PutRecord, ReadBatch, Refused, Shard, ShardReader
from tests.sim.checked import CheckedLeases, CheckedStore, CheckedStream
from tests.sim.host import Host
from tests.sim.network import Network
from tests.sim.plan import Plan
from tests.sim.trace import Trace


class RemoteStream:
    """The stream, from one host."""

    def __init__(self, stream: CheckedStream, host: Host, network: Network, plan: Plan) -> None:
        self._stream = stream
        self._host = host
        self._network = network
        self._plan = plan

    async def identity(self) -> StreamIdentity:
        return await self._network.call(self._host, "stream.identity", self._stream.identity)

    async def shards(self) -> list[Shard]:
        return await self._network.call(self._host, "stream.shards", self._stream.shards)

    async def retention(self) -> float:
        return await self._network.call(self._host, "stream.retention", self._stream.retention)

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """A call may take some records and refuse others, in its middle too."""

        async def put_some() -> list[Accepted | Refused]:
            refused = [self._network.strikes("put: partial") for _ in records]
            taken = iter(
                await self._stream.put([r for r, no in zip(records, refused, strict=True) if not no])
            )
            slow = Refused("ProvisionedThroughputExceededException", "slow down")
            return [slow if no else next(taken) for no in refused]

        return await self._network.call(self._host, "stream.put", put_some, writes=True)

    def reader(self, shard_id: str, start: ShardStart) -> ShardReader:
        return RemoteReader(self._stream, shard_id, start, self._host, self._network, self._plan.batch)

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        return await self._network.call(self._host, "stream.trim", lambda: self._stream.trim(checkpoints))

    async def aclose(self) -> None:
        """Nothing to free."""


class RemoteReader:
    """A reader of one shard, from one host. An iterator that expired is fetched anew, as the Kinesis
    adapter does it.
    """

    def __init__(
        self,
        stream: CheckedStream,
        shard_id: str,
        start: ShardStart,
        host: Host,
        network: Network,
        batch: int,
    ) -> None:
        self._stream = stream
        self._shard_id = shard_id
        self._host = host
        self._network = network
        self._batch = batch
        self._start = start
        self._inner = stream.reader(shard_id, start)

    async def next(self, *, wait: float = 0.0, max_records: int = 10_000) -> ReadBatch:
        if self._network.strikes("read: expired iterator"):
            self._inner = self._stream.reader(self._shard_id, self._start)
            raise StreamUnavailableError("expired iterator")
        batch = await self._network.call(
            self._host,
            "stream.next",
            lambda: self._inner.next(wait=wait, max_records=min(max_records, self._batch)),
        )
        if batch.records:
            self._start = ShardStart("AFTER_SEQUENCE_NUMBER", sequence=batch.records[-1].sequence)
        return batch

    async def aclose(self) -> None:
        """Nothing is held."""


class RemoteStore:
    """The store, from one host."""

    def __init__(self, store: CheckedStore, host: Host, network: Network, trace: Trace) -> None:
        self._store = store
        self._host = host
        self._network = network
        self._trace = trace

    async def head(self, session_id: str) -> Head | None:
        return await self._network.call(self._host, "store.head", lambda: self._store.head(session_id))

    async def was_deleted(self, session_id: str) -> bool:
        return await self._network.call(
            self._host, "store.was_deleted", lambda: self._store.was_deleted(session_id)
        )

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        async def append() -> Head:
            try:
                return await self._store.append(session_id, base, lines, meta)
            except CommitConflictError:
                self._trace.strike("raced", f"{self._host.name} {session_id}")
                raise

        return await self._network.call(self._host, "store.append", append, writes=True)

    @asynccontextmanager
    async def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body | None]:
        await self._network.call(self._host, "store.open", _nothing)
        async with self._store.open(session_id, start, stop) as body:
            yield None if body is None else body._replace(chunks=self._pieces(body.chunks))

    async def _pieces(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            half = len(chunk) // 2
            yield chunk[:half]
            await self._host.gate()
            if self._network.strikes("store: connection reset in a body"):
                raise StoreUnavailableError("connection reset")
            yield chunk[half:]

    def journals(self) -> AsyncIterator[Listed]:
        return self._store.journals()

    async def head_named(self, name: str) -> Head | None:
        return await self._network.call(self._host, "store.head_named", lambda: self._store.head_named(name))

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        return await self._network.call(
            self._host, "store.put_blob", lambda: self._store.put_blob(session_id, entry_id, data)
        )

    async def get_blob(self, key: str) -> bytes | None:
        return await self._network.call(self._host, "store.get_blob", lambda: self._store.get_blob(key))

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        return await self._network.call(
            self._host,
            "store.put_dead_letters",
            lambda: self._store.put_dead_letters(letters),
            writes=True,
        )

    def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        return self._store.list_dead_letters()

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        return await self._network.call(
            self._host, "store.get_dead_letter", lambda: self._store.get_dead_letter(key)
        )

    async def remove_dead_letter(self, key: str) -> None:
        await self._network.call(
            self._host, "store.remove_dead_letter", lambda: self._store.remove_dead_letter(key)
        )

    async def probe(self) -> None:
        await self._store.probe()

    async def aclose(self) -> None:
        """Nothing to free."""


class RemoteLeases:
    """The lease table, from one host."""

    def __init__(self, leases: CheckedLeases, host: Host, network: Network, trace: Trace) -> None:
        self._leases = leases
        self._host = host
        self._network = network
        self._trace = trace

    async def rows(self) -> list[Lease]:
        return await self._network.call(self._host, "leases.rows", self._leases.rows)

    async def create(self, lease: Lease) -> bool:
        return await self._network.call(
            self._host, "leases.create", lambda: self._leases.create(lease), writes=True
        )

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        async def update() -> Lease:
            try:
                return await self._leases.update(seen, changed)
            except LeaseLostError:
                self._trace.strike("lease lost", f"{self._host.name} {seen.key}")
                raise

        return await self._network.call(self._host, "leases.update", update, writes=True)

    async def delete(self, lease: Lease) -> None:
        await self._network.call(self._host, "leases.delete", lambda: self._leases.delete(lease), writes=True)

    async def aclose(self) -> None:
        """Nothing to free."""


async def _nothing() -> None:
    """A request whose effect is its answer."""


@dataclass
class Services:
    """All of them, from one host."""

    stream: RemoteStream
    store: RemoteStore
    leases: RemoteLeases

    def access(self, host: Host) -> Access:
        """What a read needs; with feeds of its own."""
        return Access(self.stream, self.store, self.leases, Feeds(self.stream), host.clock)
