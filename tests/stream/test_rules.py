"""Kinesis's rules that the embedded streams keep."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.stream.port import MAX_PUT_BYTES, MAX_PUT_RECORDS, MAX_RECORD_BYTES, PutRecord
from streamjournal.stream.rules import (
    check_call,
    durable_to,
    even_ranges,
    hash_of,
    refusal_of,
    shard_name,
)


@given(st.integers(1, 1024))
def test_ranges_cover_everything_once(count):
    """Shards divide the 128-bit space without a gap or an overlap, and evenly."""
    ranges = even_ranges(count)
    assert len(ranges) == count
    assert (ranges[0][0], ranges[-1][1]) == (0, 2**128 - 1)
    assert all(left[1] + 1 == right[0] for left, right in itertools.pairwise(ranges))
    sizes = [last - first for first, last in ranges]
    assert max(sizes) - min(sizes) < count


def test_hash_is_kinesis_s():
    """A key's place is its MD5 read as a big-endian number."""
    assert hash_of("日本") == int(hashlib.md5("日本".encode()).hexdigest(), 16)


def test_shard_names_are_kinesis_s():
    """Shard ids look like Kinesis's, and sort like their numbers."""
    assert shard_name(3) == "shardId-000000000003"
    assert shard_name(9) < shard_name(10)


def test_bounds_of_a_call():
    """A call of 500 records or 5 MiB passes; one more does not."""
    check_call([PutRecord("k", b"x")] * MAX_PUT_RECORDS)
    with pytest.raises(ValueError, match="501 records"):
        check_call([PutRecord("k", b"x")] * (MAX_PUT_RECORDS + 1))
    fifth = b"x" * (MAX_PUT_BYTES // 5 - 1)
    check_call([PutRecord("k", fifth)] * 5)
    with pytest.raises(ValueError, match="bytes"):
        check_call([*[PutRecord("k", fifth)] * 5, PutRecord("k", b"")])


def test_bounds_of_a_record():
    """The key counts with its UTF-8 bytes; what is over the bound is refused for good."""
    assert refusal_of(PutRecord("é", b"x" * (MAX_RECORD_BYTES - 2))) is None
    over = refusal_of(PutRecord("é", b"x" * (MAX_RECORD_BYTES - 1)))
    assert over is not None
    assert over.permanent
    assert refusal_of(PutRecord("😀" * 256, b"")) is None
    assert refusal_of(PutRecord("k" * 257, b"")) is not None
    assert refusal_of(PutRecord("\ud800", b"")) is not None


def test_what_a_checkpoint_covers():
    """TRIM_HORIZON covers nothing, SHARD_END everything, a number itself."""
    assert durable_to(TRIM_HORIZON) < 0
    assert durable_to(SHARD_END) > 2**200
    assert durable_to("17") == 17
