"""What every lease table keeps to: the same tests over memory, SQLite and DynamoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from streamjournal.core.errors import LeaseLostError
from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.leases.dynamodb import DynamoDbLeases
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease, Leases
from streamjournal.leases.sqlite import SqliteLeases

pytestmark = pytest.mark.anyio

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/agents 2026-11-22T13:12:01Z"
ROW = Lease("shardId-000000000003", parents=("shardId-000000000001",), stream=STREAM)


@pytest.fixture(params=["memory", "sqlite", pytest.param("dynamodb", marks=pytest.mark.aws)])
async def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Leases]]:
    """Open the table of this test, as another process would: every call gives another adapter."""
    opened: list[Leases] = []
    if request.param == "memory":
        table = MemoryLeases()
        yield lambda: table
        return
    if request.param == "dynamodb":
        name = request.getfixturevalue("aws_table")()

    def open_table() -> Leases:
        if request.param == "sqlite":
            opened.append(SqliteLeases(tmp_path / "leases" / "leases.sqlite"))
        else:
            opened.append(DynamoDbLeases(name))
        return opened[-1]

    yield open_table
    for leases in opened:
        await leases.aclose()


@pytest.fixture
def leases(open_again: Callable[[], Leases]) -> Leases:
    """The table of this test."""
    return open_again()


async def only_row(leases: Leases) -> Lease:
    """The table's one row."""
    (row,) = await leases.rows()
    return row


async def test_new_table_is_empty(leases: Leases) -> None:
    """A table that nobody wrote to has no rows."""
    assert await leases.rows() == []


async def test_every_field_comes_back(leases: Leases, open_again: Callable[[], Leases]) -> None:
    """What is created is what another adapter over the same table reads, field by field."""
    full = Lease("shardId-7", "worker-a", 41, "49590338271490256608559692538361571095921575989136588898",
                 ("shardId-1", "shardId-2"), 3, STREAM, "journal", "worker-b",
                 ("shardId-8", "shardId-9"), (2**127, 2**128 - 1))  # fmt: skip
    assert await leases.create(full)
    assert await only_row(open_again()) == full
    bare = await leases.update(full, Lease("shardId-7", counter=42, stream=STREAM))
    assert await only_row(open_again()) == bare


async def test_a_lease_that_is_asked_for_changes_hands(leases: Leases) -> None:
    """Its holder stays on until it hands it over; each write is conditional on the one before."""
    await leases.create(ROW)
    held = await leases.update(ROW, ROW.taken_by("a"))
    asked = await leases.update(held, held.asked_by("b"))
    assert (asked.owner, asked.holder) == ("b", "a")
    with pytest.raises(LeaseLostError):
        await leases.update(held, held.advanced("8"))
    over = await leases.update(asked, asked.advanced("9").handed_over())
    assert await only_row(leases) == over
    assert (over.owner, over.holder, over.checkpoint) == ("b", "b", "9")


async def test_create_once(leases: Leases) -> None:
    """A second row of the same key is refused, and the first one stays as it was."""
    assert await leases.create(ROW) is True
    assert await leases.create(ROW.taken_by("late")) is False
    assert await only_row(leases) == ROW


async def test_update_gives_and_stores_the_changed_row(leases: Leases) -> None:
    """An update whose owner and counter are right returns the row that is now in the table."""
    await leases.create(ROW)
    taken = await leases.update(ROW, ROW.taken_by("a"))
    assert taken == ROW.taken_by("a")
    assert await only_row(leases) == taken


async def test_update_with_an_older_counter_is_refused(leases: Leases) -> None:
    """The counter is part of the condition: a row that was renewed since cannot be changed."""
    await leases.create(ROW)
    taken = await leases.update(ROW, ROW.taken_by("a"))
    renewed = await leases.update(taken, taken.renewed())
    with pytest.raises(LeaseLostError):
        await leases.update(taken, taken.taken_by("b"))
    assert await only_row(leases) == renewed


