"""The cache of small journals' bodies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamjournal.store.body_cache import BodyCache


def test_a_body_is_of_exactly_one_version() -> None:
    """Another version's body is never given."""
    cache = BodyCache(100)
    cache.put("s", "v1", b"1")
    cache.put("s", "v2", b"12")
    assert cache.get("s", "v1") is None
    assert cache.get("s", "v2") == b"12"
    assert cache.held == 2


def test_the_body_used_longest_ago_makes_room() -> None:
    """Bodies that are used stay."""
    cache = BodyCache(10)
    cache.put("a", "v", b"1234")
    cache.put("b", "v", b"1234")
    cache.get("a", "v")
    cache.put("c", "v", b"1234")
    assert [cache.get(key, "v") is not None for key in "abc"] == [True, False, True]


def test_a_body_that_never_fits_pushes_nothing_out() -> None:
    """One large journal does not empty the cache; its older body goes."""
    cache = BodyCache(10)
    cache.put("a", "v", b"1234")
    cache.put("b", "v", b"1")
    cache.put("b", "w", b"x" * 11)
    assert cache.get("a", "v") == b"1234"
    assert cache.get("b", "v") is None
    assert cache.get("b", "w") is None


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 60)), max_size=60))
def test_it_never_holds_more_than_its_bound(puts: list[tuple[str, int]]) -> None:
    """The bytes held are counted right, whatever is put and replaced."""
    cache = BodyCache(100)
    for n, (key, size) in enumerate(puts):
        cache.put(key, str(n), b"x" * size)
        assert cache.held <= 100
        assert cache.get(key, str(n)) == b"x" * size
    for key in "abcde":
        cache.drop(key)
    assert cache.held == 0
