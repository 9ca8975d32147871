"""The committer: every entry in its journal exactly once, whatever a write ends with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any
from zlib import crc32

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
ANEW = "f" * 16  # another stream of the same name
OTHER, THIRD = "writer0002", "writer0003"
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

    def notices(self) -> list[dict[str, Any]]:
        """The journal's notices."""
        lines = [msgspec.json.decode(text) for text in self.store.body("s").splitlines()]
        return [entry for entry in lines if entry.get("source") == "journal"]

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


def ranges(notices: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """What notices of trimmed entries say is missing."""
    assert all(one["event_type"] == "ENTRIES_TRIMMED" for one in notices)
    details = [one["details"] for one in notices]
    return [(it["writer"], it["first"], it["last"]) for it in details]


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


async def test_a_journal_deleted_while_nobody_wrote_begins_again_with_a_notice(bench: Bench) -> None:
    """Nobody remembers it, and the new writer's numbers begin at 1: the store's trace tells of it."""
    await bench.commit(ours(1, 10))
    bench.store.delete_journal("s")
    bench.faults.calls.clear()
    bench.fail(CommitUnknownError("timeout"))
    await bench.commit(ours(1, 11, writer=OTHER))
    assert bench.ids()[1:] == [f"{OTHER}-1"]
    (restarted,) = bench.notices()
    assert restarted["event_type"] == "JOURNAL_RESTARTED"
    assert restarted["details"]["missing"] == {}
    assert restarted["details"]["reason"].startswith("the journal was deleted while no worker wrote to it;")
    assert bench.faults.calls["store.was_deleted"] == 1
    await check_journals(bench.store)


async def test_a_store_that_does_not_say_whether_there_was_a_journal_begins_none(bench: Bench) -> None:
    """The commit fails and nothing is written; the next one asks again."""
    bench.faults.script["store.was_deleted"].append(Fault(StoreUnavailableError("503")))
    with pytest.raises(StoreUnavailableError):
        await bench.commit(ours(1, 10))
    assert bench.store.body("s") == b""
    await bench.commit(ours(1, 10))
    assert bench.ids() == numbers(1)


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
    (first,) = bench.notices()
    assert first["event_type"] == "JOURNAL_RESTARTED"
    assert "number 5" in first["details"]["reason"]
    assert first["details"]["missing"] == {WRITER: 4}
    assert len(bench.ids()) == 2
    await check_journals(bench.store)


async def test_a_new_journal_tells_of_all_beginnings_at_once(bench: Bench) -> None:
    """One notice has every writer whose beginning is missing; a jump in the middle gets its own."""
    await bench.commit(
        ours(1, 9), ours(3, 10, writer=OTHER), ours(7, 11, writer=THIRD), ours(9, 12, writer=THIRD)
    )
    restarted, trimmed = bench.notices()
    assert restarted["event_type"] == "JOURNAL_RESTARTED"
    assert restarted["details"]["missing"] == {OTHER: 2, THIRD: 6}
    assert ranges([trimmed]) == [(THIRD, 8, 8)]
    assert bench.ids()[1:4] == [f"{WRITER}-1", f"{OTHER}-3", f"{THIRD}-7"]
    await check_journals(bench.store)


async def test_a_deleted_journal_says_what_is_missing_of_each_writer(bench: Bench) -> None:
    """The first commit after the deletion tells of its writers; one that comes later gets its own notice."""
    first = await bench.commit(ours(1, 10), ours(2, 10), ours(1, 11, writer=OTHER))
    bench.store.delete_journal("s")
    done = await bench.commit(ours(3, 12), known=first.head)
    await bench.commit(ours(2, 13, writer=OTHER), ours(4, 14), known=done.head)
    restarted, trimmed = bench.notices()
    assert restarted["details"]["missing"] == {WRITER: 2}
    assert "deleted" in restarted["details"]["reason"]
    assert ranges([trimmed]) == [(OTHER, 1, 1)]
    await check_journals(bench.store)


async def test_numbers_that_jump_get_a_notice(bench: Bench) -> None:
    """It stands right before the entry after the jump, says which are missing, and counts as an entry."""
    first = await bench.commit(ours(1, 10), ours(2, 10))
    done = await bench.commit(ours(3, 20), ours(7, 21), ours(8, 21), known=first.head)
    assert done.written == 4
    (trimmed,) = bench.notices()
    assert bench.ids() == [*numbers(1, 2, 3), f"a:21:trimmed:{WRITER}-7", *numbers(7, 8)]
    assert (trimmed["event_type"], trimmed["level"], trimmed["source"]) == (
        "ENTRIES_TRIMMED",
        "WARNING",
        "journal",
    )
    details = trimmed["details"]
    assert (details["writer"], details["first"], details["last"], details["entries"]) == (WRITER, 4, 6, 3)
    assert details["position"] == Position(STREAM, "a", "21").encode()
    assert bench.meta().summary.entries == 6
    assert bench.meta().writers.gaps(WRITER) == [(4, 6)]
    await check_journals(bench.store)


async def test_a_later_writer_that_begins_above_1(bench: Bench) -> None:
    """In a journal that exists, its missing beginning is a jump like any other."""
    await bench.commit(ours(1, 10))
    await bench.commit(ours(4, 11, writer=OTHER))
    assert ranges(bench.notices()) == [(OTHER, 1, 3)]
    await check_journals(bench.store)


async def test_a_jump_is_told_once(bench: Bench) -> None:
    """Whatever the write ends with, and however often the same items come again."""
    first = await bench.commit(ours(1, 10))
    items = [ours(5, 20), ours(6, 20), ours(2, 21, writer=OTHER)]
    bench.fail(CommitUnknownError("timeout"))
    bench.fail(CommitUnknownError("timeout"), after=True)
    await bench.commit(*items, known=first.head)
    await bench.commit(*items, known=first.head)  # a second worker that knows of nothing
    await bench.commit(*items, ours(9, 22), known=None)
    assert ranges(bench.notices()) == [(WRITER, 2, 4), (OTHER, 1, 1), (WRITER, 7, 8)]
    assert len(set(bench.ids())) == len(bench.ids())
    await check_journals(bench.store)


async def test_several_jumps_in_one_record(bench: Bench) -> None:
    """Each has its notice and an id of its own, though they share the position."""
    await bench.commit(ours(1, 10), ours(3, 10), ours(5, 10))
    assert ranges(bench.notices()) == [(WRITER, 2, 2), (WRITER, 4, 4)]
    assert len(set(bench.ids())) == 5


async def test_a_writer_that_left_the_map_jumps(bench: Bench) -> None:
    """What the body says of it counts: its old gap is not told of again, its new one is."""
    await bench.commit(ours(1, 10), ours(3, 10))
    await bench.commit(*(ours(1, 11 + i, writer=f"w{i:09d}") for i in range(300)))
    assert WRITER not in bench.meta().writers
    await bench.commit(ours(4, 900), ours(8, 901))
    assert ranges(bench.notices()) == [(WRITER, 2, 2), (WRITER, 5, 7)]
    await check_journals(bench.store)


async def test_an_adopted_journal_gets_no_notice(bench: Bench) -> None:
    """Lines without ids, and those whose metadata was removed, do not look like missing entries."""
    old = b'{"timestamp":"t0","event_type":"OLD"}\n'
    bench.store.adopt_journal("s", old * 3 + line("s", 1) + b"\n" + line("s", 3) + b"\n")
    await bench.commit(ours(1, 10), ours(4, 11), foreign(12))
    assert bench.notices() == []
    await check_journals(bench.store)


async def test_a_dead_letter_that_comes_back_fills_its_gap(bench: Bench) -> None:
    """The notice stays, the numbers are whole again, and nothing new is said."""
    await bench.commit(ours(1, 10), ours(4, 11))
    await bench.commit(ours(3, 12), ours(2, 13), ours(3, 14), ours(5, 15))
    assert ranges(bench.notices()) == [(WRITER, 2, 3)]
    assert bench.meta().writers.gaps(WRITER) == []
    assert bench.meta().writers.highest(WRITER) == 5


async def test_two_streams_of_one_name(bench: Bench) -> None:
    """The same shard ids and sequence numbers again, in a stream made anew: nothing is taken for old, and
    nothing for missing.
    """
    await bench.commit(ours(1, 10), ours(2, 11), foreign(12))
    again = [
        msgspec.structs.replace(item, position=Position(ANEW, "a", item.position.sequence))
        for item in (ours(3, 1), ours(4, 11), ours(1, 12, writer=OTHER))
    ]
    done = await bench.commit(*again, foreign(13, stream=ANEW))
    assert (done.written, done.duplicates) == (4, 0)
    assert bench.notices() == []
    assert bench.meta().position == Position(ANEW, "a", "13")
    done = await bench.commit(*again, foreign(13, stream=ANEW))
    assert done.written == 0
    await check_journals(bench.store)


async def test_the_checksum_is_that_of_the_body(bench: Bench) -> None:
    """At every version, notices and an adopted body without its last newline included."""
    bench.store.adopt_journal("s", b'{"event_type":"OLD"}')
    await bench.commit(ours(1, 10), ours(2, 10))
    await bench.commit(ours(9, 11))
    await bench.commit(*(ours(1, 20 + i, writer=f"w{i:09d}") for i in range(300)))
    await bench.commit(ours(10, 900))
    for version in bench.store.versions["s"][1:]:
        assert version.meta is not None
        assert version.meta.crc == crc32(version.body)


async def test_the_checksum_of_a_journal_that_has_none(bench: Bench) -> None:
    """An older version's journal goes on without, until its body has to be read for something else."""
    done = await bench.commit(ours(1, 10))
    bench.store.versions["s"][-1].fields.pop("sj-crc")  # type: ignore[union-attr]
    await bench.commit(ours(2, 11))
    assert bench.meta().crc is None
    await bench.commit(*(ours(1, 20 + i, writer=f"w{i:09d}") for i in range(300)))
    await bench.commit(ours(3, 900))  # the map has left the writer out
    assert bench.meta().crc == crc32(bench.store.body("s"))
    assert done.written == 1


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