async def test_update_with_another_owner_is_refused(leases: Leases) -> None:
    """The owner is part of the condition, also where the counter happens to be equal."""
    held = Lease("s", owner="a", counter=5, stream=STREAM)
    await leases.create(held)
    for owner in ("b", None):
        wrong = Lease("s", owner=owner, counter=5, stream=STREAM)
        with pytest.raises(LeaseLostError):
            await leases.update(wrong, wrong.renewed())
    assert await only_row(leases) == held


async def test_row_without_owner_is_not_taken_for_one_with(leases: Leases) -> None:
    """A seen row without owner is the condition "nobody holds it", which an owner breaks."""
    await leases.create(Lease("s", owner="a", stream=STREAM))
    with pytest.raises(LeaseLostError) as lost:
        await leases.update(Lease("s", stream=STREAM), Lease("s", owner="b", counter=1, stream=STREAM))
    assert lost.value.owner == "a"


async def test_lost_lease_names_its_new_owner(leases: Leases) -> None:
    """Who lost a lease learns to whom."""
    await leases.create(ROW)
    mine = await leases.update(ROW, ROW.taken_by("mine"))
    await leases.update(mine, mine.taken_by("theirs"))
    with pytest.raises(LeaseLostError) as lost:
        await leases.update(mine, mine.renewed())
    assert lost.value.owner == "theirs"
    assert lost.value.lease_key == ROW.key


async def test_row_that_is_gone_counts_as_lost(leases: Leases) -> None:
    """An update of a deleted row, or of one that never was, does not bring it (back) to life."""
    await leases.create(ROW)
    await leases.delete(ROW)
    with pytest.raises(LeaseLostError) as lost:
        await leases.update(ROW, ROW.taken_by("a"))
    assert lost.value.owner is None
    assert await leases.rows() == []


async def test_checkpoint_goes_on_and_never_back(leases: Leases) -> None:
    """TRIM_HORIZON, numbers that grow as integers do, SHARD_END: no other way round."""
    await leases.create(ROW)
    row = await leases.update(ROW, ROW.taken_by("a"))
    for checkpoint in (
        "9",
        "10",
        "10",
        "49590338271490256608559692538361571095921575989136588898",
        SHARD_END,
    ):
        row = await leases.update(row, row.advanced(checkpoint))
        assert (await only_row(leases)).checkpoint == checkpoint
    for earlier in (TRIM_HORIZON, "9", "99999999999999999999999999999999999999999999999999999999999"):
        with pytest.raises(ValueError, match="would go back"):
            row.advanced(earlier)


async def test_heartbeat_take_and_release_keep_the_checkpoint(leases: Leases) -> None:
    """Only `advanced` moves a checkpoint."""
    await leases.create(ROW)
    row = await leases.update(ROW, ROW.taken_by("a"))
    row = await leases.update(row, row.advanced("17"))
    row = await leases.update(row, row.renewed())
    row = await leases.update(row, row.released())
    row = await leases.update(row, row.taken_by("b"))
    assert (await only_row(leases)).checkpoint == "17"
    assert row.owner_switches == 0  # nobody held it before


async def test_worker_that_lost_its_lease_cannot_move_the_checkpoint_back(leases: Leases) -> None:
    """A paused worker that wakes up with an old row in hand changes nothing."""
    await leases.create(ROW)
    paused = await leases.update(ROW, ROW.taken_by("paused"))
    taken = await leases.update(paused, paused.taken_by("other"))
    await leases.update(taken, taken.advanced("500"))
    with pytest.raises(LeaseLostError):
        await leases.update(paused, paused.advanced("100"))
    assert (await only_row(leases)).checkpoint == "500"


