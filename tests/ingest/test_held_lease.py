"""A held lease: one writer of a row at a time, and lost answers."""

from __future__ import annotations

import anyio
import pytest
import trio

from streamjournal.core.errors import LeaseLostError, LeasesUnavailableError, ThrottledError
from streamjournal.core.position import SHARD_END
from streamjournal.ingest.held_lease import HeldLease
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease
from tests.sim.faults import Fault, Faults, FaultyLeases
from tests.sim.virtual import virtual_clock

pytestmark = pytest.mark.anyio


class Bench:
    """A table with one row, held by `me`."""

    def __init__(self) -> None:
        self.table = MemoryLeases()
        self.faults = Faults(virtual_clock())

    async def hold(self) -> HeldLease:
        """Make the row and take it."""
        row = Lease("s", stream="stream")
        await self.table.create(row)
        taken = await self.table.update(row, row.taken_by("me"))
        return HeldLease(FaultyLeases(self.table, self.faults), taken)

    async def steal(self) -> None:
        """Another worker takes it."""
        row = await self.row()
        await self.table.update(row, row.taken_by("you"))

    async def row(self) -> Lease:
        """The row as the table has it."""
        (row,) = await self.table.rows()
        return row


async def test_checkpoints_only_go_on() -> None:
    """The same or an earlier one costs no write; a later one does; nothing follows the shard's end."""
    bench = Bench()
    held = await bench.hold()
    for sequence in ("9", "9", "7", "10", "9", SHARD_END, "11", SHARD_END):
        await held.checkpoint(sequence)
    assert (await bench.row()).checkpoint == SHARD_END
    assert bench.faults.calls["leases.update"] == 3


@pytest.mark.parametrize("error", [LeasesUnavailableError("timeout"), ThrottledError("slow down")])
@pytest.mark.parametrize("after", [False, True])
async def test_an_answer_that_was_lost(error: Exception, *, after: bool) -> None:
    """The row is read again before another change is sent, so none is taken for the lost one."""
    bench = Bench()
    held = await bench.hold()
    bench.faults.script["leases.update"].append(Fault(error, after=after))
    with pytest.raises(type(error)):
        await held.renew()
    bench.faults.calls.clear()
    await held.checkpoint("5")
    assert bench.faults.calls["leases.rows"] == 1
    assert (await bench.row()).checkpoint == "5"
    await held.checkpoint("6")
    assert bench.faults.calls["leases.rows"] == 1


async def test_a_checkpoint_whose_answer_was_lost_is_not_followed_by_an_earlier_one() -> None:
    """The shard's end was written, unheard; what comes next does not fail over it."""
    bench = Bench()
    held = await bench.hold()
    bench.faults.script["leases.update"].append(Fault(LeasesUnavailableError("timeout"), after=True))
    with pytest.raises(LeasesUnavailableError):
        await held.checkpoint(SHARD_END)
    await held.checkpoint("5")
    assert (await bench.row()).checkpoint == SHARD_END


async def test_a_stolen_lease_is_lost_for_every_change() -> None:
    """Who holds it no more changes nothing, and knows it from then on."""
    bench = Bench()
    held = await bench.hold()
    await bench.steal()
    for change in (held.renew, held.release, held.still_ours):
        with pytest.raises(LeaseLostError):
            await change()
    with pytest.raises(LeaseLostError):
        await held.checkpoint("5")
    assert held.lost.is_set()
    assert (await bench.row()).owner == "you"


async def test_a_deleted_row_is_a_lost_lease() -> None:
    """An operator who deletes a row takes the lease away."""
    bench = Bench()
    held = await bench.hold()
    await bench.table.delete(await bench.row())
    with pytest.raises(LeaseLostError):
        await held.checkpoint("5")
    assert held.lost.is_set()


async def test_a_lease_that_is_stolen_between_two_tries_is_lost() -> None:
    """Changed, read again, changed again: then it is somebody else's, and that is known."""
    bench = Bench()
    held = await bench.hold()
    lost = LeaseLostError("s", "you")
    bench.faults.script["leases.update"] += [Fault(lost), Fault(lost)]
    with pytest.raises(LeaseLostError):
        await held.renew()
    assert held.lost.is_set()


async def test_renewal_and_checkpoint_do_not_cross() -> None:
    """Both change the row from two tasks; every write meets the row it expects."""
    bench = Bench()
    held = await bench.hold()
    bench.faults.latency = 0.5
    async with anyio.create_task_group() as tasks:
        for n in range(1, 20):
            tasks.start_soon(held.checkpoint, str(n))
            tasks.start_soon(held.renew)
    assert (await bench.row()).checkpoint == "19"
    assert bench.faults.calls["leases.rows"] == 0


async def test_keep_renews_until_released() -> None:
    """A sign of life at each interval, through an outage, and none after the release."""
    bench = Bench()
    held = await bench.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(held.keep, 3.0)
        await trio.sleep(10)
        assert (await bench.row()).counter == 1 + 3
        bench.faults.away.add("leases")
        await trio.sleep(30)
        bench.faults.away.clear()
        await trio.sleep(4)
        assert (await bench.row()).counter >= 5
        await held.release()
    assert (await bench.row()).owner is None
