"""A worker over everything in memory: its start, its end, crashes, and others beside it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio

from streamjournal.core.entry import decode_envelope
from streamjournal.core.errors import CommitRefusedError, LeasesUnavailableError
from streamjournal.core.settings import Settings
from streamjournal.leases.port import Lease
from tests.sim.faults import Fault
from tests.sim.rig import AWS_LIKE, Rig, Running, check_checkpoints, check_journals
from tests.sim.virtual import until

pytestmark = pytest.mark.anyio


async def test_drain_brings_everything_and_ends() -> None:
    """All shards, all sessions, each entry once, in order; the leases are free afterwards."""
    rig = Rig(shards=4)
    for n in range(1, 21):
        for session in ("a", "b", "c/d", "日本"):
            await rig.put(session, n)
    await rig.drain()
    for session in ("a", "b", "c/d", "日本"):
        assert rig.numbers(session) == list(range(1, 21))
    await check_journals(rig.store)
    assert all(row.owner is None for row in await rig.leases.rows())


async def test_drain_of_an_empty_stream_ends() -> None:
    """There is nothing to wait for."""
    rig = Rig(shards=2)
    await rig.drain()
    assert trio.current_time() < 2


async def test_a_busy_stream_does_not_keep_a_drain() -> None:
    """What comes after the start is not waited for."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:

        async def write() -> None:
            for n in range(1, 10**6):
                await rig.put("s", n)
                await trio.sleep(0.01)

        tasks.start_soon(write)
        await trio.sleep(1)
        await rig.drain()
        tasks.cancel_scope.cancel()
    assert len(rig.numbers("s")) >= 100
    assert trio.current_time() < 30


async def test_entries_arrive_within_the_flush_interval() -> None:
    """A running worker writes what came by then, and its checkpoint follows."""
    rig = Rig(settings=Settings(flush_interval=5.0))
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        sequence = (await rig.put("s", 1, 2)).sequence
        await trio.sleep(4.5)
        assert rig.numbers("s") == []
        await trio.sleep(2)
        assert rig.numbers("s") == [1, 2]
        await until(lambda: rig.checkpoint() == sequence)
        assert trio.current_time() < 15
        assert await worker.stop() < 1


async def test_stop_flushes_checkpoints_and_releases() -> None:
    """Nothing has to be read again, and the next worker need not wait for a lease to expire."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        sequence = (await rig.put("s", 1, 2, 3)).sequence
        await trio.sleep(1)
        assert rig.numbers("s") == []
        assert await worker.stop() < 1
    assert rig.numbers("s") == [1, 2, 3]
    assert rig.checkpoint() == sequence
    assert [row.owner for row in await rig.leases.rows()] == [None]


async def test_a_stop_that_cannot_flush_ends_within_the_grace() -> None:
    """A store that is away does not hold the process; the leases are let go, the entries read again."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        await rig.put("s", 1)
        await trio.sleep(1)
        rig.faults.away.add("store")
        assert await worker.stop() < 10
    assert [row.owner for row in await rig.leases.rows()] == [None]
    rig.faults.away.clear()
    await rig.drain()
    assert rig.numbers("s") == [1]


@pytest.mark.parametrize("when", [0.3, 1.3, 2.05, 3.7, 6.0])
async def test_a_killed_worker_loses_and_doubles_nothing(when: float) -> None:
    """The next one reads on after the checkpoint, once the lease has expired by its own clock."""
    rig = Rig(shards=2, latency=0.2)
    for n in range(1, 31):
        for session in ("a", "b"):
            await rig.put(session, n)
        await rig.put_data("a", b'{"event_type":"FOREIGN"}')
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(when)
        await worker.kill()
    await rig.drain()
    assert rig.numbers("a") == rig.numbers("b") == list(range(1, 31))
    assert len(rig.ids("a")) == 60
    await check_journals(rig.store)
    check_checkpoints(rig.leases)


async def test_resuming_reads_after_the_checkpoint() -> None:
    """What is durable is not read again."""
    rig = Rig()
    await rig.put("s", 1, 2, 3)
    await rig.drain()
    await rig.put("s", 4)
    await rig.drain()
    assert rig.services[-1].stats.entries == 1
    assert rig.services[-1].stats.duplicates == 0


async def test_a_deleted_lease_row_replays_harmlessly() -> None:
    """It starts again at the oldest record; positions and numbers drop what is there."""
    rig = Rig()
    await rig.put("s", 1, 2)
    await rig.put_data("s", b'{"event_type":"FOREIGN"}')
    await rig.drain()
    before = rig.store.body("s")
    (row,) = await rig.leases.rows()
    await rig.leases.delete(row)
    await rig.drain()
    assert rig.services[-1].stats.entries == 3
    assert rig.store.body("s") == before
    assert len(rig.store.versions["s"]) == 1


