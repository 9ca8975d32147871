"""Who takes which shard: one worker's part, and what all of them come to."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.ingest.balance import Sightings, divide
from streamjournal.leases.port import Lease
from tests.sim.rig import settle
from tests.sim.virtual import virtual_clock


def rows(**held: int) -> list[Lease]:
    """So many leases of each owner; `free` ones are nobody's."""
    owners = [None if name == "free" else name for name, count in held.items() for _ in range(count)]
    return [Lease(f"shard-{number}", owner) for number, owner in enumerate(owners)]


def part(table: list[Lease], me: str, *, overdue: frozenset[str] = frozenset()) -> tuple[int, int]:
    """How many leases `me` takes, and how many it asks for."""
    free = {row.key for row in table if row.owner is None}
    division = divide(table, me, free, overdue, random.Random(0).shuffle)
    assert all(row.owner is None for row in division.take)
    assert all(row.owner not in (None, me) for row in division.ask)
    return len(division.take), len(division.ask)


def test_who_is_alone_takes_everything() -> None:
    """One worker works on all shards."""
    assert part(rows(free=16), "me") == (16, 0)


def test_free_leases_go_by_fair_shares() -> None:
    """With others at work, a worker takes no more than its share of what is free."""
    assert part(rows(free=6, a=5, b=5), "me") == (6, 0)
    assert part(rows(free=10, a=3, b=3), "me") == (6, 0)
    assert part(rows(free=4, me=6, a=6), "me") == (2, 0)


def test_what_nobody_takes_is_taken_by_anybody() -> None:
    """A worker that gives signs of life and takes nothing must not leave shards unread."""
    table = rows(free=4, me=8, a=0, b=1)
    assert part(table, "me") == (0, 0)
    assert part(table, "me", overdue=frozenset({"shard-0", "shard-1"})) == (2, 0)


def test_a_newcomer_asks_for_one_lease_first() -> None:
    """It is seen by that; the others that start with it are taken into account in the next round."""
    assert part(rows(a=16), "me") == (0, 1)
    assert part(rows(a=15, me=1), "me") == (0, 7)
    assert part(rows(a=13, b=1, c=1, me=1), "me") == (0, 3)


def test_nothing_moves_for_a_difference_of_one() -> None:
    """Leases do not wander between workers for nothing."""
    assert part(rows(a=6, b=6, me=4), "me") == (0, 1)
    assert part(rows(a=6, b=5, me=5), "me") == (0, 0)
    assert part(rows(a=1, b=1), "me") == (0, 0)


def test_a_lease_that_changes_hands_is_not_asked_for_again() -> None:
    """It counts as its next owner's."""
    table = [row.asked_by("b") for row in rows(a=4)]
    assert part(table, "me") == (0, 0)
    assert part(table, "a") == (0, 0)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_workers_that_act_in_turn_come_to_equal_parts(shards: int, workers: int, seed: int) -> None:
    """From any beginning, in a few rounds; then nothing moves any more."""
    rng = random.Random(seed)
    names = [f"worker-{number}" for number in range(workers)]
    table = [Lease(f"shard-{number}", rng.choice([*names, None])) for number in range(shards)]
    for _ in range(2 * workers + 4):
        moved = False
        for name in rng.sample(names, workers):
            free = {row.key for row in table if row.owner is None}
            division = divide(table, name, free, free, rng.shuffle)
            wanted = {row.key for row in (*division.take, *division.ask)}
            moved |= bool(wanted)
            table = [row.taken_by(name) if row.key in wanted else row for row in table]
    counts = [sum(row.owner == name for row in table) for name in names]
    assert sum(counts) == shards
    assert max(counts) - min(counts) <= 1
    assert not moved


@pytest.mark.anyio
async def test_a_lease_expires_by_the_time_that_its_row_stands_still() -> None:
    """A sign of life begins it anew; an owner's death is seen within the time that is set."""
    sightings = Sightings(virtual_clock(), 10.0)
    row = Lease("s", "a", 1)
    sightings.look([row])
    await settle(7.9)
    assert not sightings.expired(row)
    sightings.look([row.renewed()])
    await settle(7.9)
    assert not sightings.expired(row)
    await settle(0.2)
    assert sightings.expired(row)
    assert not sightings.overdue(row)
    await settle(5)
    assert sightings.overdue(row)


@pytest.mark.anyio
async def test_a_row_that_was_away_begins_anew() -> None:
    """A deleted row that comes back says nothing about its owner's last sign of life."""
    sightings = Sightings(virtual_clock(), 10.0)
    row = Lease("s", "a", 1)
    sightings.look([row])
    sightings.look([])
    await settle(9)
    sightings.look([row])
    assert not sightings.expired(row)
