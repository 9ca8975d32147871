"""Splits, merges, gaps: a child only after its parents, and nothing lost on the way."""

from __future__ import annotations

import anyio
import pytest
import trio

from streamjournal.core.position import SHARD_END
from tests.sim.rig import Rig, Running, check_checkpoints, check_journals, rank
from tests.sim.virtual import until

pytestmark = pytest.mark.anyio

SESSIONS = [f"session-{n}" for n in range(12)]


def shard(number: int) -> str:
    """A shard's id."""
    return f"shardId-{number:012d}"


async def test_a_split_and_a_merge_under_way() -> None:
    """Each session's order holds across both, and drained shards are at their end."""
    rig = Rig(shards=2)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        for n in range(1, 61):
            for session in SESSIONS:
                await rig.put(session, n)
            await trio.sleep(0.2)
            if n == 15:
                rig.stream.split(shard(0))
            if n == 30:
                rig.stream.merge(shard(3), shard(1))
            if n == 45:
                rig.stream.split(shard(4))
        for session in SESSIONS:
            await until(lambda s=session: len(rig.numbers(s)) == 60)
        await until(lambda: all(rig.checkpoint(n) == SHARD_END for n in (0, 1, 3, 4)))
        await worker.stop()
    for session in SESSIONS:
        assert rig.numbers(session) == list(range(1, 61))
    await check_journals(rig.store)
    check_checkpoints(rig.leases)


async def test_a_child_is_not_taken_before_its_parents_have_ended() -> None:
    """In the whole history of the table no child has an owner while a parent is undrained."""
    rig = Rig(shards=2)
    for n in range(1, 11):
        for session in SESSIONS:
            await rig.put(session, n)
        if n == 4:
            rig.stream.split(shard(0))
        if n == 8:
            rig.stream.merge(shard(3), shard(1))
    await rig.drain()
    checkpoints: dict[str, str] = {}
    for change in rig.leases.history:
        assert change.after is not None
        checkpoints[change.after.key] = change.after.checkpoint
        if change.after.owner is not None:
            assert all(checkpoints[parent] == SHARD_END for parent in change.after.parents)
    for session in SESSIONS:
        assert rig.numbers(session) == list(range(1, 11))


async def test_a_store_that_is_away_keeps_the_children_waiting() -> None:
    """A parent that is read but not flushed is not drained."""
    rig = Rig()
    await rig.put("s", 1)
    rig.stream.split(shard(0))
    await rig.put("s", 2)
    rig.faults.away.add("store")
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(30)
        assert rig.checkpoint(0) == "TRIM_HORIZON"
        assert {row.owner for row in await rig.leases.rows() if row.parents} == {None}
        rig.faults.away.clear()
        await until(lambda: rig.numbers("s") == [1, 2])
        await worker.stop()


async def test_a_parent_that_expired_does_not_block_its_child() -> None:
    """What is not listed any more holds nothing to wait for."""
    rig = Rig()
    first = await rig.put("s", 1)
    rig.stream.split(shard(0))
    await rig.put("s", 2)
    rig.stream.trim_to(shard(0), first.sequence)
    assert rig.stream.forget_empty() == [shard(0)]
    await rig.drain()
    assert rig.numbers("s") == [2]


async def test_a_replayed_parent_does_not_write_over_its_child() -> None:
    """Its row was deleted: it is read again while its child is far ahead, and changes no journal."""
    rig = Rig()
    await rig.put("s", 1)
    await rig.put_data("s", b'{"event_type":"FOREIGN"}')
    rig.stream.split(shard(0))
    await rig.put("s", 2)
    await rig.drain()
    before = rig.store.body("s")
    row = next(row for row in await rig.leases.rows() if row.key == shard(0))
    await rig.leases.delete(row)
    await rig.drain()
    assert rig.store.body("s") == before
    assert rig.checkpoint(0) == SHARD_END


async def test_records_that_were_trimmed_unread() -> None:
    """The worker says so and goes on at the oldest record, without a tight loop."""
    rig = Rig()
    first = await rig.put("s", 1)
    await rig.drain()
    second = await rig.put("s", 2)
    await rig.put("s", 3)
    rig.stream.trim_to(shard(0), second.sequence)
    await rig.drain()
    assert rig.numbers("s") == [1, 3]
    assert rank(rig.checkpoint()) > rank(first.sequence)
    await check_journals(rig.store)


async def test_a_shard_that_expired_while_it_was_held() -> None:
    """It can be read no more: its task ends, and does not try for ever."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await rig.put("s", 1)
        await until(lambda: rig.numbers("s") == [1])
        rig.faults.away.add("stream.next")
        await trio.sleep(0.5)
        sequence = (await rig.put("s", 2)).sequence
        rig.stream.split(shard(0))
        rig.stream.trim_to(shard(0), sequence)
        rig.stream.forget_empty()
        rig.faults.away.clear()
        rig.faults.calls.clear()
        await trio.sleep(60)
        assert rig.services[0].stats.shards == 2
        assert rig.faults.calls["stream.next"] < 1500
        await rig.put("s", 3)
        await until(lambda: rig.numbers("s") == [1, 3])
        await worker.stop()
