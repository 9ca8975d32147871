"""The tail: history, then live, across flushes, splits and outages; resumed by cursor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
import trio

from streamjournal.core.entry import decode_envelope
from streamjournal.core.errors import StoreUnavailableError
from streamjournal.core.settings import Settings
from streamjournal.read.cursor import Cursor
from streamjournal.read.filters import Filter
from streamjournal.read.merged import MergedRead
from streamjournal.read.tail import Tail
from streamjournal.read.words import Access
from streamjournal.stream.rules import hash_of
from tests.sim.rig import WRITER, Rig, Running

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


def ids(*numbers: int) -> list[str]:
    """Ids of the ordinary writer."""
    return [f"{WRITER}-{n}" for n in numbers]


async def take(tail: Tail, count: int, *, within: float = 60.0) -> list[str]:
    """The ids of the next so many entries."""
    with trio.fail_after(within):
        return [decode_envelope(await anext(tail)).id for _ in range(count)]


async def is_silent(tail: Tail, *, seconds: float = 5.0) -> bool:
    """Whether nothing comes for a while."""
    with anyio.move_on_after(seconds):
        raise AssertionError(f"there came {await anext(tail)!r}")
    return True


async def test_history_then_live() -> None:
    """The last so many, from journal and stream, and then each entry as it comes, once."""
    rig = Rig(shards=2)
    await rig.put("s", 1, 2, 3)
    await rig.drain()
    await rig.put("s", 4, 5)
    async with Tail(rig.access(), "s", history=3) as tail:
        assert await take(tail, 3) == ids(3, 4, 5)
        await rig.put("other", 1)
        await rig.put("s", 6)
        assert await take(tail, 1) == ids(6)
        await rig.put("s", 6)  # a resend
        await rig.drain()  # a flush changes nothing for who saw it
        await rig.put("s", 7)
        assert await take(tail, 1) == ids(7)
        assert await is_silent(tail)


@pytest.mark.parametrize(("history", "expected"), [(None, [1, 2, 3]), (0, []), (2, [2, 3])])
async def test_history(history: int | None, expected: list[int]) -> None:
    """None gives all of a session, 0 nothing; without `follow` that is the end."""
    rig = Rig()
    await rig.put("s", 1, 2)
    await rig.drain()
    await rig.put("s", 3)
    async with Tail(rig.access(), "s", history=history, follow=False) as tail:
        assert [decode_envelope(x).id async for x in tail] == ids(*expected)


async def test_a_new_entry_is_shown_at_once() -> None:
    """Not at the next poll."""
    rig = Rig()
    async with Tail(rig.access(), "s") as tail:
        assert await is_silent(tail)
        await rig.put("s", 1)
        assert await take(tail, 1, within=0.2) == ids(1)


async def test_giving_up_waiting_loses_nothing() -> None:
    """A timeout around `anext` may strike at any moment; the tail goes on."""
    rig = Rig(latency=0.05)
    found: list[str] = []
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            for n in range(1, 101):
                await rig.put("s", n)
                await trio.sleep(0.03)

        nursery.start_soon(write)
        async with Tail(rig.access(), "s") as tail:
            while len(found) < 100:
                with anyio.move_on_after(rig.clock.rng.random() * 0.05):
                    found.append(decode_envelope(await anext(tail)).id)
    assert found == ids(*range(1, 101))


async def test_all_sessions() -> None:
    """Without a session: what is not flushed yet, then all that comes, in each session's order."""
    rig = Rig(shards=4)
    await rig.put("a", 1)
    await rig.drain()
    for session in "abcde":
        await rig.put(session, 2)
    async with Tail(rig.access(), None, history=3) as tail:
        assert await take(tail, 3) == ids(2, 2, 2)
        for n in (3, 4):
            for session in "abcde":
                await rig.put(session, n)
        lines = [await anext(tail) for _ in range(10)]
        seen = [(decode_envelope(x).session_id, decode_envelope(x).id) for x in lines]
        for session in "abcde":
            assert [i for s, i in seen if s == session] == ids(3, 4)
        assert await is_silent(tail)


