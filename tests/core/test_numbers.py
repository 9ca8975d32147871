"""A writer's numbers: a plain set of integers is the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.numbers import ROOM, WriterNumbers

writer_ids = st.sampled_from(["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"])
arrivals = st.lists(st.tuples(writer_ids, st.integers(1, 30)), max_size=60)


def filled(pairs: list[tuple[str, int]]) -> WriterNumbers:
    """The numbers after these arrivals."""
    numbers = WriterNumbers()
    for writer, n in pairs:
        numbers.add(writer, n)
    return numbers


@given(arrivals)
def test_add_and_has_are_those_of_a_set(pairs: list[tuple[str, int]]) -> None:
    """Adding says whether a number is new, and asking whether it is held, in any order of arrival."""
    numbers, model = WriterNumbers(), set[tuple[str, int]]()
    for writer, n in pairs:
        assert numbers.add(writer, n) is ((writer, n) not in model)
        model.add((writer, n))
    for writer in ("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "never-seen"):
        held = {n for n in range(1, 40) if numbers.has(writer, n)}
        assert held == {n for w, n in model if w == writer}
        assert numbers.highest(writer) == max(held, default=0)
        missing = {n for first, last in numbers.gaps(writer) for n in range(first, last + 1)}
        assert missing == set(range(1, max(held, default=0))) - held


@given(arrivals)
def test_jumps_are_the_ranges_that_were_missing_when_a_later_number_came(
    pairs: list[tuple[str, int]],
) -> None:
    """Each missing range is in exactly one of them; copies and texts start without any."""
    numbers, highest, expected = WriterNumbers(), dict[str, int](), list[tuple[str, int, int]]()
    for writer, n in pairs:
        numbers.add(writer, n)
        if n > highest.get(writer, 0) + 1:
            expected.append((writer, highest.get(writer, 0) + 1, n - 1))
        highest[writer] = max(n, highest.get(writer, 0))
    assert numbers.jumps == expected
    assert numbers.copy().jumps == []
    assert WriterNumbers.decode(numbers.encode(room=10**6)).jumps == []


@given(arrivals)
def test_encoding_comes_back_with_room(pairs: list[tuple[str, int]]) -> None:
    """With room enough nothing is lost, not even who was heard last."""
    numbers = filled(pairs)
    text = numbers.encode(room=10**6)
    again = WriterNumbers.decode(text)
    assert again == numbers
    assert list(again.writers()) == list(numbers.writers())
    assert text.isascii()
    assert "+" not in text


@given(arrivals, st.integers(0, 120))
def test_encoding_keeps_within_its_room(pairs: list[tuple[str, int]], room: int) -> None:
    """Writers that do not fit leave; what is left is believed, and the rest is known to be unknown."""
    numbers = filled(pairs)
    text = numbers.encode(room)
    assert len(text.encode()) <= max(room, 1)
    again = WriterNumbers.decode(text)
    kept = list(again.writers())
    assert kept == list(numbers.writers())[len(numbers) - len(kept) :]  # the last ones heard
    assert again.complete is (len(kept) == len(numbers))
    for writer in numbers.writers():
        assert again.knows(writer) is (writer in kept or again.complete)
        if writer in kept:
            assert again.gaps(writer) == numbers.gaps(writer)
            assert again.highest(writer) == numbers.highest(writer)


def test_many_gaps_are_filled_quickly() -> None:
    """A journal whose lines were mixed up by hand: ten thousand gaps do not make each look a search."""
    numbers = filled([("aaaaaaaaaa", n) for n in range(2, 20_001, 2)])
    assert len(numbers.gaps("aaaaaaaaaa")) == 10_000
    assert all(numbers.add("aaaaaaaaaa", n) for n in range(1, 20_001, 2))
    assert numbers.gaps("aaaaaaaaaa") == []


def test_incompleteness_stays() -> None:
    """A map that once lost a writer never claims to be complete again."""
    lost = WriterNumbers.decode(filled([("aaaaaaaaaa", 1), ("bbbbbbbbbb", 1)]).encode(room=14))
    lost.add("cccccccccc", 1)
    assert not lost.complete
    assert not WriterNumbers.decode(lost.encode()).complete
    assert not lost.copy().complete


def test_room_holds_sixty_writers() -> None:
    """What the module says of its room: about sixty writers without gaps."""
    numbers = filled([])
    for i in range(100):
        for n in (1, 2):
            numbers.add(f"{i:010d}", n)
    assert 60 <= len(WriterNumbers.decode(numbers.encode(ROOM))) < 100


def test_writer_heard_last_is_kept_longest() -> None:
    """The order is by the last new number, not by the first."""
    numbers = filled([("aaaaaaaaaa", 1), ("bbbbbbbbbb", 1), ("aaaaaaaaaa", 2)])
    assert list(numbers.writers()) == ["bbbbbbbbbb", "aaaaaaaaaa"]


@given(arrivals, arrivals)
def test_copy_is_independent(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    """What is added to a copy does not reach the original."""
    numbers = filled(before)
    text = numbers.encode(room=10**6)
    twin = numbers.copy()
    assert twin == numbers
    for writer, n in after:
        twin.add(writer, n)
    assert numbers.encode(room=10**6) == text


@pytest.mark.parametrize(
    "text", ["aaaaaaaaaa", "aaaaaaaaaa:", "aaaaaaaaaa:x", "aaaaaaaaaa:5!x", "aaaaaaaaaa:5!1-"]
)
def test_broken_text_is_refused(text: str) -> None:
    """Metadata that somebody edited is an error, never a smaller map."""
    with pytest.raises(ValueError, match=r"invalid literal"):
        WriterNumbers.decode(text)