@pytest.mark.parametrize("parents", [(), ("shardId-1",), ("shardId-1", "shardId-2")])
async def test_parents_come_back(leases: Leases, parents: tuple[str, ...]) -> None:
    """None, one (a split) and two parents (a merge) are kept, and survive updates."""
    row = Lease("shardId-9", parents=parents, stream=STREAM)
    await leases.create(row)
    await leases.update(row, row.taken_by("a"))
    assert (await only_row(leases)).parents == parents


async def test_update_can_change_stream_and_parents(leases: Leases) -> None:
    """A row of a stream that was made anew is taken over with all of its fields."""
    await leases.create(ROW)
    anew = Lease(ROW.key, owner="a", counter=1, stream="arn:other 2027-01-01")
    await leases.update(ROW, anew)
    assert await only_row(leases) == anew


async def test_released_row_has_no_owner_and_can_be_taken(leases: Leases) -> None:
    """A worker that stops leaves its rows free at once."""
    await leases.create(ROW)
    held = await leases.update(ROW, ROW.taken_by("a"))
    free = await leases.update(held, held.released())
    assert (await only_row(leases)).owner is None
    assert (await leases.update(free, free.taken_by("b"))).owner == "b"


async def test_delete_removes_whoever_holds_it(leases: Leases) -> None:
    """Deletion asks neither for the owner nor for the counter; a second one does nothing."""
    await leases.create(ROW)
    await leases.update(ROW, ROW.taken_by("a"))
    await leases.delete(ROW)
    await leases.delete(ROW)
    assert await leases.rows() == []
    assert await leases.create(ROW)


async def test_rows_are_complete(leases: Leases) -> None:
    """Every row is listed, once."""
    rows = [Lease(f"shardId-{i:012d}", counter=i, stream=STREAM) for i in range(40)]
    for row in rows:
        await leases.create(row)
    assert sorted(await leases.rows(), key=lambda row: row.key) == rows


@pytest.mark.parametrize("takers", [2, 8])
async def test_one_of_racing_takers_wins(open_again: Callable[[], Leases], takers: int) -> None:
    """Of takers that all saw the same row, one gets it, and the others learn who."""
    await open_again().create(ROW)
    outcomes: dict[str, str | None] = {}

    async def take(leases: Leases, owner: str) -> None:
        try:
            await leases.update(ROW, ROW.taken_by(owner))
            outcomes[owner] = "won"
        except LeaseLostError as lost:
            outcomes[owner] = lost.owner

    async with anyio.create_task_group() as group:
        for i in range(takers):
            group.start_soon(take, open_again(), f"worker-{i}")
    (winner,) = (owner for owner, outcome in outcomes.items() if outcome == "won")
    assert {outcome for owner, outcome in outcomes.items() if owner != winner} == {winner}
    assert await only_row(open_again()) == ROW.taken_by(winner)


async def test_one_of_racing_creators_wins(open_again: Callable[[], Leases]) -> None:
    """Of workers that all miss a row and create it, one is told that it did."""
    created: list[bool] = []

    async def create(leases: Leases, owner: str) -> None:
        created.append(await leases.create(ROW.taken_by(owner)))

    async with anyio.create_task_group() as group:
        for i in range(6):
            group.start_soon(create, open_again(), f"worker-{i}")
    assert sorted(created) == [False] * 5 + [True]


async def test_no_two_updates_start_from_the_same_row(open_again: Callable[[], Leases]) -> None:
    """Whoever interferes, each counter is followed by exactly one update."""
    await open_again().create(ROW)
    started_from: list[int] = []

    async def write(leases: Leases, owner: str) -> None:
        for _ in range(5):
            row = await only_row(leases)
            try:
                await leases.update(row, row.taken_by(owner))
            except LeaseLostError:
                continue
            started_from.append(row.counter)

    async with anyio.create_task_group() as group:
        for i in range(4):
            group.start_soon(write, open_again(), f"worker-{i}")
    assert sorted(started_from) == list(range(len(started_from)))
    assert (await only_row(open_again())).counter == len(started_from)
