"""How a lease's row changes, whatever table it is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.leases.port import Lease

checkpoints = st.one_of(st.sampled_from([TRIM_HORIZON, SHARD_END]), st.integers(0, 10**60).map(str))
leases = st.builds(
    Lease,
    key=st.text(min_size=1),
    owner=st.none() | st.text(min_size=1),
    counter=st.integers(0, 2**53),
    checkpoint=checkpoints,
    owner_switches=st.integers(0, 100),
)


def rank(checkpoint: str) -> float:
    """A checkpoint as a number that grows along a shard."""
    if checkpoint == TRIM_HORIZON:
        return -1
    return float("inf") if checkpoint == SHARD_END else int(checkpoint)


@given(leases, st.text(min_size=1))
def test_every_change_raises_the_counter_by_one(lease: Lease, owner: str) -> None:
    """The counter is what a condition compares, so no change may leave it as it was."""
    for changed in (
        lease.taken_by(owner),
        lease.asked_by(owner),
        lease.handed_over(),
        lease.renewed(),
        lease.released(),
        lease.advanced(SHARD_END),
    ):
        assert changed.counter == lease.counter + 1
        assert (changed.key, changed.parents, changed.stream, changed.sink) == (
            lease.key,
            lease.parents,
            lease.stream,
            lease.sink,
        )


@given(leases, checkpoints)
def test_a_checkpoint_advances_or_is_refused(lease: Lease, checkpoint: str) -> None:
    """A checkpoint moves exactly where it is at or beyond the present one."""
    if rank(checkpoint) >= rank(lease.checkpoint):
        assert lease.advanced(checkpoint).checkpoint == checkpoint
        assert lease.advanced(checkpoint).owner_switches == 0
    else:
        with pytest.raises(ValueError, match="would go back"):
            lease.advanced(checkpoint)


def test_owner_switches_count_changes_of_owner() -> None:
    """From one owner to another is a switch; taking one's own row again, or a free one, is none."""
    mine = Lease("s").taken_by("me")
    assert mine.owner_switches == 0
    assert mine.taken_by("me").owner_switches == 0
    assert mine.released().taken_by("you").owner_switches == 0
    assert mine.taken_by("you").owner_switches == 1
    assert mine.taken_by("you").taken_by("me").owner_switches == 2


def test_a_lease_that_is_asked_for_stays_with_its_holder_until_he_lets_go() -> None:
    """Then it is the asker's; who asked and dies, or wants it no more, leaves the holder in place."""
    held = Lease("s").taken_by("holder")
    asked = held.asked_by("asker")
    assert (asked.owner, asked.holder, asked.owner_switches) == ("asker", "holder", 1)
    assert asked.handed_over().holder == asked.handed_over().owner == "asker"
    assert asked.left_by("asker").holder == asked.left_by("asker").owner == "holder"
    assert asked.taken_by("third").holder == "third"
    assert asked.released().holder is None


def test_whoever_goes_leaves_no_row_with_his_name() -> None:
    """As the holder, as the one that asked, or while he hands it over; others' rows stay as they are."""
    held = Lease("s").taken_by("holder")
    assert held.left_by("holder").holder is None
    assert held.asked_by("asker").left_by("holder").holder == "asker"
    assert held.asked_by("asker").handed_over().left_by("asker").holder is None
    assert held.left_by("somebody") is held
