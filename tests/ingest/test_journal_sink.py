"""The journal sink on one shard: what is due when, and how far everything is durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
import trio

from streamjournal.core.errors import (
    CommitRefusedError,
    CommitUnknownError,
    LeaseLostError,
    StoreUnavailableError,
)
from streamjournal.core.position import Lineage
from streamjournal.core.settings import Settings
from streamjournal.ingest.journal_sink import JournalShard, JournalSink
from streamjournal.ingest.sink import Budget
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.store.commit import Committer
from streamjournal.store.memory import MemoryStore
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.port import Record
from tests.sim.faults import Fault, Faults, FaultyStore
from tests.sim.rig import check_journals, ids_in, line
from tests.sim.virtual import virtual_clock

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


class Bench:
    """One shard's sink over a store in memory."""

    def __init__(
        self, *, parallel: int = 1, stretch: float = 0.0, bound: int = 2**30, **settings: Any
    ) -> None:
        self.clock = virtual_clock()
        self.store = MemoryStore(self.clock)
        self.faults = Faults(self.clock)
        self.budget = Budget(bound)
        self.stats = Stats()
        self.trouble = Trouble(self.clock)
        self.lost = False
        store = FaultyStore(self.store, self.faults)
        self.sink = JournalSink(
            store,
            Committer(store, self.clock, self._lineage),
            Settings(**{"flush_interval": 10.0, **settings}),
            self.clock,
            self.budget,
            self.stats,
            self.trouble,
            parallel=parallel,
            stretch=stretch,
        )
        self.shard: JournalShard = self.sink.open(SHARD, "d1gest", self._still_ours)
        self.sequence = 100
        self.counts: dict[str, int] = {}

    async def _lineage(self, _shards: object) -> Lineage:
        return Lineage({})

    async def _still_ours(self) -> None:
        if self.lost:
            raise LeaseLostError(SHARD, "another")

    def take(self, session_id: str, count: int = 1, **fields: Any) -> str:
        """Take a record of so many entries; gives its sequence number."""
        first = self.counts.get(session_id, 0) + 1
        self.counts[session_id] = first + count - 1
        lines = [line(session_id, n, **fields) for n in range(first, first + count)]
        return self.take_data(session_id, aggregate(session_id, lines))

    def take_data(self, key: str, data: bytes) -> str:
        """Take a record as it is."""
        self.sequence += 1
        self.shard.take([Record(SHARD, str(self.sequence), key, data, 0)])
        return str(self.sequence)

    def counted(self) -> dict[str, int]:
        """Entries per journal."""
        return {name: len(ids_in(versions[-1].body)) for name, versions in self.store.versions.items()}

    async def flushed(self, **options: Any) -> Sequence[str]:
        """Flush; gives the sessions that were written."""
        before = {name: len(versions) for name, versions in self.store.versions.items()}
        await self.shard.flush(**options)
        return [name for name, found in self.store.versions.items() if len(found) > before.get(name, 0)]


async def test_nothing_is_due_at_first() -> None:
    """An empty sink has nothing pending, and no time to wake up at."""
    bench = Bench()
    assert (bench.shard.pending, bench.shard.pause(), bench.shard.durable()) == (False, None, None)
    await bench.shard.flush(everything=True)
    assert not bench.faults.calls


async def test_a_session_is_due_by_its_oldest_entry() -> None:
    """The flush interval counts from the first pending entry, per session."""
    bench = Bench()
    bench.take("a")
    await trio.sleep(4)
    bench.take("b")
    bench.take("a")
    assert bench.shard.pause() == pytest.approx(6)
    assert await bench.flushed() == []
    await trio.sleep(6)
    assert await bench.flushed() == ["a"]
    assert bench.shard.pause() == pytest.approx(4)
    await trio.sleep(4)
    assert await bench.flushed() == ["b"]
    assert bench.counted() == {"a": 2, "b": 1}


async def test_the_end_of_a_session_is_due_at_once() -> None:
    """SESSION_END does not wait for the interval; other sessions do."""
    bench = Bench()
    bench.take("a")
    bench.take("b", event_type="SESSION_END")
    assert bench.shard.pause() == 0
    assert await bench.flushed() == ["b"]
    assert bench.shard.pause() == pytest.approx(10)