@pytest.mark.parametrize("session", ["s", None])
async def test_across_a_split_with_a_fast_worker(session: str | None) -> None:
    """The children are read from their beginning, even if the worker has drained them by then."""
    rig = Rig(settings=Settings(flush_interval=0.05), latency=0.01)
    async with trio.open_nursery() as nursery:
        worker = Running(rig)
        nursery.start_soon(worker.run)
        async with Tail(rig.access(), session, history=0) as tail:
            assert await is_silent(tail, seconds=1)
            rig.faults.away.add("stream.shards")  # the tail sees the children late
            shard = SHARD
            for n in range(1, 61):
                await rig.put("s", n)
                await trio.sleep(0.1)
                if n in (10, 30):
                    low, high = rig.stream.split(shard)
                    await rig.put("s", n)  # a resend, in the child
                    shard = next(
                        x.id for x in await rig.stream.shards() if x.id in (low, high) and covers(x, "s")
                    )
                if n in (20, 40):
                    rig.faults.away.clear()
            assert await take(tail, 60) == ids(*range(1, 61))
            assert await is_silent(tail)
        await worker.stop()


def covers(shard: Any, session: str) -> bool:
    """Whether a session's records go to a shard."""
    return bool(shard.first_hash <= hash_of(session) <= shard.last_hash)


@pytest.mark.parametrize("session", ["s", None])
@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_a_stream_outage_is_waited_for(session: str | None, when: str) -> None:
    """It is told of, and nothing is lost, doubled or out of order, whatever the worker flushes meanwhile."""
    rig = Rig()
    await rig.put("s", 1)
    if when == "at the start":
        rig.faults.away.add("stream")
    async with Tail(rig.access(), session, history=None) as tail:
        if when == "later":
            assert await take(tail, 1) == ids(1)
            rig.faults.away.add("stream")
            assert await is_silent(tail, seconds=2)  # the look that was under way is over
        await rig.put("s", 2)
        assert await is_silent(tail, seconds=20)
        if session is not None:
            calm, rig.faults.away = rig.faults.away, set()
            rig.faults.latency = 0.0
            await rig.drain()  # in the middle of the outage, the worker flushes
            rig.faults.away = calm
        await rig.put("s", 3)
        assert await is_silent(tail, seconds=20) if session is None else True
        rig.faults.away.clear()
        expected = [1, 2, 3] if when == "at the start" else [2, 3]
        assert await take(tail, len(expected)) == ids(*expected)
        assert await is_silent(tail)
        assert {what for what, _ in tail.missing} == {"stream"}


async def test_a_store_that_is_away_is_raised() -> None:
    """Without the journal there is no history; the consumer hears of it."""
    rig = Rig()
    rig.faults.away.add("store")
    async with Tail(rig.access(), "s") as tail:
        with pytest.raises(StoreUnavailableError):
            await anext(tail)
        with pytest.raises(StopAsyncIteration):
            await anext(tail)


async def test_trimmed_while_it_followed() -> None:
    """A tail that was kept from reading for longer than the retention says so and goes on."""
    rig = Rig()
    async with Tail(rig.access(), "s") as tail:
        await rig.put("s", 1)
        assert await take(tail, 1) == ids(1)
        rig.faults.away.add("stream")
        assert await is_silent(tail)
        gone = await rig.put("s", 2)
        await rig.put("s", 3)
        rig.stream.trim_to(SHARD, gone.sequence)
        rig.faults.away.clear()
        assert await take(tail, 1) == ids(3)
        assert [what for what, _ in tail.missing] == ["stream", "range"]


async def test_a_shard_that_expires_under_a_tail() -> None:
    """The tail goes on in the children, without spinning."""
    rig = Rig()
    async with Tail(rig.access(), "s") as tail:
        last = await rig.put("s", 1)
        assert await take(tail, 1) == ids(1)
        rig.faults.away.add("stream")
        assert await is_silent(tail)
        rig.stream.split(SHARD)
        rig.stream.trim_to(SHARD, last.sequence)
        rig.stream.forget_empty()
        await rig.put("s", 2)
        rig.faults.away.clear()
        rig.faults.calls.clear()
        assert await take(tail, 1) == ids(2)
        assert rig.faults.calls["stream.next"] < 50


