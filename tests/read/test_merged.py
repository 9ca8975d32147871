"""The merged read: journal and stream as one, each entry once, in order, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio

from streamjournal.core.errors import StoreUnavailableError
from streamjournal.core.position import Position
from streamjournal.core.settings import Settings
from streamjournal.read.filters import Filter
from streamjournal.read.merged import MergedRead
from streamjournal.read.results import AsyncRead
from streamjournal.read.words import Access, Own
from streamjournal.store.names import blob_key
from streamjournal.stream.records import parse_record
from tests.sim.rig import WRITER, Rig, Running, ids_in, line
from tests.sim.virtual import until, virtual_clock

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


def ids(*numbers: int) -> list[str]:
    """Ids of the ordinary writer."""
    return [f"{WRITER}-{n}" for n in numbers]


async def read(rig: Rig, session_id: str = "s", access: Access | None = None, **options: Any) -> list[str]:
    """The ids that a complete merged read gives."""
    merged = MergedRead(access or rig.access(), session_id, **options)
    found = await ids_of(merged)
    assert merged.complete, merged.missing
    return found


async def ids_of(merged: MergedRead) -> list[str]:
    """The ids that a merged read gives."""
    return [x async for block in merged.blocks() for x in ids_in(b"\n".join(block.lines))]


async def test_no_session() -> None:
    """A session that nobody wrote to is empty, and completely so."""
    assert await read(Rig()) == []


async def test_before_between_and_after_flushes() -> None:
    """The same entries, whether they are on the stream, in the journal, or both."""
    rig = Rig(shards=4)
    for n in range(1, 6):
        await rig.put("s", n)
        await rig.put("other", n)
    assert await read(rig) == ids(*range(1, 6))
    await rig.drain()
    assert await read(rig) == ids(*range(1, 6))
    for n in range(6, 9):
        await rig.put("s", n)
    await rig.put("s", 8)  # a resend
    assert await read(rig) == ids(*range(1, 9))
    assert await read(rig, journal_only=True) == ids(*range(1, 6))


@pytest.mark.parametrize("writers", [0, 120])
async def test_a_flush_between_any_two_steps(writers: int) -> None:
    """Whatever step of the read a worker's flush falls before, nothing is lost or doubled.

    With 120 writers before, the metadata has no room for the one that writes on: its numbers are looked
    for in the body, which must then be the body that was given out.
    """
    for step in range(1, 60):
        rig = Rig()
        for n in range(writers):
            await rig.put("s", 1, writer=f"w{n:09d}")
        for n in range(1, 4):
            await rig.put("s", n)
            await rig.put_data("s", b'{"event_type":"FOREIGN"}')
        await rig.drain()
        for n in range(writers):  # the ordinary writer leaves the map
            await rig.put("s", 2, writer=f"w{n:09d}")
        await rig.drain()
        for n in range(4, 8):
            await rig.put("s", n)
            await rig.put_data("s", b'{"event_type":"FOREIGN"}')
        complete = [name for session, name in await everything(rig) if session == "s"]
        count = 0
        around = rig.faults.around

        async def counted(
            name: str,
            call: Callable[[], Awaitable[Any]],
            rig: Rig = rig,
            step: int = step,
            around: Any = around,
        ) -> Any:
            nonlocal count
            count += 1
            if count == step:
                rig.faults.around = around  # type: ignore[method-assign]
                await rig.drain()
                rig.faults.around = counted  # type: ignore[method-assign]
            return await around(name, call)

        rig.faults.around = counted  # type: ignore[method-assign]
        assert await read(rig) == complete, f"flush before step {step}"
        rig.faults.around = around  # type: ignore[method-assign]
        if count < step:
            assert step > 4
            return
    pytest.fail("the read took more steps than were tried")


async def everything(rig: Rig) -> list[tuple[str, str]]:
    """(session, id) of all entries that ever were put, by parsing the stream."""
    digest = (await rig.stream.identity()).digest
    found: list[tuple[str, str]] = []
    for state in rig.stream._shards.values():
        for record in state.records:
            for session_id, item in parse_record(record, digest).items:
                found.append((session_id, msgspec.json.decode(item.line)["id"]))
    return found


async def test_own_entries_come_last_and_once() -> None:
    """What this process has not had acknowledged follows what the stream has; a copy of it is dropped."""
    rig = Rig()
    await rig.put("s", 1, 2)
    pending = [line("s", 2), line("s", 3), line("s", 4, level="ERROR")]
    own = Own(None, pending)
    assert await read(rig, own=lambda: own) == ids(1, 2, 3, 4)
    assert await read(rig, own=lambda: own, last=3) == ids(2, 3, 4)
    assert await read(rig, own=lambda: own, passes=Filter(level="ERROR")) == ids(4)


async def test_what_is_acknowledged_during_the_read_is_not_missed() -> None:
    """It was pending when the read began, and is on the stream when the read looks again."""
    rig = Rig()
    await rig.put("s", 1)
    answers = [Own(None, [line("s", 2)]), Own(None, [])]
    assert await read(rig, own=lambda: answers.pop(0)) == ids(1, 2)


async def test_at_least_waits_for_what_was_acknowledged() -> None:
    """A stream that says that it is caught up is not believed before the known position was seen."""
    rig = Rig()
    await rig.put("s", 1)
    digest = (await rig.stream.identity()).digest
    second = rig.stream.last_sequence() + 1

    async def late() -> None:
        await trio.sleep(2)
        await rig.put("s", 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        own = Own(Position(digest, SHARD, str(second)), [])
        assert await read(rig, own=lambda: own) == ids(1, 2)
        assert trio.current_time() >= 2


async def test_at_least_that_never_shows_is_reported() -> None:
    """A position that was trimmed away does not make the read wait for ever, nor spin."""
    rig = Rig()
    await rig.put("s", 1)
    digest = (await rig.stream.identity()).digest
    own = Own(Position(digest, SHARD, str(10**30)), [])
    merged = MergedRead(rig.access(), "s", own=lambda: own)
    assert await ids_of(merged) == ids(1)
    assert not merged.complete
    assert trio.current_time() < 10
    assert rig.faults.calls["stream.next"] < 200


@pytest.mark.parametrize("ahead", [-3.0, 0.0, 3.0])
async def test_a_busy_shard_and_clocks_that_differ(ahead: float) -> None:
    """All that was acknowledged before the read began is in it, whatever this machine's clock says."""
    rig = Rig()
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            for n in range(1, 10**6):
                await rig.put("busy", n)
                await trio.sleep(0.002)

        nursery.start_soon(write)
        for n in range(1, 2600):
            await rig.put("s", n)
        access = rig.access()._replace(clock=virtual_clock(skew=ahead))
        assert await read(rig, access=access) == ids(*range(1, 2600))
        assert trio.current_time() < 20
        nursery.cancel_scope.cancel()


