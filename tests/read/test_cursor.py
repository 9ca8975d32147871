"""Cursors: resumed after any entry, a read misses nothing and repeats nothing."""

from __future__ import annotations

from typing import Any

import pytest

from streamjournal.core.errors import CommitRefusedError, CursorError
from streamjournal.read.cursor import Cursor
from streamjournal.read.filters import EVERYTHING, Filter
from streamjournal.read.merged import MergedRead
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.records import parse_record
from tests.sim.faults import Fault, FaultyStream
from tests.sim.rig import WRITER, Rig, ids_in, line

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


def ids(*numbers: int) -> list[str]:
    """Ids of the ordinary writer."""
    return [f"{WRITER}-{n}" for n in numbers]


async def read(rig: Rig, cursor: str | None = None, **options: Any) -> tuple[list[str], list[str], list[str]]:
    """The ids, the cursor after each, with the one before the first in front, and what is missing."""
    resume = Cursor.parse(cursor, session_id="s") if cursor else None
    merged = MergedRead(rig.access(), "s", resume=resume, **options)
    found: list[str] = []
    cursors = [str(merged.cursor)]
    async for block in merged.blocks():
        found += ids_in(b"\n".join(block.lines))
        cursors += [str(block.cursor_after(i)) for i in range(len(block.lines))]
    if len(cursors) > 1 and options.get("passes", EVERYTHING).passes_all:
        cursors[-1] = str(merged.cursor)  # the end's own
    return found, cursors, [what for what, _ in merged.missing]


async def half_flushed(*, split: bool = False, old: bool = False) -> Rig:
    """A session with entries in its journal and on the stream; ours and another producer's."""
    rig = Rig()
    if old:
        rig.store.adopt_journal("s", b'{"timestamp":"t","event_type":"OLD"}\n' + line("s", 1) + b"\n")
    await rig.put("s", 1, 2, 3)
    await rig.put_data("s", b'{"event_type":"FOREIGN"}')
    await rig.put("s", 4, 5)
    await rig.drain()
    await rig.put("s", 6, 7, 8)
    if split:
        rig.stream.split(SHARD)
    await rig.put_data("s", b'{"event_type":"FOREIGN"}')
    await rig.put("s", 9)
    await rig.put("other", 1)
    return rig


async def nothing(_rig: Rig) -> None:
    """Nothing happens between the two reads."""


async def flush(rig: Rig) -> None:
    """A worker brings everything to the journal."""
    await rig.drain()


async def more(rig: Rig) -> None:
    """More entries come."""
    await rig.put("s", 10, 11)


async def flush_and_more(rig: Rig) -> None:
    """Both."""
    await rig.drain()
    await rig.put("s", 10, 11)


async def more_and_flush(rig: Rig) -> None:
    """Both, in the other order, with a resend between."""
    await rig.put("s", 10, 11)
    await rig.put("s", 9)
    await rig.drain()


BETWEEN = [nothing, flush, more, flush_and_more, more_and_flush]


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("shape", ["plain", "split", "old"])
async def test_after_every_entry(between: Any, shape: str) -> None:
    """For every k: the first k entries, and what the resumed read gives, are all entries, each once."""
    rig = await half_flushed(split=shape == "split", old=shape == "old")
    found, cursors, _ = await read(rig)
    await between(rig)
    complete, _, _ = await read(rig)
    assert complete[: len(found)] == found
    for k, cursor in enumerate(cursors):
        rest, _, missing = await read(rig, cursor)
        assert found[:k] + rest == complete, f"after {k}"
        assert missing == []


@pytest.mark.parametrize("between", BETWEEN)
async def test_after_every_filtered_entry(between: Any) -> None:
    """The same with a filter: what did not pass does not come back, what passes is not missed."""
    rig = Rig()
    for n in range(1, 10):
        await rig.put("s", n, level="ERROR" if n % 3 == 0 else "INFO")
        if n == 4:
            await rig.drain()
    passes = Filter(level="ERROR")
    found, cursors, _ = await read(rig, passes=passes)
    await between(rig)
    await rig.put("s", 12, level="ERROR")
    complete, _, _ = await read(rig, passes=passes)
    for k, cursor in enumerate(cursors):
        rest, _, _ = await read(rig, cursor, passes=passes)
        assert found[:k] + rest == complete, f"after {k}"


@pytest.mark.parametrize("last", [1, 3, 6, 100])
async def test_after_every_one_of_the_last(last: int) -> None:
    """Entries of a read from the end have cursors too, those from the journal's middle included."""
    rig = await half_flushed()
    complete, _, _ = await read(rig)
    found, cursors, _ = await read(rig, last=last)
    await rig.drain()
    for k in range(1, len(cursors)):
        rest, _, _ = await read(rig, cursors[k])
        assert found[:k] + rest == complete[-len(found) :]


