"""The committer: every entry in its journal exactly once, whatever a write ends with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from streamjournal.core.entry import decode_envelope
from streamjournal.core.errors import (
    CommitConflictError,
    CommitRefusedError,
    CommitUnknownError,
    JournalGoneError,
    LeaseLostError,
    StoreUnavailableError,
)
from streamjournal.core.item import Item
from streamjournal.core.position import Lineage, Position
from streamjournal.store.commit import Committed, Committer
from streamjournal.store.memory import MemoryStore
from streamjournal.store.meta import Meta
from streamjournal.store.port import Head
from tests.sim.faults import Fault, Faults, FaultyStore
from tests.sim.rig import WRITER, check_journals, ids_in, line
from tests.sim.virtual import virtual_clock

pytestmark = pytest.mark.anyio

STREAM = "0123456789abcdef"
PARENTS: dict[str, tuple[str, ...]] = {"a": (), "b": (), "child": ("a",), "grandchild": ("child",)}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Virtual time."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Bench:
    """A committer over a store in memory, with faults between them."""

    def __init__(self) -> None:
        self.clock = virtual_clock()
        self.store = MemoryStore(self.clock)
        self.faults = Faults(self.clock)
        self.faulty = FaultyStore(self.store, self.faults)
        self.asked: list[set[str]] = []
        self.lost = False
        self.committer = Committer(self.faulty, self.clock, self._lineage)

    async def _lineage(self, shards: Collection[str]) -> Lineage:
        self.asked.append(set(shards))
        return Lineage(PARENTS)

    async def still_ours(self) -> None:
        """Stands for the lease."""
        if self.lost:
            raise LeaseLostError("a", "another")

    async def commit(self, *items: Item, known: Head | None = None) -> Committed:
        """Commit to session s."""
        return await self.committer.commit("s", items, known, self.still_ours)

    def fail(self, error: Exception, *, after: bool = False) -> None:
        """Have the next append fail."""
        self.faults.script["store.append"].append(Fault(error, after=after))

    def ids(self) -> list[str]:
        """The journal's ids."""
        return ids_in(self.store.body("s"))

    def meta(self) -> Meta:
        """The journal's newest metadata."""
        meta = self.store.versions["s"][-1].meta
        assert meta is not None
        return meta


@pytest.fixture
def bench() -> Bench:
    """A bench with nothing committed."""
    return Bench()


def ours(n: int, sequence: int, *, shard: str = "a", writer: str = WRITER, **fields: Any) -> Item:
    """An entry with a number of ours."""
    text = line("s", n, writer=writer, **fields)
    envelope = decode_envelope(text)
    return Item(
        text,
        Position(STREAM, shard, str(sequence)),
        writer,
        n,
        envelope.timestamp,
        envelope.level,
        "ended" if envelope.event_type == "SESSION_END" else None,
    )


def foreign(sequence: int, *, shard: str = "a", stream: str = STREAM) -> Item:
    """Another producer's entry, which only its position tells apart."""
    entry_id = f"{shard}:{sequence}:0"
    text = msgspec.json.encode(
        {"id": entry_id, "timestamp": "t", "session_id": "s", "event_type": "X", "level": "INFO"}
    )
    return Item(text, Position(stream, shard, str(sequence)), None, 0, "t", "INFO", None)


def numbers(*values: int) -> list[str]:
    """Ids of the ordinary writer."""
    return [f"{WRITER}-{n}" for n in values]


async def test_a_new_journal(bench: Bench) -> None:
    """The first commit begins it, and says in its metadata what its body says."""
    done = await bench.commit(ours(1, 10, level="ERROR"), ours(2, 10), ours(3, 11, event_type="SESSION_END"))
    assert (done.written, done.duplicates, done.conflicts) == (3, 0, 0)
    assert bench.ids() == numbers(1, 2, 3)
    meta = bench.meta()
    assert meta.position == Position(STREAM, "a", "11")
    assert (meta.summary.entries, meta.summary.errors, meta.summary.status) == (3, 1, "ended")
    await check_journals(bench.store)


