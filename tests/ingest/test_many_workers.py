"""Several workers on one stream: load that balances, leases that change hands, workers that come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import anyio
import pytest
import trio
from anyio.abc import TaskGroup

from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.core.settings import Settings
from tests.sim.rig import AWS_LIKE, EMBEDDED, Rig, Running, check_checkpoints, check_journals
from tests.sim.virtual import until

pytestmark = pytest.mark.anyio

SHARDS = 16
SESSIONS = [f"session-{n}" for n in range(60)]


class Fleet:
    """A stream of 16 shards, load on it, and workers."""

    def __init__(self, settings: Settings = EMBEDDED, **faults: float) -> None:
        self.rig = Rig(shards=SHARDS, settings=settings, **faults)
        self.put = dict.fromkeys(SESSIONS, 0)

    async def load(self) -> None:
        """Entries for all sessions, until cancelled."""
        while True:
            for session in SESSIONS:
                await self.rig.put(session, self.put[session] + 1)
                self.put[session] += 1
            await trio.sleep(0.25)

    def start(self, tasks: TaskGroup, count: int = 1) -> list[Running]:
        """Start workers."""
        workers = [Running(self.rig) for _ in range(count)]
        for worker in workers:
            tasks.start_soon(worker.run)
        return workers

    def held(self) -> Counter[str]:
        """How many leases each worker works on."""
        rows = self.rig.leases._rows.values()
        return Counter(row.holder for row in rows if row.holder is not None)

    def is_even(self, workers: int) -> bool:
        """Whether so many workers share all shards, and no two differ by more than one."""
        counts = self.held().values()
        return len(counts) == workers and sum(counts) == SHARDS and max(counts) - min(counts) <= 1

    async def check(self) -> None:
        """Every entry is in its journal once, in order."""
        await self.rig.drain()
        for session in SESSIONS:
            assert self.rig.numbers(session) == list(range(1, self.put[session] + 1))
        await check_journals(self.rig.store)
        check_checkpoints(self.rig.leases)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
async def test_workers_that_start_together_share_the_shards(count: int) -> None:
    """Within seconds no two differ by more than one, and then no lease moves any more."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks, count)
        with trio.fail_after(15):
            await until(lambda: fleet.is_even(count))
        holders = {row.key: row.holder for row in fleet.rig.leases._rows.values()}
        await trio.sleep(60)
        assert {row.key: row.holder for row in fleet.rig.leases._rows.values()} == holders
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_workers_come_one_by_one_and_records_are_not_read_twice() -> None:
    """Each newcomer gets its share; what changes hands was flushed and checkpointed by then."""
    fleet = Fleet(AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as loads:
            loads.start_soon(fleet.load)
            for count in (1, 2, 3, 4):
                fleet.start(tasks)
                with trio.fail_after(15):
                    await until(lambda count=count: fleet.is_even(count))
                await trio.sleep(5)
            loads.cancel_scope.cancel()
        await trio.sleep(60)
        tasks.cancel_scope.cancel()
    services = fleet.rig.services
    assert sum(service.stats.duplicates for service in services) == 0
    assert sum(service.stats.entries for service in services) == sum(
        len(fleet.rig.numbers(session)) for session in SESSIONS
    )
    assert sum(service.stats.conflicts for service in services) == 0
    await fleet.check()


async def test_workers_killed_and_added_lose_and_double_nothing() -> None:
    """The others take a dead worker's shards within the lease's time, and share again."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        workers = fleet.start(tasks, 4)
        await until(lambda: fleet.is_even(4))
        for _ in range(6):
            await workers.pop(0).kill()
            died = trio.current_time()
            await until(lambda: fleet.is_even(3))
            assert trio.current_time() - died < 13
            workers += fleet.start(tasks)
            await until(lambda: fleet.is_even(4))
        tasks.cancel_scope.cancel()
    await fleet.check()


@pytest.mark.parametrize("moment", [0.0, 0.4, 1.1, 2.2, 3.0])
async def test_a_killed_workers_shards_are_taken_within_the_leases_time(moment: float) -> None:
    """`lease_seconds` is the time to the takeover, whenever the last sign of life was."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        first = fleet.start(tasks)[0]
        await until(lambda: fleet.is_even(1))
        fleet.start(tasks)
        await until(lambda: fleet.is_even(2))
        await trio.sleep(20 + moment)
        await first.kill()
        died = trio.current_time()
        await until(lambda: fleet.is_even(1))
        assert trio.current_time() - died <= fleet.rig.settings.lease_seconds
        tasks.cancel_scope.cancel()


async def test_a_stopped_workers_shards_are_taken_within_a_second() -> None:
    """It flushes, checkpoints and lets go; the others wait for no time-out."""
    fleet = Fleet(AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        leaving, *_ = fleet.start(tasks, 3)
        await until(lambda: fleet.is_even(3))
        await trio.sleep(20)
        stopped = trio.current_time()
        await leaving.stop()
        await until(lambda: fleet.is_even(2))
        assert trio.current_time() - stopped < 1
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_a_holder_that_cannot_flush_hands_over_all_the_same() -> None:
    """After some seconds; who asked for the lease reads on from the checkpoint, and nothing is lost."""
    fleet = Fleet(AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks)
        await until(lambda: fleet.is_even(1))
        await trio.sleep(5)
        fleet.rig.faults.away.add("store")
        fleet.start(tasks)
        with trio.fail_after(60):
            await until(lambda: fleet.is_even(2))
        fleet.rig.faults.away.clear()
        await trio.sleep(60)
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_an_asker_that_dies_leaves_no_shard_unread() -> None:
    """What was handed over to a dead worker expires like any lease."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks)
        await until(lambda: fleet.is_even(1))
        rows = fleet.rig.leases._rows
        asker = fleet.start(tasks)[0]
        await until(lambda: any(row.checkpoint_owner for row in rows.values()))
        await asker.kill()
        with trio.fail_after(20):
            await until(lambda: fleet.is_even(1))
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_an_asker_that_stops_gives_back_what_it_waits_for() -> None:
    """No row is left with the name of a worker that is gone."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks)
        await until(lambda: fleet.is_even(1))
        rows = fleet.rig.leases._rows
        asker = fleet.start(tasks)[0]
        await until(lambda: any(row.checkpoint_owner for row in rows.values()))
        assert await asker.stop() < 1
        assert asker.worker is not None
        assert asker.worker.name not in {row.owner for row in rows.values()}
        with trio.fail_after(3):
            await until(lambda: fleet.is_even(1))
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_a_row_deleted_under_a_running_worker_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    """From the oldest record, loudly; positions and numbers keep the repetition out of the journals."""
    fleet = Fleet()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks, 2)
        await until(lambda: fleet.is_even(2))
        await trio.sleep(10)
        for row in list(await fleet.rig.leases.rows())[::3]:
            await fleet.rig.leases.delete(row)
        await trio.sleep(20)
        tasks.cancel_scope.cancel()
    assert "lease_row_deleted" in capsys.readouterr().out
    assert sum(service.stats.duplicates for service in fleet.rig.services) > 0
    await fleet.check()


async def test_workers_share_the_children_of_a_split_and_a_merge() -> None:
    """Ended shards count for nobody; their rows stay at SHARD_END and name their children."""
    fleet = Fleet()
    stream = fleet.rig.stream
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fleet.load)
        fleet.start(tasks, 4)
        await until(lambda: fleet.is_even(4))
        for number in range(8):
            stream.split(f"shardId-{number:012d}")
        stream.merge("shardId-000000000008", "shardId-000000000009")
        rows = fleet.rig.leases._rows

        def counts() -> list[int]:
            held = Counter(row.holder for row in rows.values() if row.checkpoint != SHARD_END)
            return sorted(held.values())

        with trio.fail_after(20):
            await until(lambda: counts() == [5, 6, 6, 6])
            await until(lambda: all(rows[f"shardId-{n:012d}"].children for n in range(10)))
        assert rows["shardId-000000000000"].children == ("shardId-000000000016", "shardId-000000000017")
        assert rows["shardId-000000000009"].children == ("shardId-000000000032",)
        tasks.cancel_scope.cancel()
    await fleet.check()


async def test_rows_of_shards_that_are_listed_no_more_are_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """After a while; one that had not been read to its end is reported."""
    rig = Rig()
    await rig.drain()
    (row,) = await rig.leases.rows()
    ended = replace(row, key="shardId-000000000100", checkpoint=SHARD_END)
    unread = replace(row, key="shardId-000000000101", checkpoint=TRIM_HORIZON)
    await rig.leases.create(ended)
    await rig.leases.create(unread)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(50)
        assert len(await rig.leases.rows()) == 3
        await trio.sleep(20)
        assert [x.key for x in await rig.leases.rows()] == [row.key]
        await worker.stop()
    out = capsys.readouterr().out
    assert "shard_expired_unread" in out
    assert "lease_removed" in out
