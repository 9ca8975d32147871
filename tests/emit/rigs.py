"""Emitters, senders and streams to be tested, with time that is virtual and faults on demand."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import trio
import trio.testing

from streamjournal.core.clock import Clock
from streamjournal.core.entry import split_id
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import Destination, Spool
from streamjournal.emit.wakeup import Wakeup
from streamjournal.store.memory import MemoryStore
from streamjournal.stream.aggregation import split
from streamjournal.stream.memory import MemoryStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from streamjournal.core.position import StreamIdentity
    from streamjournal.emit.outbox import Outbox
    from streamjournal.stream.port import Accepted, PutRecord, Refused

DESTINATION = Destination("embedded:/somewhere", "")
START = 1_800_000_000  # wall time, in seconds since 1970, at virtual time 0


def simulated(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on trio, where time passes only while everybody sleeps."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(functools.partial(test, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def virtual_clock(seed: int = 1) -> Clock:
    """A clock for the inside of a simulated test."""
    return Clock(
        time_ns=lambda: int((START + anyio.current_time()) * 1e9),
        monotonic=anyio.current_time,
        rng=random.Random(seed),
    )


@dataclass
class HandClock:
    """A clock that a test sets by hand."""

    wall: float = START
    steady: float = 1000.0
    seed: int = 1

    def clock(self) -> Clock:
        """The clock to inject."""
        return Clock(
            time_ns=lambda: int(self.wall * 1e9),
            monotonic=lambda: self.steady,
            rng=random.Random(self.seed),
        )

    def pass_time(self, seconds: float) -> None:
        """Let both times go on."""
        self.wall += seconds
        self.steady += seconds


def nothing() -> None:
    """For callbacks that a test does not look at."""


def make_emitter(spool_folder: Path | None = None, clock: Clock | None = None, **settings: Any) -> Emitter:
    """An emitter without a sender."""
    clock = clock or Clock()

    def make_spool() -> Spool | None:
        return None if spool_folder is None else Spool(spool_folder, DESTINATION, clock)

    return Emitter(Settings(**settings), clock, make_spool, nothing, nothing)


def queued(emitter: Emitter) -> list[Outbox]:
    """The outboxes that wait for the sender."""
    return list(dict.fromkeys(emitter.ready))


def lines_of(outbox: Outbox) -> list[dict[str, Any]]:
    """The entries in an outbox, decoded."""
    return [msgspec.json.decode(line) for line in outbox.unacknowledged()]


def acknowledge_all(emitter: Emitter) -> None:
    """What a sender does once the stream has everything, without a stream."""
    while emitter.ready:
        outbox = emitter.ready.popleft()
        outbox.ready = False
        while outbox.items:
            item = outbox.items[0]
            emitter.account.released_bytes += len(item.line or b"")
            emitter.account.settled += 1
            if item.segment is not None:
                item.segment.acknowledge(item.offset)
            outbox.items.popleft()
    emitter.awake = False
    if emitter.spool is not None:
        emitter.spool.reclaim()


@dataclass
class FaultyStream:
    """A stream in memory that does what a test tells it, and watches how it is used.

    Args:
        faults: for the calls to come, one each: None for none, or an async function that is called
            in place of the put.
        always: instead of a fault, when `faults` is empty.
        seconds: that a call takes.

    Attributes:
        calls: the records of each call, with the time it began.
        trespasses: calls that broke a rule of the sender's.
    """

    inner: MemoryStream
    faults: list[Any] = field(default_factory=list)
    always: Any = None
    seconds: float = 0.005
    calls: list[tuple[float, list[PutRecord]]] = field(default_factory=list)
    trespasses: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)
    most_calls: int = 0
    current_calls: int = 0

    async def identity(self) -> StreamIdentity:
        return await self.inner.identity()

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        self.calls.append((anyio.current_time(), list(records)))
        keys = [record.partition_key for record in records]
        if len(set(keys)) < len(keys):
            self.trespasses.append(f"two records of a session in one call: {keys}")
        if self.under_way & set(keys):
            self.trespasses.append(f"two calls of a session at once: {self.under_way & set(keys)}")
        self.under_way |= set(keys)
        self.current_calls += 1
        self.most_calls = max(self.most_calls, self.current_calls)
        try:
            fault = self.faults.pop(0) if self.faults else self.always
            await anyio.sleep(self.seconds)
            return await (self.inner.put(records) if fault is None else fault(self, records))
        finally:
            self.under_way -= set(keys)
            self.current_calls -= 1

    async def aclose(self) -> None:
        await self.inner.aclose()

    def taken(self) -> dict[str, list[dict[str, Any]]]:
        """What the stream holds, per session, as often as it was put."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for shard in list(self.inner._shards.values()):
            for record in shard.records:
                for user in split(record.data, record.partition_key):
                    entry = msgspec.json.decode(user.data)
                    assert entry["session_id"] == record.partition_key
                    found[entry["session_id"]].append(entry)
        return found

    def numbers(self, session_id: str) -> list[int]:
        """The numbers of the session's entries in the stream, in its order, each once."""
        return list(dict.fromkeys(split_id(entry["id"])[1] for entry in self.taken()[session_id]))


@dataclass
class Pipeline:
    """An emitter, a sender that runs, a stream and a store."""

    emitter: Emitter
    sender: Sender
    stream: FaultyStream
    store: Any
    clock: Clock

    def emit(self, session_id: str = "s", **fields: Any) -> Any:
        return self.emitter.emit("E", session_id=session_id, **fields)

    async def flush(self) -> None:
        """Until everything emitted so far is settled."""
        done = anyio.Event()
        self.sender.flush(self.emitter.accepted, done.set)
        await done.wait()


@asynccontextmanager
async def pipeline(
    *, spool_folder: Path | None = None, store: Any = None, seconds: float = 0.005, **settings: Any
) -> AsyncIterator[Pipeline]:
    """A sender that runs until the block ends, in virtual time."""
    clock = virtual_clock()
    stream = FaultyStream(MemoryStream(shards=2, clock=clock), seconds=seconds)
    store = store if store is not None else MemoryStore(clock)
    wakeup = Wakeup()
    chosen = Settings(**settings)
    senders: list[Sender] = []
    emitter = Emitter(
        chosen,
        clock,
        lambda: None if spool_folder is None else Spool(spool_folder, DESTINATION, clock),
        wakeup.set,
        lambda: senders[0].hurry(),  # noqa: PLW0108  # it is not there yet
    )
    sender = Sender(emitter, stream, store, chosen, clock, wakeup)
    senders.append(sender)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        yield Pipeline(emitter, sender, stream, store, clock)
        assert stream.trespasses == []
        tasks.cancel_scope.cancel()