async def test_growth_needs_one_request(bench: Bench) -> None:
    """With the head of the last commit at hand, a commit is one append, and makes a prefix longer."""
    first = await bench.commit(ours(1, 10))
    bench.faults.calls.clear()
    await bench.commit(ours(2, 11), known=first.head)
    assert dict(bench.faults.calls) == {"store.append": 1}
    assert bench.ids() == numbers(1, 2)
    await check_journals(bench.store)


async def test_a_duplicate_by_number_is_dropped(bench: Bench) -> None:
    """A resend under another sequence number is recognised, inside a commit and across commits."""
    await bench.commit(ours(1, 10), ours(2, 10), ours(1, 11))
    done = await bench.commit(ours(2, 12), ours(3, 12))
    assert (done.written, done.duplicates) == (1, 1)
    assert bench.ids() == numbers(1, 2, 3)
    await check_journals(bench.store)


async def test_nothing_new_writes_nothing(bench: Bench) -> None:
    """A commit never changes metadata alone."""
    await bench.commit(ours(1, 10))
    done = await bench.commit(ours(1, 99))
    assert done.written == 0
    assert done.head is not None
    assert len(bench.store.versions["s"]) == 1


async def test_a_duplicate_by_position_is_dropped(bench: Bench) -> None:
    """Another producer's entries are read again after a crash; their position is behind the journal's."""
    await bench.commit(foreign(10), foreign(11))
    done = await bench.commit(foreign(10), foreign(11), foreign(12))
    assert (done.written, done.duplicates) == (1, 2)
    assert bench.ids() == ["a:10:0", "a:11:0", "a:12:0"]


async def test_sequence_numbers_compare_as_integers(bench: Bench) -> None:
    """A number with a digit more is later."""
    await bench.commit(foreign(99))
    assert (await bench.commit(foreign(100))).written == 1
    assert (await bench.commit(foreign(99))).written == 0


async def test_a_writers_gap_is_filled_by_a_late_copy(bench: Bench) -> None:
    """A number that is missing below the highest is no duplicate when it comes at last."""
    await bench.commit(ours(1, 10), ours(4, 11))
    done = await bench.commit(ours(2, 12), ours(3, 12), ours(4, 12))
    assert (done.written, done.duplicates) == (2, 1)
    assert bench.meta().writers.gaps(WRITER) == []
    await check_journals(bench.store)


@pytest.mark.parametrize("error", [CommitConflictError("412"), CommitConflictError("409")])
async def test_a_conflict_is_resolved_against_the_newer_journal(bench: Bench, error: Exception) -> None:
    """Somebody else's commit in between: what it brought is dropped, the rest follows it."""
    first = await bench.commit(ours(1, 10))
    await bench.commit(ours(2, 11), known=first.head)
    bench.fail(error)
    done = await bench.commit(ours(2, 11), ours(3, 12), known=first.head)
    assert done.conflicts == 1
    assert bench.ids() == numbers(1, 2, 3)
    await check_journals(bench.store)


@pytest.mark.parametrize("begun", [False, True])
async def test_written_although_the_answer_was_lost(bench: Bench, *, begun: bool) -> None:
    """The commit id in the journal's metadata tells that the write worked; it is not repeated."""
    if begun:
        await bench.commit(foreign(9))
    bench.fail(CommitUnknownError("timeout"), after=True)
    done = await bench.commit(foreign(10), ours(1, 11))
    assert (done.written, done.conflicts) == (2, 1)
    assert bench.ids()[-2:] == ["a:10:0", *numbers(1)]
    assert len(bench.store.versions["s"]) == 1 + begun
    await check_journals(bench.store)


@pytest.mark.parametrize("begun", [False, True])
async def test_not_written_and_no_answer(bench: Bench, *, begun: bool) -> None:
    """A write that did not happen is tried again."""
    if begun:
        await bench.commit(foreign(9))
    bench.fail(CommitUnknownError("timeout"))
    await bench.commit(foreign(10), ours(1, 11))
    assert bench.ids()[-2:] == ["a:10:0", *numbers(1)]
    await check_journals(bench.store)


