"""The whole pipeline in memory, in virtual time: a stream, a store, leases, and workers over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import trio

from streamjournal.core.clock import Clock, format_timestamp
from streamjournal.core.entry import Draft, decode_envelope, encode_draft, split_id
from streamjournal.core.position import TRIM_HORIZON
from streamjournal.core.settings import Settings
from streamjournal.ingest.service import WorkerService
from streamjournal.ingest.worker import Worker
from streamjournal.leases.memory import MemoryLeases
from streamjournal.read.feed import Feeds
from streamjournal.read.words import Access
from streamjournal.store.history import read_history
from streamjournal.store.memory import MemoryStore
from streamjournal.store.names import session_of
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import Accepted, PutRecord
from tests.sim.faults import Faults, FaultyLeases, FaultyStore, FaultyStream
from tests.sim.virtual import virtual_clock

WRITER = "writer0001"
AWS_LIKE = Settings(stream="memory", bucket="memory", flush_interval=30.0)  # as for AWS: stretch, parallel
EMBEDDED = Settings()


def line(
    session_id: str,
    n: int,
    *,
    writer: str = WRITER,
    event_type: str = "TOOL_START",
    level: str = "INFO",
    details: Any = None,
    clock: Clock | None = None,
    tool_name: str | None = "tool",
) -> bytes:
    """An entry's line, as the emitter writes it."""
    now = format_timestamp((clock or virtual_clock()).time_ns())
    return encode_draft(
        Draft(f"{writer}-{n}", now, session_id, event_type, tool_name, level, details or {}, source="agent")
    )


def ids_in(body: bytes) -> list[str]:
    """The ids of a journal's lines."""
    return [decode_envelope(x).id for x in body.splitlines()]


class Rig:
    """A stream, a store and leases in memory, behind faults; make it inside the running loop."""

    def __init__(
        self, *, seed: int = 0, shards: int = 1, settings: Settings = EMBEDDED, **faults: Any
    ) -> None:
        self.clock = virtual_clock(seed)
        self.settings = settings
        self.stream = MemoryStream(shards=shards, clock=self.clock)
        self.store = MemoryStore(self.clock)
        self.leases = MemoryLeases()
        self.faults = Faults(self.clock, **faults)
        self.faulty_stream = FaultyStream(self.stream, self.faults)
        self.faulty_store = FaultyStore(self.store, self.faults)
        self.faulty_leases = FaultyLeases(self.leases, self.faults)
        self.services: list[WorkerService] = []

    async def put(self, session_id: str, *numbers: int, writer: str = WRITER, **fields: Any) -> Accepted:
        """Put one record of a session with these entries of a writer."""
        lines = [line(session_id, n, writer=writer, clock=self.clock, **fields) for n in numbers]
        return await self.put_lines(session_id, lines)

    async def put_lines(self, key: str, lines: Sequence[bytes]) -> Accepted:
        """Put one aggregated record."""
        return await self.put_data(key, aggregate(key, lines))

    async def put_data(self, key: str, data: bytes) -> Accepted:
        """Put one record as it is."""
        (accepted,) = await self.stream.put([PutRecord(key, data)])
        assert isinstance(accepted, Accepted)
        return accepted

    async def work(
        self,
        *,
        drain: bool = False,
        settings: Settings | None = None,
        on_start: Callable[[Worker], None] | None = None,
    ) -> None:
        """Run a worker over the faulty adapters, to its end."""
        service = WorkerService(
            self.faulty_stream, self.faulty_store, self.faulty_leases, settings or self.settings, self.clock
        )
        self.services.append(service)
        await service.run(drain=drain, on_start=on_start)

    async def drain(self) -> None:
        """Bring everything on the stream to the journals."""
        await self.work(drain=True)

    def access(self) -> Access:
        """What a read needs; with feeds of its own, as in another process."""
        stream = self.faulty_stream
        return Access(stream, self.faulty_store, self.faulty_leases, Feeds(stream), self.clock)

    def ids(self, session_id: str) -> list[str]:
        """The ids in a session's journal, in its order."""
        return ids_in(self.store.body(session_id))

    def numbers(self, session_id: str, writer: str = WRITER) -> list[int]:
        """The numbers of one writer in a session's journal, in its order."""
        names = [split_id(entry_id) for entry_id in self.ids(session_id)]
        return [name[1] for name in names if name is not None and name[0] == writer]

    def checkpoint(self, shard: int = 0) -> str:
        """A shard's checkpoint as the lease table has it."""
        row = self.leases._rows.get(f"shardId-{shard:012d}")
        return TRIM_HORIZON if row is None else row.checkpoint


class Running:
    """A worker in a task of its own; `kill` ends it as a crash does, `stop` as a signal does."""

    def __init__(self, rig: Rig, settings: Settings | None = None) -> None:
        self.rig = rig
        self.settings = settings
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.worker: Worker | None = None

    async def run(self) -> None:
        """The task."""
        with self.scope:
            await self.rig.work(settings=self.settings, on_start=self._note)
        self.ended.set()

    def _note(self, worker: Worker) -> None:
        self.worker = worker

    async def stop(self) -> float:
        """Stop, and give the seconds that it took."""
        began = trio.current_time()
        assert self.worker is not None
        self.worker.stop()
        await self.ended.wait()
        return trio.current_time() - began

    async def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self.scope.cancel()
        await self.ended.wait()


async def check_journals(store: MemoryStore) -> None:
    """Every version of each journal is a prefix of the next; position, numbers and summary agree with it."""
    for name, versions in store.versions.items():
        before = b""
        for version in versions:
            assert version.body.startswith(before), f"{name}: a version is no prefix of the next"
            before = version.body
            alone = MemoryStore()
            session_id = session_of(name)
            assert session_id is not None
            alone.adopt_journal(session_id, version.body)
            numbers, summary = await read_history(alone, session_id)
            if version.meta is not None:
                assert version.meta.summary == summary, name
                for writer in version.meta.writers.writers():
                    assert version.meta.writers.highest(writer) == numbers.highest(writer), name
                    assert version.meta.writers.gaps(writer) == numbers.gaps(writer), name
        ids = [x for x in ids_in(before) if x]
        assert len(ids) == len(set(ids)), f"{name}: an entry is there twice"


def check_checkpoints(leases: MemoryLeases) -> None:
    """No checkpoint ever goes back, as long as its row is of one stream and is not deleted."""
    for change in leases.history:
        if change.kind == "updated" and change.before and change.after:
            if change.before.stream != change.after.stream:
                continue
            old, new = change.before.checkpoint, change.after.checkpoint
            assert rank(new) >= rank(old), f"{change.after.key}: {old} -> {new}"


def rank(checkpoint: str) -> float:
    """A checkpoint as a number that grows along a shard."""
    if checkpoint == "TRIM_HORIZON":
        return -1
    return float("inf") if checkpoint == "SHARD_END" else int(checkpoint)


async def settle(seconds: float) -> None:
    """Let virtual time pass."""
    await trio.sleep(seconds)
