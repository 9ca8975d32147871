"""What `status` sees of workers that live, died, hang, or never were; in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from streamjournal.admin.status import ShardStatus, Status, Survey
from streamjournal.core.errors import (
    LeasesUnavailableError,
    NotConfiguredError,
    StreamUnavailableError,
)
from streamjournal.core.settings import Settings
from streamjournal.leases.port import Lease
from streamjournal.stream.memory import MemoryStream
from tests.sim.rig import AWS_LIKE, Rig, Running
from tests.sim.virtual import until

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Time jumps to the next deadline whenever nothing can run."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


async def look(rig: Rig, **more: Any) -> Status:
    """A survey of a rig, through its faults."""
    rig.faulty_stream.retention = rig.stream.retention  # type: ignore[attr-defined]
    return await Survey(rig.faulty_stream, rig.faulty_leases, rig.settings, rig.clock, **more).run()


def the_shard(status: Status, shard: str = SHARD) -> ShardStatus:
    """One of its shards."""
    (found,) = (one for one in status.shards if one.shard == shard)
    return found


async def test_a_worker_that_works() -> None:
    """It is alive, its shards are idle, and the look is over as soon as that is known."""
    rig = Rig(shards=2)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await rig.put("s", 1)
        await until(lambda: rig.numbers("s") == [1])
        await trio.sleep(20)
        status = await look(rig)
        assert status.problems == []
        assert [one.state for one in status.shards] == ["idle", "idle"]
        assert [one.lag_ms for one in status.shards] == [0, 0]
        assert (status.retention_seconds, status.totals.held, status.totals.lag_ms) == (86_400, 2, 0)
        (found,) = status.workers
        assert found.shards == 2
        assert found.worker == worker.worker.name  # type: ignore[union-attr]
        assert status.looked_seconds <= 3.6  # a third of a lease's duration
        await worker.stop()


async def test_entries_that_wait_for_their_flush_are_no_problem() -> None:
    """They are younger than a flush may take; the lag is the age of the oldest."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(5)
        await rig.put("s", 1)
        await trio.sleep(10)
        await rig.put("s", 2)
        status = await look(rig)
        assert (the_shard(status).state, status.problems) == ("waiting", [])
        assert 10_000 <= the_shard(status).lag_ms < 11_000  # type: ignore[operator]
        assert the_shard(status).retention_share == pytest.approx(10 / 86_400, abs=1e-5)
        await worker.stop()


async def test_a_checkpoint_that_moves() -> None:
    """However late: it is being worked on."""
    rig = Rig(settings=Settings(flush_interval=1.0, lease_seconds=10.0))
    for n in range(1, 2000):
        await rig.put("s", n)
    await trio.sleep(3600)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        rig.faults.latency = 1.0
        tasks.start_soon(worker.run)
        await until(lambda: rig.checkpoint().isdigit())
        status = await look(rig)
        assert the_shard(status).state in ("moving", "idle")
        assert status.problems == []
        await worker.kill()


async def test_nobody_holds_the_shard() -> None:
    """With records, a problem that says what to do; without, all is well."""
    rig = Rig(shards=2)
    assert (await look(rig)).problems == []
    await rig.put("s", 1)
    await trio.sleep(7)
    status = await look(rig)
    (problem,) = status.problems
    assert "nobody holds" in problem
    assert "streamjournal worker" in problem
    assert status.totals.with_records_waiting == 1
    assert status.totals.lag_ms == 7000
    assert status.workers == []
    assert status.looked_seconds == 0


async def test_a_dead_worker() -> None:
    """Its name stands in the row; after a lease's duration without a sign of life it is said."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(5)
        await worker.kill()
    await rig.put("s", 1)
    told: list[float] = []
    status = await look(rig, on_wait=told.append)
    assert the_shard(status).state == "stands still"
    (problem,) = status.problems
    assert "no sign of life; start a worker: `streamjournal worker`" in problem
    assert [one.alive for one in status.workers] == [False]
    assert 10 < status.looked_seconds < 12
    assert told == [pytest.approx(7, abs=0.5)]


async def test_a_dead_worker_with_nothing_to_do() -> None:
    """What comes next would wait: that is said, although nothing waits yet."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(5)
        await worker.kill()
    await trio.sleep(30)
    status = await look(rig)
    assert the_shard(status).state == "idle"
    (problem,) = status.problems
    assert "a worker that gives no sign of life" in problem
    assert "start a worker: `streamjournal worker`" in problem
    assert [one.alive for one in status.workers] == [False]