async def test_written_unheard_and_then_made_longer_by_another(bench: Bench) -> None:
    """Its commit id is gone from the metadata; position and numbers tell that it is all there."""
    bench.fail(CommitUnknownError("timeout"), after=True)
    inner = bench.faulty.append
    others = Committer(bench.store, bench.clock, bench._lineage)

    async def append(*arguments: Any) -> Head:
        try:
            return await inner(*arguments)
        except CommitUnknownError:
            await others.commit("s", [foreign(20)], None, bench.still_ours)
            raise

    bench.faulty.append = append  # type: ignore[method-assign]
    done = await bench.commit(foreign(10), ours(1, 11))
    assert done.written == 0
    assert bench.ids() == ["a:10:0", *numbers(1), "a:20:0"]


async def test_a_deleted_journal_begins_again_with_a_notice(bench: Bench) -> None:
    """The first line says that something is missing; the generation is another."""
    first = await bench.commit(ours(1, 10))
    generation = bench.meta().generation
    bench.store.delete_journal("s")
    done = await bench.commit(ours(2, 11), known=first.head)
    notice, entry = bench.store.body("s").splitlines()
    assert decode_envelope(notice).event_type == "JOURNAL_RESTARTED"
    assert msgspec.json.decode(notice)["source"] == "journal"
    assert decode_envelope(entry).id == f"{WRITER}-2"
    assert done.written == 2
    assert bench.meta().generation != generation
    await check_journals(bench.store)


async def test_the_notice_survives_a_failing_first_try(bench: Bench) -> None:
    """Deleted, and the write that begins it again fails too: the notice is still the first line."""
    await bench.commit(ours(1, 10))
    known = await bench.store.head("s")
    bench.store.delete_journal("s")
    bench.fail(JournalGoneError("404"))
    bench.fail(CommitUnknownError("timeout"))
    await bench.commit(foreign(11), known=known)
    assert decode_envelope(bench.store.body("s").splitlines()[0]).event_type == "JOURNAL_RESTARTED"


async def test_a_cold_worker_says_that_the_beginning_is_missing(bench: Bench) -> None:
    """A new journal whose writer does not begin at 1 opens with the notice; one that does, does not."""
    await bench.commit(ours(5, 10))
    first = bench.store.body("s").splitlines()[0]
    assert decode_envelope(first).event_type == "JOURNAL_RESTARTED"
    assert "number 5" in msgspec.json.decode(first)["details"]["reason"]
    await check_journals(bench.store)


async def test_an_adopted_journal_without_a_last_newline(bench: Bench) -> None:
    """An older tool's journal is kept, counted, and goes on in a line of its own, with a position."""
    old = b'{"timestamp":"t0","event_type":"OLD","level":"ERROR","tool_name":null,"details":{}}'
    bench.store.adopt_journal("s", old + b"\n" + line("s", 1))
    done = await bench.commit(ours(1, 10), ours(2, 10))
    assert (done.written, done.duplicates) == (1, 1)
    assert bench.store.body("s").splitlines()[0] == old
    assert bench.ids()[1:] == numbers(1, 2)
    summary = bench.meta().summary
    assert (summary.entries, summary.errors, summary.first) == (3, 1, "t0")
    await check_journals(bench.store)


async def test_hundreds_of_writers(bench: Bench) -> None:
    """The map has no room for all: a writer that left it is looked for in the body, and not doubled."""
    writers = [f"w{n:09d}" for n in range(300)]
    await bench.commit(*(ours(1, 10 + i, writer=w) for i, w in enumerate(writers)))
    assert not bench.meta().writers.complete
    assert writers[0] not in bench.meta().writers
    done = await bench.commit(ours(1, 999, writer=writers[0]), ours(2, 999, writer=writers[0]))
    assert (done.written, done.duplicates) == (1, 1)
    assert len(set(bench.ids())) == len(bench.ids()) == 301
    await check_journals(bench.store)