async def test_rows_of_another_stream_are_replaced_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream made anew under the old name begins at its oldest record, whatever the rows say."""
    rig = Rig()
    await rig.leases.create(Lease("shardId-000000000000", "gone", 7, str(10**30), stream="urn:x earlier"))
    await rig.put("s", 1)
    await rig.drain()
    assert rig.numbers("s") == [1]
    assert "lease_of_another_stream" in capsys.readouterr().out
    identity = await rig.stream.identity()
    assert [row.stream for row in await rig.leases.rows()] == [f"{identity.arn} {identity.created}"]


async def test_a_second_worker_waits_and_takes_over() -> None:
    """It does nothing while the first one lives, and goes on within seconds of its death."""
    rig = Rig(shards=2)
    async with anyio.create_task_group() as tasks:
        first, second = Running(rig), Running(rig)
        tasks.start_soon(first.run)
        await trio.sleep(1)
        tasks.start_soon(second.run)
        await rig.put("s", 1)
        await trio.sleep(30)
        assert rig.numbers("s") == [1]
        assert rig.services[1].stats.records == 0
        await first.kill()
        await rig.put("s", 2)
        died = trio.current_time()
        await until(lambda: rig.numbers("s") == [1, 2])
        assert trio.current_time() - died < 20
        assert await second.stop() < 1


async def test_a_lease_lost_in_the_middle_stops_the_work_without_a_checkpoint() -> None:
    """The task ends, nothing it holds is counted as durable, and the winner brings it all."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        await rig.put("s", 1, 2)
        await trio.sleep(1)
        (row,) = await rig.leases.rows()
        await rig.leases.update(row, row.taken_by("thief"))
        await trio.sleep(8)
        assert rig.services[0].stats.shards == 0
        assert rig.services[0].stats.buffered_bytes == 0
        assert rig.checkpoint() == "TRIM_HORIZON"
        await until(lambda: rig.numbers("s") == [1, 2])  # the thief died: it was taken back
        await worker.stop()
    check_checkpoints(rig.leases)


async def test_a_taken_lease_whose_answer_was_lost_is_used_at_once() -> None:
    """The row names this worker: it need not wait for its own lease to expire."""
    rig = Rig()
    rig.faults.script["leases.update"].append(Fault(LeasesUnavailableError("timeout"), after=True))
    await rig.put("s", 1)
    await rig.drain()
    assert rig.numbers("s") == [1]
    assert trio.current_time() < 5


async def test_memory_is_bounded_and_recovers() -> None:
    """Over the bound the worker stops reading, not working; when the store is back, all arrives."""
    settings = Settings(worker_bytes=20_000, flush_interval=30.0, stream="memory", bucket="memory")
    rig = Rig(settings=settings)
    highest = 0
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        rig.faults.away.add("store")
        for n in range(1, 2001):
            await rig.put("s", n)
            if n % 100 == 0:
                await trio.sleep(0.5)
                highest = max(highest, rig.services[0].stats.buffered_bytes)
        await trio.sleep(20)
        read = rig.services[0].stats.entries
        assert read < 2000
        assert highest < 20_000 + 200 * 300  # one read more
        rig.faults.away.clear()
        await until(lambda: len(rig.numbers("s")) == 2000)
        await worker.stop()
    assert rig.numbers("s") == list(range(1, 2001))
    assert rig.services[0].stats.buffered_bytes == 0


async def test_one_refused_journal_does_not_stop_its_shard() -> None:
    """Its entries become dead letters; the others' journals and the checkpoint go on."""
    rig = Rig()
    inner = rig.store.append

    async def append(session_id: str, *arguments: Any) -> Any:
        if session_id == "bad":
            raise CommitRefusedError("no")
        return await inner(session_id, *arguments)

    rig.store.append = append  # type: ignore[method-assign]
    await rig.put("bad", 1)
    sequence = (await rig.put("good", 1)).sequence
    await rig.drain()
    assert rig.numbers("good") == [1]
    assert rig.checkpoint() == sequence
    assert [letter.partition_key for letter in rig.store.dead_letters.values()] == ["bad"]


async def test_a_worker_survives_every_kind_of_poison() -> None:
    """Each becomes a dead letter, the good entries around it arrive."""
    rig = Rig()
    await rig.put("s", 1)
    for data in (b"\xff", b"", b'{"event_type":"\xff"}', b"[" * 10**5, b"\xf3\x89\x9a\xc2short"):
        if data:
            await rig.put_data("s", data)
    await rig.put("s", 2)
    await rig.drain()
    assert rig.numbers("s") == [1, 2]
    assert len(rig.store.dead_letters) == 4


async def test_the_journal_was_deleted_while_the_worker_ran() -> None:
    """Nothing is pretended: the new journal begins with a notice."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await rig.put("s", 1)
        await until(lambda: rig.numbers("s") == [1])
        rig.store.delete_journal("s")
        await rig.put("s", 2)
        await until(lambda: rig.numbers("s") == [2])
        await worker.stop()
    assert decode_envelope(rig.store.body("s").splitlines()[0]).event_type == "JOURNAL_RESTARTED"
