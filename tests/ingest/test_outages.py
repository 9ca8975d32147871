"""What does not answer is waited for, and said; a drain gives up, and says why."""

from __future__ import annotations

import anyio
import pytest
import trio

from streamjournal.core.errors import (
    ForeignLeaseTableError,
    LeasesUnavailableError,
    NotConfiguredError,
    StoreUnavailableError,
    StreamUnavailableError,
    UnavailableError,
)
from streamjournal.leases.port import Lease
from tests.sim.faults import Fault
from tests.sim.rig import AWS_LIKE, Rig, Running, check_checkpoints, check_journals
from tests.sim.virtual import until

pytestmark = pytest.mark.anyio

PORTS = ["stream", "store", "leases"]
ERRORS = {
    "stream": StreamUnavailableError,
    "store": StoreUnavailableError,
    "leases": LeasesUnavailableError,
}


@pytest.mark.parametrize("port", PORTS)
async def test_away_at_the_start(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker waits, says so at a limited rate, and brings everything once it answers."""
    rig = Rig(shards=2)
    for n in range(1, 11):
        await rig.put("s", n)
    rig.faults.away.add(port)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(120)
        assert rig.numbers("s") == []
        said = [x for x in capsys.readouterr().out.splitlines() if "is away" in x]
        assert 3 <= len(said) <= 60
        rig.faults.away.clear()
        await until(lambda: rig.numbers("s") == list(range(1, 11)))
        assert trio.current_time() < 160
        assert await worker.stop() < 2
    await check_journals(rig.store)


@pytest.mark.parametrize("port", PORTS)
async def test_away_for_a_while_in_the_middle(port: str) -> None:
    """Nothing is lost, doubled or reordered, and no checkpoint goes back or ahead."""
    rig = Rig(shards=2)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        for n in range(1, 200):
            await rig.put("s", n)
            await trio.sleep(0.5)
            if n % 60 == 20:
                rig.faults.away.add(port)
            if n % 60 == 50:
                rig.faults.away.clear()
        rig.faults.away.clear()
        await until(lambda: rig.numbers("s") == list(range(1, 200)))
        assert await worker.stop() < 2
    await check_journals(rig.store)
    check_checkpoints(rig.leases)


async def test_what_is_due_is_flushed_while_the_stream_is_away() -> None:
    """A stream that does not answer for long does not keep what was read from the journals."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        await rig.put("s", 1)
        await trio.sleep(1)
        rig.faults.away.add("stream")
        await trio.sleep(33)
        assert rig.numbers("s") == [1]
        await worker.stop()


async def test_a_lease_table_that_is_away_does_not_stop_the_flushing() -> None:
    """The journals' own conditions guard them; only the checkpoint waits."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        rig.faults.away.add("leases")
        sequence = (await rig.put("s", 1)).sequence
        await until(lambda: rig.numbers("s") == [1])
        await trio.sleep(60)
        assert rig.faults.calls["leases.update"] < 60
        rig.faults.away.clear()
        await until(lambda: rig.checkpoint() == sequence)
        await worker.stop()


@pytest.mark.parametrize("port", PORTS)
async def test_a_drain_gives_up(port: str) -> None:
    """With the error of what does not answer, after some ten seconds; and lets its leases go."""
    rig = Rig()
    await rig.put("s", 1)
    rig.faults.away.add(port)
    with pytest.raises(ERRORS[port]):
        await rig.drain()
    assert 9 < trio.current_time() < 45
    rig.faults.away.clear()
    assert all(row.owner is None for row in await rig.leases.rows())
    await rig.drain()
    assert rig.numbers("s") == [1]


@pytest.mark.parametrize("call", ["stream.shards", "leases.rows", "stream.next", "leases.create"])
async def test_a_drain_that_saw_half_of_it_gives_up_too(call: str) -> None:
    """A drain whose first look fails half-way has drained nothing, and must not say that it has."""
    rig = Rig()
    await rig.put("s", 1)
    rig.faults.away.add(call)
    with pytest.raises(UnavailableError):
        await rig.drain()


async def test_a_drain_does_not_wait_for_what_is_not_configured() -> None:
    """Time mends no missing bucket: the drain ends at once."""
    rig = Rig()
    await rig.put("s", 1)
    rig.faults.script["store.head"] += [Fault(NotConfiguredError("no bucket"))] * 50
    with pytest.raises(NotConfiguredError, match="no bucket"):
        await rig.drain()
    assert trio.current_time() < 5


async def test_a_drain_survives_a_short_outage() -> None:
    """A few failures are not the end of it."""
    rig = Rig()
    await rig.put("s", 1)
    for call in ("stream.identity", "stream.shards", "stream.next", "leases.rows", "leases.update"):
        port = call.partition(".")[0]
        rig.faults.script[call] += [Fault(ERRORS[port]("short"))] * 2
    await rig.drain()
    assert rig.numbers("s") == [1]


async def test_a_drain_while_another_worker_holds_the_leases() -> None:
    """It waits until that one has made durable what was there at the start."""
    rig = Rig(shards=2, settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        await trio.sleep(1)
        await rig.put("s", 1)
        await rig.drain()
        assert rig.numbers("s") == [1]
        assert 25 < trio.current_time() < 60  # that one's flush interval
        assert rig.services[1].stats.records == 0
        await worker.stop()


async def test_a_drain_behind_a_dead_worker_takes_its_leases_over() -> None:
    """A row that stands still for a lease's duration is free."""
    rig = Rig()
    identity = await rig.stream.identity()
    named = f"{identity.arn} {identity.created}"
    await rig.leases.create(Lease("shardId-000000000000", "dead", 5, stream=named))
    await rig.put("s", 1)
    await rig.drain()
    assert rig.numbers("s") == [1]
    assert 8 < trio.current_time() < 20


async def test_a_drain_behind_a_checkpoint_that_was_trimmed() -> None:
    """Another worker holds the lease, and the records after its checkpoint are gone: no reason to fail."""
    rig = Rig(settings=AWS_LIKE)
    async with anyio.create_task_group() as tasks:
        worker = Running(rig)
        tasks.start_soon(worker.run)
        first = await rig.put("s", 1)
        await until(lambda: rig.checkpoint() == first.sequence)
        rig.faults.away.add("stream.next")  # for the holder; then the retention passes it
        second = await rig.put("s", 2)
        await rig.put("s", 3)
        rig.stream.trim_to("shardId-000000000000", second.sequence)
        await trio.sleep(1)
        rig.faults.away.clear()
        await rig.drain()
        assert 3 in rig.numbers("s")
        await worker.stop()


async def test_a_table_of_another_application_is_refused_at_once() -> None:
    """The worker ends with the error, and writes nothing into the table; waiting would hide it."""
    rig = Rig()
    rig.faults.script["leases.rows"].append(Fault(ForeignLeaseTableError("rows of another application")))
    await rig.put("s", 1)
    with pytest.RaisesGroup(pytest.RaisesExc(ForeignLeaseTableError), flatten_subgroups=True):
        await rig.work()
    assert rig.leases.history == []