async def test_a_chain_of_reads() -> None:
    """Read a little, resume, with flushes and new entries in between: all entries, each once."""
    for seed in range(25):
        rig = Rig(seed=seed)
        rng = rig.clock.rng
        found: list[str] = []
        cursor: str | None = None
        n = 0
        for _ in range(30):
            for _ in range(rng.randint(0, 3)):
                n += 1
                await rig.put("s", *range(n, n + rng.randint(1, 3)))
                n = max(rig_numbers(rig))
            if rng.random() < 0.3:
                await rig.drain()
            if rng.random() < 0.1:
                rig.faults.away = {"stream"}
            some, cursors, _ = await read(rig, cursor)
            rig.faults.away = set()
            k = rng.randint(0, len(some))
            found += some[:k]
            cursor = cursors[k]
        rest, _, _ = await read(rig, cursor)
        assert found + rest == ids(*range(1, n + 1)), f"seed {seed}"


def rig_numbers(rig: Rig) -> list[int]:
    """The numbers on the stream."""
    records = [record for shard in rig.stream._shards.values() for record in shard.records]
    return [item.n for record in records for _, item in parse_record(record, "x").items]


async def test_a_journal_that_was_begun_anew_is_read_from_its_start() -> None:
    """And the reader is told."""
    rig = await half_flushed()
    _, cursors, _ = await read(rig)
    rig.store.delete_journal("s")
    await rig.drain()
    complete, _, _ = await read(rig)
    rest, _, missing = await read(rig, cursors[3])
    assert rest == complete
    assert missing == ["journal"]


async def test_a_journal_that_was_deleted_and_is_not_back_yet() -> None:
    """What is on the stream comes on; a journal that comes back later is read from its start."""
    rig = await half_flushed()
    found, cursors, _ = await read(rig)
    rig.store.delete_journal("s")
    rest, after, _ = await read(rig, cursors[-1])
    assert rest == []
    await rig.put("s", 10)
    rest, _, _ = await read(rig, after[-1])
    assert rest == ids(10)
    assert found[-1] == ids(9)[0]


async def test_a_stream_made_anew_says_nothing_about_the_old_ones_places() -> None:
    """Its sequence numbers begin again; a cursor of the old stream does not hide its records."""
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    await rig.put("s", 2)
    _, cursors, _ = await read(rig)
    await rig.drain()
    rig.stream = MemoryStream(shards=1, clock=rig.clock, first_sequence=5)
    rig.faulty_stream = FaultyStream(rig.stream, rig.faults)
    await rig.put("s", 3)
    assert (await read(rig, cursors[2]))[0] == ids(3)


async def test_an_entry_that_never_got_into_the_journal() -> None:
    """It was shown from the stream, then parked: what follows it is not lost, and the reader is told; the
    journal tells of the one that is missing, too.
    """
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    await rig.put("s", 2)
    _, cursors, _ = await read(rig)
    rig.faults.script["store.append"].append(Fault(CommitRefusedError("no")))
    await rig.drain()
    assert rig.numbers("s") == [1]
    await rig.put("s", 3)
    await rig.drain()
    rest, _, missing = await read(rig, cursors[-1])
    assert rest[-1:] == ids(3)
    assert [entry_id.partition("trimmed:")[2] for entry_id in rest[:-1]] == ids(3)  # the notice before it
    assert missing == ["journal"]


async def test_what_is_no_cursor_is_refused() -> None:
    """Not a cursor, of another session, of a newer version: each says so."""
    cursor = str(Cursor("s", "g", 17, "w-1", {"shard": "5"}, stream="d"))
    assert Cursor.parse(cursor, session_id="s") == Cursor("s", "g", 17, "w-1", {"shard": "5"}, stream="d")
    newer = str(Cursor("s", version=2))
    for text, session in ((cursor, "t"), (cursor, None), (newer, "s"), ("", "s"), ("?", "s"), ("e30", "s")):
        with pytest.raises(CursorError):
            Cursor.parse(text, session_id=session)


async def test_a_cursor_from_an_expired_shard_into_a_journal_that_began_anew() -> None:
    """Its last entry is nowhere any more; the reader is told, and gets the journal from its start."""
    rig = Rig()
    await rig.put("s", 1)
    _, cursors, _ = await read(rig)  # from the stream: there is no journal yet
    await rig.drain()
    rig.stream.split(SHARD)
    await rig.put("s", 2)
    await rig.drain()
    rig.stream.forget(SHARD)
    rig.store.delete_journal("s")
    await rig.put("s", 3)
    await rig.drain()
    await rig.put("s", 4)
    rest, _, missing = await read(rig, cursors[-1])
    assert [x for x in rest if x.startswith(WRITER)] == ids(3, 4)
    assert missing == ["journal"]


async def test_a_deleted_journals_cursor_does_not_hide_the_one_that_takes_its_place() -> None:
    """Also if it was read while there was no journal at all."""
    rig = await half_flushed()
    _, cursors, _ = await read(rig)
    rig.store.delete_journal("s")
    _, after, _ = await read(rig, cursors[-1])
    await rig.put("s", 10)
    await rig.drain()
    rest, _, missing = await read(rig, after[-1])
    assert ids(10)[0] in rest
    assert missing == ["journal"]
