"""The KPL aggregated format, checked both ways against the package that KPL's makers publish."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from hypothesis import given, settings
from hypothesis import strategies as st

from streamjournal.core.errors import StreamjournalError
from streamjournal.stream.aggregation import (
    MAGIC,
    BadAggregateError,
    UserRecord,
    aggregate,
    header_bytes,
    line_bytes,
    split,
)

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
payloads = st.lists(st.binary(max_size=400), max_size=20)


def sealed(body: bytes) -> bytes:
    """A protobuf body as an aggregated record."""
    return MAGIC + body + hashlib.md5(body).digest()


def their_split(data: bytes) -> list[UserRecord]:
    """What aws-kinesis-agg reads."""
    record = {"Data": data, "PartitionKey": "outer", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 0}
    found = iter_deaggregate_records([record], data_format="Boto3")
    return [UserRecord(r["kinesis"]["partitionKey"], base64.b64decode(r["kinesis"]["data"])) for r in found]


def their_aggregate(records: list[UserRecord], hash_key: str | None = None) -> bytes:
    """What aws-kinesis-agg writes."""
    aggregator = RecordAggregator()
    for key, data in records:
        assert aggregator.add_user_record(key, data, hash_key) is None
    data: bytes = aggregator.clear_and_get().get_contents()[2]
    return data


@settings(deadline=None)  # the first call imports protobuf
@given(keys, payloads)
def test_round_trip(key, lines):
    """What was aggregated is split into the same lines, in order, under the same key."""
    assert split(aggregate(key, lines), "outer") == [UserRecord(key, line) for line in lines]


@settings(deadline=None)  # the first call imports protobuf
@given(keys, payloads)
def test_size_is_exact(key, lines):
    """The header's bytes and each line's add up to the record's, so a batch can refuse beforehand."""
    assert len(aggregate(key, lines)) == header_bytes(key) + sum(line_bytes(len(line)) for line in lines)


@pytest.mark.parametrize("length", [0, 1, 119, 120, 127, 128, 16_375, 16_384, 2_097_150, 2_097_152])
def test_size_where_a_varint_grows(length):
    """Lines whose lengths need one more byte are counted right too."""
    grown = len(aggregate("k", [b"x" * length])) - len(aggregate("k", []))
    assert line_bytes(length) == grown


@settings(deadline=None)  # the first call imports protobuf
@given(keys, payloads.filter(bool))
def test_they_read_ours(key, lines):
    """aws-kinesis-agg reads what we aggregate."""
    assert their_split(aggregate(key, lines)) == [UserRecord(key, line) for line in lines]


@settings(deadline=None)  # the first call imports protobuf
@given(st.lists(st.tuples(keys, st.binary(max_size=200)), min_size=1, max_size=12))
def test_we_read_theirs(pairs):
    """We read what aws-kinesis-agg aggregates, over several partition keys too."""
    records = [UserRecord(key, data) for key, data in pairs]
    assert split(their_aggregate(records), "outer") == records


def test_same_bytes():
    """For one key both write the same bytes."""
    lines = [b"x" * n for n in (0, 1, 600, 20_000)]
    assert aggregate("session", lines) == their_aggregate([UserRecord("session", line) for line in lines])


def test_explicit_hash_keys():
    """Hash keys, with which a producer chooses a shard, do not matter to a reader."""
    assert split(their_aggregate([UserRecord("a", b"1")], hash_key="12345"), "outer") == [("a", b"1")]


def test_plain_record():
    """A record without the magic is a user record itself, whatever its bytes are."""
    for data in (b'{"event_type":"X"}', b"", b"\xf3\x89\x9a", bytes(range(256))):
        assert split(data, "outer") == [UserRecord("outer", data)]


def test_unknown_fields_are_skipped():
    """Tags, and fields that a later format may add, do no harm."""
    tagged = b"\x1a\x0b\x08\x00\x1a\x01x" + b"\x22\x04\x0a\x02hi"
    assert split(sealed(b"\x0a\x01k" + tagged + b"\x7a\x02zz"), "outer") == [("k", b"x")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MAGIC, "shorter"),
        (MAGIC + b"x" * 15, "shorter"),
        (aggregate("k", [b"line"])[:-1] + b"\x00", "MD5"),
        (aggregate("k", [b"line"])[:-1], "MD5"),
        (sealed(b"\x1a\xff"), "protobuf"),
        (sealed(b"\x0a\x01k\x1a\x02\x08\x00"), "protobuf"),  # a record without data
        (sealed(b"\x0a\x01k\x1a\x05\x08\x01\x1a\x01x"), "index"),
        (sealed(b"\x1a\x05\x08\x00\x1a\x01x"), "index"),  # no key table at all
        (sealed(b"\x0a\x01\xff\x1a\x05\x08\x00\x1a\x01x"), "UTF-8"),
    ],
)
def test_poison(data, reason):
    """A record that begins as an aggregate and is none is refused with the reason, never guessed at."""
    with pytest.raises(BadAggregateError, match=reason) as caught:
        split(data, "outer")
    assert reason in caught.value.reason
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, StreamjournalError)


@settings(deadline=None)  # the first call imports protobuf
@given(st.binary(max_size=200))
def test_garbage_never_escapes(body):
    """Whatever protobuf makes of random bytes, the outcome is records or our error."""
    try:
        records = split(sealed(body), "outer")
    except BadAggregateError:
        return
    assert all(isinstance(record.data, bytes) for record in records)


def test_writing_imports_no_protobuf():
    """An emitter that only aggregates does not pay for protobuf's import."""
    program = (
        "import sys; from streamjournal.stream.aggregation import aggregate; aggregate('k', [b'x']);"
        "print(any(name.startswith('google') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
