"""Positions: sequence numbers within a shard, lineage between shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.position import (
    SHARD_END,
    TRIM_HORIZON,
    Lineage,
    Position,
    ShardStart,
    StreamIdentity,
)

# 0 split into 1 and 2; 1 and 3 merged into 4; 0's own parent has expired, and 5 stands alone
LINEAGE = Lineage({"0": ("gone",), "1": ("0",), "2": ("0",), "3": (), "4": ("1", "3"), "5": ()})


def at(shard: str, sequence: str = "10", stream: str = "s") -> Position:
    """A position in the stream of these tests."""
    return Position(stream, shard, sequence)


@given(st.integers(0, 10**60), st.integers(0, 10**60))
def test_sequence_numbers_compare_as_integers(reached: int, record: int) -> None:
    """9 comes before 10, however many digits there are."""
    assert LINEAGE.covers(at("5", str(reached)), at("5", str(record))) is (record <= reached)


@pytest.mark.parametrize(
    ("reached", "record", "covered"),
    [
        ("4", "0", True),  # grandparent
        ("4", "1", True),  # parent of a merge
        ("4", "3", True),  # adjacent parent of a merge
        ("1", "0", True),  # parent of a split
        ("0", "1", False),  # child
        ("1", "2", False),  # sibling
        ("4", "2", False),  # uncle: split off from an ancestor
        ("4", "5", False),  # no relation
        ("4", "gone", True),  # unlisted: an expired ancestor
        ("5", "other", True),  # unlisted, and nobody's parent any more
        ("gone", "0", False),  # an old position says nothing of what came after
        ("gone", "gone", True),  # same shard, same number, listed or not
    ],
)
def test_lineage_decides_between_shards(reached: str, record: str, covered: bool) -> None:
    """A descendant's position covers every ancestor's record, whatever the numbers are."""
    for low, high in (("1", "999"), ("999", "1")):
        if reached != record:
            assert LINEAGE.covers(at(reached, low), at(record, high)) is covered
    assert LINEAGE.covers(at(reached), at(record)) is covered


def test_nothing_and_another_stream_cover_nothing() -> None:
    """Without a position, or with one in an older stream of that name, every record is new."""
    assert not LINEAGE.covers(None, at("0"))
    assert not LINEAGE.covers(at("4", stream="older"), at("0"))
    assert not LINEAGE.covers(at("0", "99", stream="older"), at("0", "1"))


@given(st.lists(st.tuples(st.sampled_from("012345"), st.integers(0, 50).map(str)), min_size=1))
def test_furthest_never_goes_back(steps: list[tuple[str, str]]) -> None:
    """Whatever was covered before a step within the lineage's order is covered after it."""
    reached: Position | None = None
    for shard, sequence in steps:
        before = reached
        reached = LINEAGE.furthest(before, at(shard, sequence))
        assert LINEAGE.covers(reached, at(shard, sequence))
        if before is not None and LINEAGE.covers(before, at(shard, sequence)):
            assert reached == before


def test_furthest_is_not_replaced_by_an_ancestor() -> None:
    """A late record of a parent does not bring a child's position back."""
    child, parent = at("4", "1"), at("1", "999")
    assert LINEAGE.furthest(child, parent) == child
    assert LINEAGE.furthest(parent, child) == child


def test_a_cycle_in_the_parents_ends() -> None:
    """A list that contradicts itself does not hang the reader."""
    twisted = Lineage({"a": ("b",), "b": ("a",)})
    assert twisted.ancestors("a") == {"a", "b"}


names = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1)


@given(names, names, st.integers(0, 10**60).map(str))
def test_encoding_comes_back(stream: str, shard: str, sequence: str) -> None:
    """A position survives as text, leading digits and all."""
    position = Position(stream, shard, sequence)
    assert Position.decode(position.encode()) == position


@pytest.mark.parametrize("text", ["", "a/b", "a/b/", "a/b/x", "/b/1", "a//1", "a/b/1/2", "a/b/-1", "a/b/²"])
def test_broken_text_is_no_position(text: str) -> None:
    """What `encode` did not write is refused when it is read, not when it is compared."""
    with pytest.raises(ValueError, match=r"not a position|unpack"):
        Position.decode(text)


def test_reading_resumes_after_a_checkpoint() -> None:
    """No checkpoint and TRIM_HORIZON both mean from the oldest record."""
    assert ShardStart.after(None) == ShardStart.after(TRIM_HORIZON) == ShardStart("TRIM_HORIZON")
    assert ShardStart.after("17") == ShardStart("AFTER_SEQUENCE_NUMBER", sequence="17")
    assert SHARD_END != TRIM_HORIZON


def test_identity_tells_streams_of_one_name_apart() -> None:
    """The digest depends on the name and on the time of creation, and is short."""
    first, second = StreamIdentity("arn:x", "2026"), StreamIdentity("arn:x", "2027")
    assert first.digest != second.digest
    assert len(first.digest) == 16
    assert int(first.digest, 16) >= 0
