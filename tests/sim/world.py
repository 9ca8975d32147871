"""A whole pipeline under faults that one seed decides: emitters, sender, stream, workers, store, readers.

The invariants are checked as it runs: a checkpoint at the moment that it is written, a read when it
ends; the journals at the end, once the faults have stopped and everything has drained.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field

import anyio
import trio

from streamjournal.core.entry import decode_envelope, split_id
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.receipt import Receipt
from streamjournal.emit.sender import Sender
from streamjournal.emit.wakeup import Wakeup
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease
from streamjournal.read.cursor import Cursor
from streamjournal.read.merged import MergedRead
from streamjournal.read.tail import Tail
from streamjournal.stream.port import PutRecord, Refused
from streamjournal.stream.records import parse_record
from tests.sim.faults import Faults, FaultyLeases, FaultyStore, FaultyStream, seeded_chance
from tests.sim.rig import Rig, check_checkpoints, check_journals, ids_in, rank
from tests.sim.virtual import run_virtual, until

SESSIONS = ("a", "b", "c/d", "日本")


@dataclass
class Plan:
    """How much of what.

    Args:
        entries: per emitter.
        rate: chance of a fault, per call.
        latency: seconds that a call takes at most.
        life: seconds that a worker lives on average before it is cut short, wherever it is.
    """

    emitters: int = 2
    workers: int = 2
    entries: int = 40
    rate: float = 0.08
    latency: float = 0.3
    life: float = 6.0
    settings: Settings = field(
        default_factory=lambda: Settings(flush_interval=1.0, lease_seconds=4.0, spool="off", linger=0.05)
    )


class CheckedLeases(MemoryLeases):
    """Leases that look, at each checkpoint written, whether everything at and before it is durable."""

    world: World

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        row = await super().update(seen, changed)
        if row.checkpoint != seen.checkpoint:
            self.world.check_durable(row)
        return row


class World:
    """One run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.trace: list[str] = []
        self.rig = Rig(seed=seed, shards=2, settings=plan.settings)
        rig = self.rig
        rig.leases = CheckedLeases()
        rig.leases.world = self
        self.rng = rig.clock.rng
        rig.faults = Faults(
            rig.clock, chance=seeded_chance(rig.clock, plan.rate), latency=plan.latency, trace=self.note
        )
        rig.faulty_stream = FaultyStream(rig.stream, rig.faults)
        rig.faulty_stream.refuse = self.throttle
        rig.faulty_store = FaultyStore(rig.store, rig.faults)
        rig.faulty_leases = FaultyLeases(rig.leases, rig.faults)
        self.calm = False
        self.receipts: dict[str, list[Receipt]] = {session: [] for session in SESSIONS}
        self.reads = 0

    def note(self, what: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{trio.current_time():.6f} {what}")

    def throttle(self, record: PutRecord) -> Refused | None:
        """A part of a put may be refused for now."""
        if self.calm or self.rng.random() >= self.plan.rate:
            return None
        self.note(f"throttled record of {record.partition_key}")
        return Refused("ProvisionedThroughputExceededException", "slow down")

    async def run(self) -> None:
        """From the first entry to the last check."""
        async with anyio.create_task_group() as background:
            for number in range(self.plan.workers):
                background.start_soon(self._keep_working, name=f"worker {number}")
            background.start_soon(self._reshard, name="resharding")
            background.start_soon(self._read_on, name="reads")
            background.start_soon(self._tail_on, "a", name="tail")
            async with anyio.create_task_group() as emitters:
                for number in range(self.plan.emitters):
                    emitters.start_soon(self._emit, name=f"emitter {number}")
            background.cancel_scope.cancel()
        self._calm_down()
        await self._drain()
        await self._check_end()

    # Who acts

    async def _emit(self) -> None:
        """An emitter with its sender, until the stream has acknowledged everything."""
        wakeup = Wakeup()
        settings, clock = self.plan.settings, self.rig.clock
        emitter = Emitter(settings, clock, lambda: None, wakeup.set, wakeup.set)
        sender = Sender(emitter, self.rig.faulty_stream, self.rig.faulty_store, settings, clock, wakeup)
        mine: list[Receipt] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run, name="sender")
            for _ in range(self.plan.entries):
                session = self.rng.choice(SESSIONS)
                level = self.rng.choice(("INFO", "ERROR"))
                receipt = emitter.emit("TOOL_START", session_id=session, level=level)
                mine.append(receipt)
                self.receipts[session].append(receipt)
                if self.rng.random() < 0.5:
                    await anyio.sleep(self.rng.random())
            await until(lambda: all(receipt.done for receipt in mine))
            tasks.cancel_scope.cancel()

    async def _keep_working(self) -> None:
        """A worker that is cut short at any await, and started again."""
        while True:
            with anyio.move_on_after(self.rng.random() * 2 * self.plan.life):
                await self.rig.work()
            self.note("worker cut short")
            await anyio.sleep(self.rng.random())

    async def _reshard(self) -> None:
        """Splits and merges, now and then."""
        while True:
            await anyio.sleep(self.rng.random() * 20)
            shards = [shard for shard in await self.rig.stream.shards() if not shard.closed]
            shards.sort(key=lambda shard: shard.first_hash)
            if len(shards) > 1 and self.rng.random() < 0.5:
                at = self.rng.randrange(len(shards) - 1)
                self.note(f"merge {shards[at].id} {shards[at + 1].id}")
                self.rig.stream.merge(shards[at].id, shards[at + 1].id)
            elif len(shards) < 4:
                shard = self.rng.choice(shards)
                self.note(f"split {shard.id}")
                self.rig.stream.split(shard.id)

    async def _read_on(self) -> None:
        """Merged reads: each has all that was acknowledged before it began, once, in order."""
        access = self.rig.access()
        while True:
            session = self.rng.choice(SESSIONS)
            before = {receipt.id for receipt in self.receipts[session] if receipt.position is not None}
            merged = MergedRead(access, session)
            found: list[str] = []
            try:
                async with aclosing(merged.blocks()) as blocks:
                    async for block in blocks:
                        found += ids_in(b"\n".join(block.lines))
            except StreamjournalError as problem:
                self.note(f"read of {session} failed: {problem}")
            else:
                self.reads += merged.complete
                self._check_order(found, session)
                if merged.complete:
                    assert before <= set(found), f"a read of {session} missed {before - set(found)}"
            await anyio.sleep(self.rng.random())

    async def _tail_on(self, session: str) -> None:
        """A tail that is broken off and resumed by its cursor: all entries, each once, in order."""
        cursor: Cursor | None = None
        found: list[str] = []
        while True:
            access = self.rig.access()
            with anyio.move_on_after(self.rng.random() * 5):
                try:
                    async with Tail(access, session, history=None, resume=cursor) as tail:
                        async for line in tail:
                            found.append(decode_envelope(line).id)
                            cursor = Cursor.parse(str(tail.cursor), session_id=session)
                            self._check_order(found, session)
                except StreamjournalError as problem:
                    self.note(f"tail failed: {problem}")
            await anyio.sleep(self.rng.random())

    # What must hold

    def _check_order(self, found: list[str], session: str) -> None:
        """Each writer's numbers run 1, 2, 3, … without a gap or a repeat."""
        last: dict[str, int] = {}
        for entry_id in found:
            name = split_id(entry_id)
            assert name is not None
            writer, n = name
            assert n == last.get(writer, 0) + 1, f"{session}: {writer}-{n} after {last.get(writer, 0)}"
            last[writer] = n

    def check_durable(self, row: Lease) -> None:
        """At and before a checkpoint, everything is in a journal."""
        shard = self.rig.stream.find(row.key)
        assert shard is not None
        for record in shard.records:
            if int(record.sequence) <= rank(row.checkpoint):
                for session, item in parse_record(record, "d").items:
                    have = self.rig.ids(session)
                    assert f"{item.writer}-{item.n}" in have, f"{row.checkpoint} passed {record.sequence}"

    def _calm_down(self) -> None:
        self.calm = True
        self.rig.faults = Faults(self.rig.clock, trace=self.note)
        self.rig.faulty_stream.faults = self.rig.faults
        self.rig.faulty_store.faults = self.rig.faults
        self.rig.faulty_leases.faults = self.rig.faults

    async def _drain(self) -> None:
        """Once faults stop, everything drains."""
        with anyio.fail_after(300):
            await self.rig.drain()

    async def _check_end(self) -> None:
        for session, receipts in self.receipts.items():
            assert all(receipt.position is not None for receipt in receipts)
            found = self.rig.ids(session)
            self._check_order(found, session)
            assert set(found) == {receipt.id for receipt in receipts}, session
            merged = MergedRead(self.rig.access(), session)
            async with aclosing(merged.blocks()) as blocks:
                read = [x async for block in blocks for x in ids_in(b"\n".join(block.lines))]
            assert merged.complete
            assert read == found
        assert not self.rig.store.dead_letters
        await check_journals(self.rig.store)
        check_checkpoints(self.rig.leases)


def run_world(seed: int, plan: Plan | None = None) -> World:
    """One run to its end; raises where an invariant does not hold."""

    async def main() -> World:
        world = World(seed, plan or Plan())
        await world.run()
        return world

    return run_virtual(main, seed=seed, limit=100_000)
