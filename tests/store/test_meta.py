"""A journal's metadata: always small enough for S3, always the same when it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.entry import MAX_TIMESTAMP_BYTES
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.store.meta import MAX_META_BYTES, Meta

timestamps = st.one_of(
    st.sampled_from(["", "-", "%2D", "2026-11-22T13:12:01.123456Z", "2026-11-22 13:12:01+02:00", "日" * 21]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=64),
).filter(lambda it: len(it.encode()) <= MAX_TIMESTAMP_BYTES)
summaries = st.builds(
    Summary,
    entries=st.integers(0, 10**12),
    errors=st.integers(0, 10**12),
    first=timestamps,
    last=timestamps,
    status=st.sampled_from(["running", "ended", "failed"]),
)
ids = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=10, max_size=10)
checksums = st.none() | st.integers(0, 2**32 - 1)
positions = st.none() | st.builds(
    Position,
    stream=st.text("0123456789abcdef", min_size=16, max_size=16),
    shard=st.text("shardI-0123456789", min_size=1, max_size=128),  # Kinesis's own bound
    sequence=st.integers(0, 10**56).map(str),
)


@st.composite
def numbers(draw: st.DrawFn) -> WriterNumbers:
    """Up to 200 writers, some of them with gaps."""
    made = WriterNumbers(complete=draw(st.booleans()))
    count = draw(st.integers(0, 200))
    for i in range(count):
        for n in (
            draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=4, unique=True)) if i < 20 else [i + 1]
        ):
            made.add(f"writer{i:04}", n)
    return made


metas = st.builds(
    Meta,
    generation=ids,
    commit=ids,
    position=positions,
    writers=numbers(),
    summary=summaries,
    crc=checksums,
)


@given(metas)
def test_it_always_fits(meta: Meta) -> None:
    """Keys and values together stay within the bound, and are what HTTP headers carry unchanged."""
    fields = meta.encode()
    assert sum(len(key) + len(value) for key, value in fields.items()) <= MAX_META_BYTES
    for value in fields.values():
        assert value.isascii()
        assert " ".join(value.split()) == value  # clients strip spaces and fold double ones


@given(metas)
def test_it_comes_back(meta: Meta) -> None:
    """Everything but the writers comes back as it was."""
    decoded = Meta.decode(meta.encode())
    assert decoded is not None
    assert decoded.generation == meta.generation
    assert decoded.commit == meta.commit
    assert decoded.position == meta.position
    assert decoded.summary == meta.summary
    assert decoded.crc == meta.crc


@given(metas)
def test_writers_that_leave_are_flagged(meta: Meta) -> None:
    """The writers that come back have their numbers; if one is missing, the map says so."""
    decoded = Meta.decode(meta.encode())
    assert decoded is not None
    kept = list(decoded.writers.writers())
    for writer in kept:
        assert decoded.writers.highest(writer) == meta.writers.highest(writer)
        assert decoded.writers.gaps(writer) == meta.writers.gaps(writer)
    everyone = list(meta.writers.writers())
    assert decoded.writers.complete == (meta.writers.complete and len(kept) == len(everyone))
    assert kept == [it for it in everyone if it in decoded.writers]


def test_a_timestamp_beyond_every_bound_is_left_out() -> None:
    """An older tool's line may hold anything as its time; the metadata stays small."""
    meta = Meta("g", "c", None, WriterNumbers(), Summary(first="x" * 5_000, last="ok"))
    decoded = Meta.decode(meta.encode())
    assert decoded is not None
    assert (decoded.summary.first, decoded.summary.last) == ("", "ok")


def test_metadata_of_others_is_none() -> None:
    """A journal without our metadata is an older tool's."""
    assert Meta.decode({}) is None
    assert Meta.decode({"uploaded-by": "somebody"}) is None


def test_a_newer_version_is_refused() -> None:
    """What a newer version wrote is not guessed at."""
    with pytest.raises(ValueError, match="upgrade streamjournal"):
        Meta.decode({"sj-version": "2"})


def test_metadata_without_a_checksum_is_an_older_versions() -> None:
    """It is read as it always was."""
    fields = Meta("g", "c", None, WriterNumbers(), Summary(), crc=5).encode()
    assert fields.pop("sj-crc") == "00000005"
    decoded = Meta.decode(fields)
    assert decoded is not None
    assert decoded.crc is None


@pytest.mark.parametrize("text", ["", "5", "0000000G", "0000000A", " 0000005", "000000005"])
def test_a_broken_checksum_is_refused(text: str) -> None:
    """It is broken metadata, not a journal without a checksum."""
    fields = Meta("g", "c", None, WriterNumbers(), Summary()).encode()
    with pytest.raises(ValueError, match="not a checksum"):
        Meta.decode(fields | {"sj-crc": text})