async def test_the_body_is_scanned_once_for_many_new_writers(bench: Bench) -> None:
    """A session with more writers than room, each new: the head that is handed on remembers them all."""
    writers = [f"w{n:09d}" for n in range(300)]
    done = await bench.commit(*(ours(1, 10 + i, writer=w) for i, w in enumerate(writers)))
    cold = (await bench.commit(ours(1, 900, writer="x000000000"))).head  # a cold worker: one scan
    bench.faults.calls.clear()
    for i in range(5):
        done = await bench.commit(ours(1, 1000 + i, writer=f"x00000001{i}"), known=cold)
        cold = done.head
    assert bench.faults.calls["store.open"] == 0
    assert len(bench.ids()) == 306


async def test_lineage(bench: Bench) -> None:
    """A descendant's position covers an ancestor's records; an ancestor's does not cover a descendant's."""
    await bench.commit(foreign(10, shard="a"))
    assert (await bench.commit(foreign(5, shard="child"))).written == 1
    assert bench.meta().position == Position(STREAM, "child", "5")
    late = await bench.commit(foreign(11, shard="a"))
    assert late.written == 0
    assert bench.meta().position == Position(STREAM, "child", "5")  # never replaced by an ancestor's
    assert (await bench.commit(foreign(1, shard="grandchild"))).written == 1
    assert (await bench.commit(foreign(6, shard="child"))).written == 0


async def test_an_unlisted_shard_is_an_expired_ancestor(bench: Bench) -> None:
    """A record of a shard that a fresh list does not have was seen long ago."""
    await bench.commit(foreign(10, shard="child"))
    assert (await bench.commit(foreign(3, shard="expired"))).written == 0
    assert {"expired", "child"} <= bench.asked[-1]


async def test_another_streams_position_says_nothing(bench: Bench) -> None:
    """The same shard id and a lower number in a stream made anew is a new record; no lineage is asked."""
    await bench.commit(foreign(10))
    bench.asked.clear()
    assert (await bench.commit(foreign(1, stream="f" * 16))).written == 1
    assert (await bench.commit(foreign(1, stream="f" * 16))).written == 0
    assert bench.asked == []


async def test_numbers_hold_across_streams(bench: Bench) -> None:
    """A writer's entry that comes again over another stream (a spool sent there) is no second one."""
    await bench.commit(ours(1, 10))
    item = msgspec.structs.replace(ours(1, 1), position=Position("f" * 16, "a", "1"))
    assert (await bench.commit(item)).written == 0


async def test_a_permanent_refusal_is_the_callers_business(bench: Bench) -> None:
    """It is raised as it is, at once."""
    bench.fail(CommitRefusedError("too large"))
    with pytest.raises(CommitRefusedError):
        await bench.commit(ours(1, 10))
    assert bench.faults.calls["store.append"] == 1


async def test_endless_conflicts_are_given_back(bench: Bench) -> None:
    """After a few tries the caller's own backoff takes over, with the same items."""
    for _ in range(20):
        bench.fail(CommitConflictError("409"))
    with pytest.raises(StoreUnavailableError, match="409"):
        await bench.commit(ours(1, 10))
    assert 2 <= bench.faults.calls["store.append"] <= 10
    assert bench.ids() == []


async def test_who_lost_the_lease_does_not_try_again(bench: Bench) -> None:
    """Before another try the lease is looked at."""
    bench.lost = True
    bench.fail(CommitUnknownError("timeout"))
    with pytest.raises(LeaseLostError):
        await bench.commit(ours(1, 10))
    assert bench.faults.calls["store.append"] == 1


async def test_two_committers_race(bench: Bench) -> None:
    """Two workers that both believe in the lease commit overlapping records: each entry is there once."""
    import anyio

    other = Committer(bench.faulty, bench.clock, bench._lineage)
    bench.faults.latency = 0.5
    mine = [ours(n, 10 + n) for n in range(1, 9)]

    async def run(committer: Committer, upto: Callable[[int], int]) -> None:
        done = 0
        for i in range(1, 9):
            await committer.commit("s", mine[done : upto(i)], None, bench.still_ours)
            done = upto(i)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, bench.committer, lambda i: i)
        tasks.start_soon(run, other, lambda i: min(8, i + 3))
    assert bench.ids() == numbers(*range(1, 9))
    await check_journals(bench.store)