async def test_a_stream_that_cannot_be_read() -> None:
    """The journal is given all the same, and the answer says what is missing."""
    rig = Rig()
    await rig.put("s", 1, 2)
    await rig.drain()
    await rig.put("s", 3)
    for away in ("stream", "stream.next", "stream.shards"):
        rig.faults.away = {away}
        merged = MergedRead(rig.access(), "s")
        assert await ids_of(merged) == ids(1, 2)
        assert not merged.complete
        assert [what for what, _ in merged.missing] == ["stream"]
        assert "away" in merged.missing[0].why


async def test_a_lease_table_that_cannot_be_read() -> None:
    """Nothing is missing: the stream is read from its oldest record."""
    rig = Rig()
    await rig.put("s", 1, 2)
    await rig.drain()
    await rig.put("s", 3)
    rig.faults.away = {"leases"}
    assert await read(rig) == ids(1, 2, 3)


async def test_a_store_that_cannot_be_read() -> None:
    """Without the journal there is no read."""
    rig = Rig()
    rig.faults.away = {"store"}
    with pytest.raises(StoreUnavailableError):
        await read(rig)


async def test_a_trimmed_range_is_a_gap_that_is_reported() -> None:
    """What nobody read in time is missing, and what follows it is given."""
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    gone = await rig.put("s", 2)
    await rig.put("s", 3)
    rig.stream.trim_to(SHARD, gone.sequence)
    merged = MergedRead(rig.access(), "s")
    assert await ids_of(merged) == ids(1, 3)
    assert [what for what, _ in merged.missing] == ["range"]