async def test_a_large_session_is_due_at_once() -> None:
    """Reaching session_bytes makes a session due."""
    bench = Bench(session_bytes=1000)
    bench.take("a", 2)
    assert await bench.flushed() == []
    bench.take("a", 20)
    assert await bench.flushed() == ["a"]


async def test_the_oldest_sessions_make_room() -> None:
    """Over unflushed_bytes, the oldest are flushed until the shard is under it, and no more."""
    one = len(line("a", 1))
    bench = Bench(unflushed_bytes=10 * one + 5)
    for session in "abcdefghij":
        bench.take(session)
    assert await bench.flushed() == []
    bench.take("k", 2)
    assert await bench.flushed() == ["a", "b"]


async def test_the_interval_grows_with_the_journal() -> None:
    """About a second per MiB, up to five minutes; not where a commit costs the same whatever the size."""
    for stretch, expected in ((1.0, 12.0), (0.0, 10.0), (1000.0, 300.0)):
        bench = Bench(stretch=stretch)
        bench.take("a", 40, details={"x": "y" * 2**16})
        await bench.flushed(everything=True)
        size = len(bench.store.body("a")) / 2**20
        bench.take("a")
        wanted = expected if expected != 12.0 else 10 + size
        assert bench.shard.pause() == pytest.approx(wanted)


async def test_durable_is_before_the_oldest_pending_record() -> None:
    """The checkpoint is the highest sequence number at and before which everything is durable."""
    bench = Bench()
    bench.take("a")
    assert bench.shard.durable() is None
    bench.take("b", event_type="SESSION_END")
    await bench.shard.flush()
    assert bench.shard.durable() is None  # b is durable, a before it is not
    bench.take("c")
    await trio.sleep(10)
    again = bench.take("a")
    last = bench.take("d")
    await bench.shard.flush()
    assert bench.shard.durable() == again  # a was due, with its second record
    await bench.shard.flush(everything=True)
    assert bench.shard.durable() == last


async def test_durable_never_passes_a_pending_record() -> None:
    """By model: whatever is taken and flushed in whatever order, durable is what the definition says."""
    bench = Bench(session_bytes=700)
    rng = bench.clock.rng
    taken: list[tuple[int, str, int]] = []
    reached = 0
    for _ in range(200):
        session = rng.choice("abcdefgh")
        sequence = bench.take(session, rng.randint(1, 3))
        taken.append((int(sequence), session, bench.counts[session]))
        if rng.random() < 0.3:
            await trio.sleep(rng.random() * 6)
            await bench.shard.flush()
        counted = bench.counted()
        pending = [s for s, session, n in taken if n > counted.get(session, 0)]
        expected = max((s for s, *_ in taken if not pending or s < pending[0]), default=None)
        durable = bench.shard.durable()
        assert durable == (None if expected is None else str(expected))
        assert int(durable or 0) >= reached
        reached = int(durable or 0)
    await check_journals(bench.store)


async def test_poison_holds_the_checkpoint_until_it_is_a_dead_letter() -> None:
    """A dead letter has bytes, position, reason and a key that a replay writes again; the rest goes on."""
    bench = Bench()
    bench.faults.away.add("store.put_dead_letters")
    sequence = bench.take_data("s", aggregate("s", [line("s", 1), b"bad", line("s", 2)]))
    await bench.shard.flush(everything=True)
    assert bench.shard.durable() is None
    assert bench.shard.pending
    bench.faults.away.clear()
    await trio.sleep(1)
    await bench.shard.flush(everything=True)
    assert bench.shard.durable() == sequence
    ((key, letter),) = bench.store.dead_letters.items()
    assert key == f"dead-letters/d1gest/{SHARD}/{sequence}-1.json"
    assert (letter.data, letter.partition_key, letter.sequence, letter.index) == (b"bad", "s", sequence, 1)
    assert "not JSON" in letter.reason
    assert bench.counted() == {"s": 2}
    assert bench.stats.dead_letters == 1


async def test_poison_counts_into_the_memory_bound() -> None:
    """A storm of poison while the store is away stops the reading, as entries do."""
    bench = Bench(bound=10_000)
    bench.faults.away.add("store")
    for _ in range(11):
        bench.take_data("s", b"x" * 1000)
    assert bench.budget.full
    bench.faults.away.clear()
    await bench.shard.flush()
    assert bench.budget.used == 0
    assert len(bench.store.dead_letters) == 11