@pytest.mark.parametrize("session", ["s", None])
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("passes", [Filter(), Filter(level="ERROR")])
async def test_resumed_after_every_entry(session: str | None, *, flush: bool, passes: Filter) -> None:
    """For every k: what came before the k-th cursor and what comes after it are all entries, each once."""
    rig = Rig(shards=2)
    numbers = iter(range(1, 100))

    async def put(count: int) -> None:
        for _ in range(count):
            n = next(numbers)
            await rig.put("s", n, level="ERROR" if n % 2 else "INFO")
            await rig.put("t", n, level="ERROR" if n % 2 else "INFO")
            await rig.put_data("s", b'{"event_type":"FOREIGN","level":"ERROR"}')

    if session is not None:
        await put(2)
        await rig.drain()
    await put(2)
    found: list[bytes] = []
    cursors: list[str] = []
    async with Tail(rig.access(), session, passes, history=None) as tail:
        cursors.append(str(tail.cursor))
        await put(3)
        with anyio.move_on_after(5):
            while True:
                found.append(await anext(tail))
                cursors.append(str(tail.cursor))
    assert len(found) > 5
    if flush:
        await rig.drain()
    await put(2)
    complete: set[bytes] | None = None
    for k in range(1, len(cursors)):
        resume = Cursor.parse(cursors[k], session_id=session)
        rest: list[bytes] = []
        async with Tail(rig.access(), session, passes, resume=resume) as tail:
            with anyio.move_on_after(5):
                while True:
                    rest.append(await anext(tail))
        every = found[:k] + rest
        assert max(Counter(every).values()) == 1, f"repeated after {k}"
        complete = complete or set(every)
        assert set(every) == complete, f"missed after {k}"
        for name in ("s", "t"):
            own = [decode_envelope(x) for x in every]
            order = [e.id for e in own if e.session_id == name and e.id.startswith(WRITER)]
            assert order == sorted(order, key=lambda i: int(i.partition("-")[2]))


async def test_a_tail_of_all_does_not_begin_drained_shards_again() -> None:
    """A shard that had ended before the cursor stays behind it."""
    rig = Rig()
    await rig.put("s", 1)
    rig.stream.split(SHARD)
    await rig.put("s", 2)
    await rig.drain()
    async with Tail(rig.access(), None) as tail:
        await is_silent(tail, seconds=1)
        await rig.put("s", 3)
        assert await take(tail, 1) == ids(3)
        cursor = Cursor.parse(str(tail.cursor), session_id=None)
    await rig.put("s", 4)
    async with Tail(rig.access(), None, resume=cursor) as tail:
        assert await take(tail, 1) == ids(4)
        assert await is_silent(tail)


# The shared feed


def shared(rig: Rig) -> Access:
    """One process's access."""
    return rig.access()


async def test_many_tails_cost_one_readers_traffic() -> None:
    """Fifty tails of one shard ask the stream about as often as one, and all see everything."""
    costs = []
    for tails in (1, 50):
        rig = Rig()
        access = shared(rig)
        seen: Counter[int] = Counter()

        async def follow(number: int, access: Access = access, seen: Counter[int] = seen) -> None:
            async with Tail(access, "s", history=0) as tail:
                async for _ in tail:
                    seen[number] += 1

        async with trio.open_nursery() as nursery:
            for number in range(tails):
                nursery.start_soon(follow, number)
            await trio.sleep(5)
            rig.faults.calls.clear()
            for n in range(1, 101):
                await rig.put("s", n)
                await trio.sleep(0.2)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        assert seen == dict.fromkeys(range(tails), 100)
        costs.append(rig.faults.calls["stream.next"])
    assert costs[1] <= costs[0] * 1.2
    assert costs[0] <= 600


async def test_a_resumed_tail_does_not_disturb_the_live_ones() -> None:
    """It catches up by a reader of its own, and joins them then."""
    rig = Rig()
    access = shared(rig)
    for n in range(1, 3001):
        await rig.put("s", n)
    async with Tail(access, "live", history=0) as live:
        await is_silent(live, seconds=2)
        readers = rig.faults.calls["stream.reader"]
        rig.faults.latency = 0.2
        async with Tail(access, "s", resume=Cursor("s")) as late:
            await rig.put("live", 1)
            assert await take(live, 1, within=1.0) == ids(1)
            assert await take(late, 3000) == ids(*range(1, 3001))
            await trio.sleep(3)
            assert rig.faults.calls["stream.reader"] <= readers + 3
            rig.faults.latency = 0.0
            await trio.sleep(2)
            rig.faults.calls.clear()
            await trio.sleep(10)
            assert rig.faults.calls["stream.next"] <= 110  # one reader polls, not two
            await rig.put("s", 3001)
            assert await take(late, 1) == ids(3001)


async def test_a_merged_read_does_not_wait_for_a_tails_poll() -> None:
    """It gets its turn between two looks, however many tails there are."""
    rig = Rig()
    access = shared(rig)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(watch, access)
        await trio.sleep(3.03)
        began = trio.current_time()
        merged = MergedRead(access, "s")
        assert [block async for block in merged.blocks()] == []
        assert trio.current_time() - began <= 0.25
        nursery.cancel_scope.cancel()


async def watch(access: Access) -> None:
    """A tail that goes on."""
    async with Tail(access, "s", history=0) as tail:
        async for _ in tail:
            pass


