"""The in-memory table: what tests and the simulation rely on beyond the contract."""

from __future__ import annotations

import anyio
import pytest

from streamjournal.core.errors import LeaseLostError
from streamjournal.leases.memory import Change, MemoryLeases
from streamjournal.leases.port import Lease

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The simulation runs on trio."""
    return str(request.param)


async def test_history_has_every_change_in_order() -> None:
    """What happened can be read afterwards, with the row before and after."""
    leases = MemoryLeases()
    row = Lease("s")
    await leases.create(row)
    taken = await leases.update(row, row.taken_by("a"))
    await leases.delete(row)
    assert leases.history == [
        Change("created", None, row),
        Change("updated", row, taken),
        Change("deleted", taken, None),
    ]


async def test_history_has_nothing_of_what_was_refused() -> None:
    """A refused create, a lost update and a deletion of nothing are no changes."""
    leases = MemoryLeases()
    row = Lease("s", owner="a")
    await leases.create(row)
    await leases.create(row.renewed())
    with pytest.raises(LeaseLostError):
        await leases.update(row.renewed(), row.taken_by("b"))
    await leases.delete(Lease("other"))
    assert leases.history == [Change("created", None, row)]


async def test_cancelled_call_changes_nothing() -> None:
    """A call under a cancelled scope ends before it acts."""
    leases = MemoryLeases()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await leases.create(Lease("s"))
    assert leases.history == []
    assert await leases.rows() == []