async def test_a_refused_session_is_parked_and_the_others_go_on() -> None:
    """What can never be committed becomes dead letters, entry by entry; the checkpoint passes it."""
    bench = Bench()
    bench.take("a", 2)
    last = bench.take("b")
    bench.faults.script["store.append"].append(Fault(CommitRefusedError("over 5 TiB")))
    await bench.shard.flush(everything=True)
    assert bench.counted() == {"b": 1}
    assert bench.shard.durable() == last
    letters = sorted(bench.store.dead_letters.values(), key=lambda letter: letter.index)
    assert [letter.data for letter in letters] == [line("a", 1), line("a", 2)]
    assert all("over 5 TiB" in letter.reason and letter.partition_key == "a" for letter in letters)


async def test_a_journal_whose_metadata_cannot_be_read_is_parked() -> None:
    """That is a matter of one session, for good; it must not stop the worker, nor the shard."""
    bench = Bench()
    bench.faults.script["store.head"].append(Fault(CommitRefusedError("metadata of version 9")))
    bench.take("a")
    bench.take("b")
    await bench.shard.flush(everything=True)
    assert not bench.shard.pending
    assert bench.counted() == {"b": 1}


async def test_one_failing_session_does_not_hold_up_the_others() -> None:
    """Its entries stay, the others' are committed, and the checkpoint waits."""
    bench = Bench()
    for session in "abc":
        bench.take(session)
    bench.faults.script["store.head"].append(Fault(StoreUnavailableError("only this one")))
    await bench.shard.flush(everything=True)
    assert bench.counted() == {"b": 1, "c": 1}
    assert bench.shard.durable() is None
    await trio.sleep(1)
    await bench.shard.flush(everything=True)
    assert bench.counted() == {"a": 1, "b": 1, "c": 1}
    assert bench.shard.durable() == str(bench.sequence)


@pytest.mark.parametrize("parallel", [1, 16])
async def test_a_store_that_is_away_is_asked_rarely(parallel: int) -> None:
    """Hundreds of due sessions cost a few requests per try, and the tries become rarer."""
    bench = Bench(parallel=parallel)
    for n in range(500):
        bench.take(f"s{n}")
    bench.faults.away.add("store")
    await bench.shard.flush(everything=True)
    assert bench.faults.calls["store.head"] <= parallel + 4
    bench.faults.calls.clear()
    for _ in range(600):
        await bench.shard.flush(everything=True)
        await trio.sleep(0.1)
    assert bench.faults.calls["store.head"] <= 12 * (parallel + 4)
    assert bench.trouble.lasting(30) is not None
    bench.faults.away.clear()
    await trio.sleep(30)
    await bench.shard.flush(everything=True)
    assert len(bench.counted()) == 500
    assert bench.trouble.lasting(0) is None
    assert bench.budget.used == 0


async def test_a_lost_lease_stops_the_flush() -> None:
    """Whatever else failed, that is what is raised; nothing pending counts as durable."""
    bench = Bench(parallel=4)
    for session in "abcdef":
        bench.take(session)
    bench.lost = True
    for _ in range(6):
        bench.faults.script["store.append"].append(Fault(CommitUnknownError("timeout")))
    with pytest.raises(LeaseLostError):
        await bench.shard.flush(everything=True)
    assert bench.shard.durable() is None
    bench.shard.discard()
    assert (bench.budget.used, bench.shard.pending) == (0, False)


async def test_a_cancelled_flush_keeps_what_it_did_not_commit() -> None:
    """A flush that is cut short can be called again."""
    bench = Bench(parallel=2)
    for session in "abcdef":
        bench.take(session)
    bench.faults.latency = 1.0
    with anyio.move_on_after(1.5):
        await bench.shard.flush(everything=True)
    assert bench.shard.pending
    await bench.shard.flush(everything=True)
    assert bench.counted() == dict.fromkeys("abcdef", 1)
    await check_journals(bench.store)


async def test_duplicates_are_counted() -> None:
    """A resent record is dropped, and said."""
    bench = Bench()
    data = aggregate("s", [line("s", 1), line("s", 2)])
    bench.take_data("s", data)
    await bench.shard.flush(everything=True)
    last = bench.take_data("s", data)
    await bench.shard.flush(everything=True)
    assert bench.counted() == {"s": 2}
    assert bench.stats.duplicates == 2
    assert bench.shard.durable() == last