async def test_a_cancelled_tail_skips_nothing_for_the_others() -> None:
    """Tails come and go at random moments; the one that stays sees everything, in order."""
    rig = Rig(latency=0.05)
    access = shared(rig)
    found: list[str] = []

    async def stay() -> None:
        async with Tail(access, "s", history=0) as tail:
            async for x in tail:
                found.append(decode_envelope(x).id)  # noqa: PERF401 - it never ends

    async def come_and_go() -> None:
        while True:
            with anyio.move_on_after(rig.clock.rng.random()):
                await watch(access)
            await trio.sleep(rig.clock.rng.random() / 5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stay)
        for _ in range(5):
            nursery.start_soon(come_and_go)
        await trio.sleep(2)
        for n in range(1, 301):
            await rig.put("s", n)
            await trio.sleep(0.03)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert found == ids(*range(1, 301))


async def test_a_consumer_that_is_slower_than_the_window() -> None:
    """The window moves on without him; he reads on by himself and misses nothing."""
    rig = Rig()
    access = shared(rig)
    async with Tail(access, "s", history=0) as slow, trio.open_nursery() as nursery:
        await is_silent(slow, seconds=1)
        nursery.start_soon(watch, access)
        for n in range(1, 31):
            await rig.put("s", n, details={"x": "y" * 900_000})
            await trio.sleep(0.5)
        assert await take(slow, 30) == ids(*range(1, 31))
        nursery.cancel_scope.cancel()


async def test_a_resend_of_a_writer_that_left_the_map() -> None:
    """A spool that is recovered late brings nothing twice, although its writer is not in the metadata."""
    rig = Rig()
    await rig.put("s", 1)
    for n in range(200):
        await rig.put("s", 1, writer=f"w{n:09d}")
    await rig.drain()
    async with Tail(rig.access(), "s", history=1) as tail:
        await take(tail, 1)
        await rig.put("s", 1)  # the resend
        await rig.put("s", 2)
        assert await take(tail, 1) == ids(2)


async def test_a_resend_from_before_a_tail_of_all_sessions() -> None:
    """Who begins in the middle takes a resend of what came earlier for no news; a later gap stays one."""
    rig = Rig()
    await rig.put("s", 1, 2, 3)
    await rig.drain()
    async with Tail(rig.access(), None, history=None) as tail:
        await rig.put("s", 4)
        assert await take(tail, 1) == ids(4)
        await rig.put("s", 2)  # the resend
        await rig.put("s", 6)
        await rig.put("s", 5)
        assert await take(tail, 2) == ids(6, 5)


@pytest.mark.parametrize("first_is_low", [True, False])
async def test_a_tail_of_all_sessions_resumed_twice_within_a_record(*, first_is_low: bool) -> None:
    """What was given out of a record that did not come again yet stays behind, in the next cursor too."""
    low = next(s for s in "abcdefgh" if hash_of(s) < 2**127)
    high = next(s for s in "abcdefgh" if hash_of(s) >= 2**127)
    first, second = (low, high) if first_is_low else (high, low)
    rig = Rig(shards=2)
    found: list[tuple[str, str]] = []

    async def listen(cursor: Cursor | None, *, upto: int, put: bool = False) -> Cursor:
        async with Tail(rig.access(), None, history=0, resume=cursor) as tail:
            if put:
                await anyio.sleep(1)
                await rig.put(first, 1, 2, 3, 4)
            with anyio.move_on_after(5):
                while len(found) < upto:
                    entry = decode_envelope(await anext(tail))
                    found.append((entry.session_id, entry.id))
            return Cursor.parse(str(tail.cursor), session_id=None)

    cursor = await listen(None, upto=2, put=True)
    await rig.put(second, 1)
    cursor = await listen(cursor, upto=3)
    await listen(cursor, upto=99)
    assert len(found) == len(set(found)) == 5


async def test_a_test_that_raises_skips_nothing() -> None:
    """Its error comes out once for each try; what was not asked about is not passed over."""
    rig = Rig()
    failures = [KeyError("x"), KeyError("x")]

    def odd(entry: Any) -> bool:
        if entry.id.endswith("-2") and failures:
            raise failures.pop()
        return True

    got: list[str] = []
    async with Tail(rig.access(), "s", Filter(where=odd)) as tail:
        await anyio.sleep(1)
        await rig.put("s", 1, 2, 3)
        await rig.put("s", 4)
        while len(got) < 6:
            try:
                got += await take(tail, 1)
            except KeyError:
                got.append("raised")
    assert got == ["raised", "raised", *ids(1, 2, 3, 4)]