async def test_across_a_split() -> None:
    """The parent's entries come before the child's, drained or not."""
    rig = Rig()
    await rig.put("s", 1)
    rig.stream.split(SHARD)
    await rig.put("s", 2)
    assert await read(rig) == ids(1, 2)
    await rig.drain()
    await rig.put("s", 3)
    assert await read(rig) == ids(1, 2, 3)


async def test_an_adopted_journal() -> None:
    """An older tool's lines come first, then the stream's; what is in both comes once."""
    rig = Rig()
    old = b'{"timestamp":"t","event_type":"OLD","tool_name":null,"details":{}}'
    rig.store.adopt_journal("s", old + b"\n" + line("s", 1))
    assert await read(rig) == ["", *ids(1)]
    await rig.put("s", 1, 2)
    assert await read(rig) == ["", *ids(1, 2)]
    assert await read(rig, last=2) == ids(1, 2)
    await rig.drain()
    assert await read(rig) == ["", *ids(1, 2)]


async def test_more_writers_than_the_metadata_holds() -> None:
    """A resend of a writer that left the map is looked for in the body."""
    rig = Rig()
    writers = [f"w{n:09d}" for n in range(200)]
    for writer in writers:
        await rig.put("s", 1, writer=writer)
    await rig.drain()
    await rig.put("s", 1, writer=writers[0])
    await rig.put("s", 2, writer=writers[0])
    assert len(await read(rig)) == 201


async def test_last_reads_only_the_end() -> None:
    """The bytes read do not grow with the journal; filters are applied before counting."""
    rig = Rig(settings=Settings(session_bytes=2**30, unflushed_bytes=2**30))
    for n in range(1, 4001, 100):
        lines = [line("s", i, level="ERROR" if i % 50 == 0 else "INFO") for i in range(n, n + 100)]
        await rig.put_lines("s", lines)
    await rig.drain()
    assert len(rig.store.body("s")) > 600_000
    rig.faulty_store.bytes_read = 0
    assert await read(rig, last=5) == ids(*range(3996, 4001))
    assert rig.faulty_store.bytes_read <= 2**16
    assert await read(rig, last=3, passes=Filter(level="ERROR")) == ids(3900, 3950, 4000)
    assert rig.faulty_store.bytes_read <= 2**18
    await rig.put("s", 4001, 4002)
    assert await read(rig, last=3) == ids(4000, 4001, 4002)
    assert await read(rig, last=1) == ids(4002)
    assert await read(rig, last=0) == []


@pytest.mark.parametrize("size", [1, 100, 70_000])
async def test_last_of_lines_of_every_length(size: int) -> None:
    """Lines longer than a step, and journals shorter than one, come out whole."""
    rig = Rig()
    for n in range(1, 12):
        await rig.put("s", n, details={"x": "y" * size})
    await rig.drain()
    for last in (1, 5, 11, 50):
        assert await read(rig, last=last) == ids(*range(1, 12))[-last:]


async def test_filters_drop_while_streaming() -> None:
    """A filter holds for the journal and for the stream."""
    rig = Rig()
    for n in range(1, 5):
        await rig.put("s", n, event_type=f"T{n % 2}", tool_name="a" if n < 3 else "b")
    await rig.drain()
    for n in range(5, 9):
        await rig.put("s", n, event_type=f"T{n % 2}", tool_name="b")
    assert await read(rig, passes=Filter(event_types="T0")) == ids(2, 4, 6, 8)
    assert await read(rig, passes=Filter(tool="b", event_types=["T1"])) == ids(3, 5, 7)


def reading(rig: Rig) -> AsyncRead:
    """A read as the client gives it."""
    access = rig.access()

    async def prepare() -> None:
        """Nothing is pending."""

    return AsyncRead(MergedRead(access, "s"), access, prepare)