async def test_a_dead_worker_beside_one_that_lives() -> None:
    """The other one takes over, so there is none to be started."""
    rig = Rig(shards=2)
    identity = await rig.stream.identity()
    named = f"{identity.arn} {identity.created}"
    dead, renewed = (Lease(shard.id, shard.id[-1], 3, stream=named) for shard in await rig.stream.shards())
    await rig.leases.create(dead)
    await rig.leases.create(renewed)
    looks = 0

    async def rows() -> list[Lease]:
        nonlocal looks
        looks += 1
        return [dead, replace(renewed, counter=looks)]

    rig.faulty_leases.rows = rows  # type: ignore[method-assign]
    status = await look(rig)
    assert [one.alive for one in status.workers] == [False, True]
    (problem,) = status.problems
    assert problem.startswith(f"{dead.key}: held by 0,")
    assert "another worker takes over within 10 s" in problem


async def test_a_worker_that_renews_and_does_not_move() -> None:
    """The worst one: the lease looks well, and the records wait."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(5)
        rig.faults.away.add("store")
        await rig.put("s", 1)
        await trio.sleep(60)
        rig.faults.away.discard("store")
        rig.faulty_store.append = _never  # type: ignore[method-assign]
        status = await look(rig)
        assert the_shard(status).state == "stands still"
        assert "does not move" in status.problems[0]
        assert [one.alive for one in status.workers] == [True]
        await worker.kill()


async def test_children_wait_for_their_parents() -> None:
    """That nobody holds a child is right, as long as its parent is not drained."""
    rig = Rig()
    await rig.put("s", 1)
    a, b = rig.stream.split(SHARD)
    await rig.put("s", 2)
    status = await look(rig)
    states = {one.shard: one.state for one in status.shards}
    assert states[SHARD] == "unheld"
    assert {states[a], states[b]} == {"parents first", "idle"}
    await rig.drain()
    status = await look(rig)
    assert the_shard(status).state == "ended"
    assert (status.totals.shards, status.problems) == (2, [])


async def test_a_lease_that_is_asked_for_is_still_with_its_holder() -> None:
    """The row's owner is then the one that waits."""
    rig = Rig()
    identity = await rig.stream.identity()
    lease = Lease(SHARD, "old", 3, stream=f"{identity.arn} {identity.created}")
    await rig.leases.create(lease.asked_by("new"))
    status = await look(rig)
    assert (the_shard(status).worker, the_shard(status).asked_by) == ("old", "new")
    assert [one.worker for one in status.workers] == ["old"]


async def test_rows_of_another_stream_count_as_absent() -> None:
    """A stream made anew under the old name has no checkpoints yet."""
    rig = Rig()
    await rig.leases.create(Lease(SHARD, "gone", 7, "123", stream="urn:x earlier"))
    status = await look(rig)
    assert (the_shard(status).worker, the_shard(status).checkpoint) == (None, "TRIM_HORIZON")


async def test_records_that_the_stream_deleted_unread() -> None:
    """They are a problem, and what is left counts for the lag."""
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    second = await rig.put("s", 2)
    await rig.put("s", 3)
    await trio.sleep(10)
    rig.stream.trim_to(SHARD, second.sequence)
    status = await look(rig)
    assert the_shard(status).trimmed
    assert the_shard(status).lag_ms == 10_000
    assert any("deleted records" in problem for problem in status.problems)


async def test_a_shard_that_cannot_be_read_is_unknown() -> None:
    """The others are shown all the same; one that never answers takes five seconds."""
    rig = Rig()
    rig.faults.away.add("stream.next")
    status = await look(rig)
    assert (the_shard(status).state, the_shard(status).lag_ms) == ("unknown", None)
    assert "cannot be read" in status.problems[0]
    rig.faults.away.clear()
    began = trio.current_time()
    rig.stream.reader = lambda *_: _Mute()  # type: ignore[method-assign,assignment,return-value]
    status = await look(rig)
    assert "within 5 s" in status.problems[0]
    assert trio.current_time() - began < 7


async def _never(*_: Any) -> Any:
    await trio.sleep_forever()


class _Mute:
    """A reader that never answers."""

    async def next(self, **_: Any) -> Any:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("port", "error"), [("stream", StreamUnavailableError), ("leases", LeasesUnavailableError)]
)
async def test_not_reachable(port: str, error: type[Exception]) -> None:
    """The error of what does not answer; one that hangs is given up after 15 s."""
    rig = Rig()
    rig.faults.away.add(port)
    with pytest.raises(error):
        await look(rig)
    rig.faults.away.clear()

    class Silent(MemoryStream):
        async def identity(self) -> Any:
            await trio.sleep_forever()

    with pytest.raises(StreamUnavailableError, match="15 s"):
        await Survey(Silent(), rig.leases, rig.settings, rig.clock).run()


async def test_a_missing_table_is_not_configured() -> None:
    """It says what to do, as everywhere."""
    rig = Rig()

    async def rows() -> Any:
        raise NotConfiguredError("no table")

    rig.faulty_leases.rows = rows  # type: ignore[method-assign]
    with pytest.raises(NotConfiguredError, match="no table"):
        await look(rig)