def pointer(key: str, data: bytes) -> dict[str, Any]:
    """What stands in place of large details."""
    return {"$blob": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def test_blobs_are_resolved() -> None:
    """Details that went to the store come back."""
    rig = Rig()
    data = msgspec.json.encode({"big": "x" * 1000})
    key = await rig.store.put_blob("s", f"{WRITER}-1", data)
    await rig.put("s", 1, details=pointer(key, data))
    result = reading(rig)
    (entry,) = await result.all()
    assert entry.details == {"big": "x" * 1000}
    assert result.complete


@pytest.mark.parametrize("claims", ["s", "victim"])
async def test_a_pointer_to_somebody_elses_object_is_refused(claims: str) -> None:
    """Whoever writes an entry must not make its reader fetch another object, whatever the line claims."""
    rig = Rig()
    secret = b'{"secret":1}'
    key = await rig.store.put_blob("victim", f"{WRITER}-1", secret)
    rig.store.adopt_journal("s", line(claims, 1, details=pointer(key, secret)))
    result = reading(rig)
    (entry,) = await result.all()
    assert "secret" not in entry.details
    assert [what for what, _ in result.missing] == ["blob"]
    assert rig.faults.calls["store.get_blob"] == 0


@pytest.mark.parametrize("found", [None, b'{"other":1}'])
async def test_a_blob_that_is_gone_or_changed_is_reported(found: bytes | None) -> None:
    """The entry comes with its pointer, and the read is not complete."""
    rig = Rig()
    key = blob_key("s", f"{WRITER}-1")
    if found is not None:
        await rig.store.put_blob("s", f"{WRITER}-1", found)
    await rig.put("s", 1, details=pointer(key, b'{"first":1}'))
    result = reading(rig)
    (entry,) = await result.all()
    assert entry.details["$blob"] == key
    assert not result.complete


async def test_a_line_that_is_no_entry_is_reported() -> None:
    """A journal edited by hand is read on, and the answer says which line is none."""
    rig = Rig()
    rig.store.adopt_journal("s", b"scribble\n" + line("s", 1) + b"\n\xff\xfe\n")
    result = reading(rig)
    assert [entry.id for entry in await result.all()] == ids(1)
    assert [what for what, _ in result.missing] == ["line", "line"]


async def test_reads_while_a_worker_flushes() -> None:
    """Hundreds of reads at every moment of a worker's life: each has all that was put before it began."""
    rig = Rig(shards=2, latency=0.02, settings=Settings(flush_interval=0.3))
    put = 0
    async with trio.open_nursery() as nursery:
        worker = Running(rig)
        nursery.start_soon(worker.run)

        async def write() -> None:
            nonlocal put
            for n in range(1, 201):
                await rig.put("s", n)
                put = n
                await trio.sleep(0.03)

        nursery.start_soon(write)
        while put < 200:
            before = put
            found = await read(rig)
            assert found == ids(*range(1, len(found) + 1))
            assert len(found) >= before
        await until(lambda: len(rig.numbers("s")) == 200)
        await worker.stop()


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_reader_whose_clock_is_wrong_reads_everything(skew: float) -> None:
    """Only the stream's own clock says what was there when it began."""
    rig = Rig()
    for n in range(1, 2_101):  # more than one read gives
        await rig.put("s", n)
    access = rig.access()._replace(clock=virtual_clock(skew=skew))
    merged = MergedRead(access, "s")
    found = [line async for block in merged.blocks() for line in block.lines]
    assert len(found) == 2_100
    assert merged.complete


async def test_two_readers_that_share_a_window_each_see_what_was_there_when_they_began() -> None:
    """An old answer that nothing follows is not believed by who came later."""
    rig = Rig()
    access = rig.access()
    follower = access.feeds.follow("shardId-000000000000", "TRIM_HORIZON")
    await rig.put("s", 1)
    await follower.next()
    await rig.put("s", 2)
    merged = MergedRead(access, "s")
    assert sum([len(block.lines) async for block in merged.blocks()]) == 2
    await follower.aclose()
