"""What a record holds: entries of ours, other producers' entries, and poison."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from streamjournal.core.position import Position
from streamjournal.stream.aggregation import MAGIC, aggregate
from streamjournal.stream.port import Record
from streamjournal.stream.records import Parsed, parse_record
from tests.sim.rig import line

SHARD = "shardId-000000000000"


def parse(
    data: bytes, key: str = "s", *, sequence: str = "17", arrival_ms: int = 1_795_353_121_500
) -> Parsed:
    """A record's data, parsed."""
    return parse_record(Record(SHARD, sequence, key, data, arrival_ms), "d1gest")


def aggregated(*parts: tuple[str, bytes]) -> bytes:
    """A KPL record of several keys, framed by hand."""

    def field(tag: int, data: bytes) -> bytes:
        assert len(data) < 2**14
        size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 0x7F | 0x80, len(data) >> 7])
        return bytes([tag]) + size + data

    keys = list(dict.fromkeys(key for key, _ in parts))
    body = b"".join(field(0x0A, key.encode()) for key in keys)
    for key, data in parts:
        body += field(0x1A, bytes([0x08, keys.index(key)]) + field(0x1A, data))
    return MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest()


def test_our_lines_stay_as_they_are() -> None:
    """An aggregate's lines become items byte for byte, with writer, number, position and place."""
    lines = [line("s", 1), line("s", 2, level="ERROR"), line("s", 3, event_type="SESSION_END")]
    items, poison = parse(aggregate("s", lines))
    assert poison == []
    assert [session_id for session_id, _ in items] == ["s"] * 3
    assert [item.line for _, item in items] == lines
    assert [(item.writer, item.n, item.place) for _, item in items] == [
        ("writer0001", 1, 0),
        ("writer0001", 2, 1),
        ("writer0001", 3, 2),
    ]
    assert {item.position for _, item in items} == {Position("d1gest", SHARD, "17")}
    assert [item.level for _, item in items] == ["INFO", "ERROR", "INFO"]
    assert [item.status for _, item in items] == [None, None, "ended"]


def test_a_plain_json_record_is_an_entry() -> None:
    """It gets an id by its place, the session from its partition key, and keeps its own id aside."""
    data = b'{"id": "mine", "event_type": "X", "timestamp": "2026-01-01T00:00:00", "extra": 1.50}'
    ((session_id, item),), poison = parse(data)
    assert (session_id, poison) == ("s", [])
    assert (item.writer, item.n, item.timestamp) == (None, 0, "2026-01-01T00:00:00")
    fields = msgspec.json.decode(item.line)
    assert fields["id"] == f"{SHARD}:17:0"
    assert fields["source_id"] == "mine"
    assert fields["session_id"] == "s"
    assert b'"extra":1.50' in item.line


def test_worker_and_reader_give_the_same_id() -> None:
    """The same record parsed twice gives the same bytes, whatever the time; the arrival is its timestamp."""
    first, again = (parse(b'{"event_type":"X"}') for _ in range(2))
    assert first == again
    assert first.items[0][1].timestamp == "2026-11-22T13:12:01.500000Z"


def test_an_aggregate_of_several_keys() -> None:
    """Another producer's aggregate is split by its key table, in its order."""
    data = aggregated(
        ("a", b'{"event_type":"X"}'), ("b", b'{"event_type":"Y"}'), ("a", b'{"event_type":"Z"}')
    )
    items, poison = parse(data, "a")
    assert poison == []
    assert [session_id for session_id, _ in items] == ["a", "b", "a"]
    assert [msgspec.json.decode(item.line)["id"] for _, item in items] == [
        f"{SHARD}:17:{i}" for i in range(3)
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no JSON at all", "not JSON"),
        (b'["event_type"]', "not an object"),
        (b'"text"', "not an object"),
        (b"", "not JSON"),
        (b'{"event_type":"X","session_id":"other"}', "partition key"),
        (b'{"tool_name":"t"}', "event_type"),
        (b'{"event_type":""}', "event_type"),
        (b'{"event_type":"X","timestamp":5}', "timestamp"),
        (b'{"event_type":"\xff"}', "not JSON"),
        (b'{"event_type":"X","details":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "not JSON"),
    ],
)
def test_poison_is_kept_with_its_bytes_and_a_reason(data: bytes, reason: str) -> None:
    """What is no entry comes out as poison, whole, and says why; nothing is raised."""
    items, ((place, kept, why),) = parse(data)
    assert (items, place, kept) == ([], 0, data)
    assert reason in why


def test_a_wrong_checksum_is_poison() -> None:
    """A record that begins as an aggregate but was damaged is kept whole."""
    data = bytearray(aggregate("s", [line("s", 1)]))
    data[10] ^= 1
    items, ((place, kept, why),) = parse(bytes(data))
    assert (items, place, kept) == ([], 0, bytes(data))
    assert "checksum" in why


def test_one_poison_does_not_take_the_good_ones_with_it() -> None:
    """In an aggregate, only the bad user record is poison, under its own place."""
    items, ((place, kept, _),) = parse(aggregate("s", [line("s", 1), b"bad", line("s", 2)]))
    assert [item.n for _, item in items] == [1, 2]
    assert (place, kept) == (1, b"bad")


def test_our_line_under_another_key_is_poison() -> None:
    """Partition key and session must be one, or the session's order would be lost."""
    items, ((_, _, why),) = parse(aggregate("s", [line("other", 1)]), "s")
    assert items == []
    assert "partition key" in why


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 257])
def test_a_key_that_cannot_be_a_session_is_poison(key: str) -> None:
    """Such an id has no journal's name."""
    items, (poison,) = parse(aggregate(key, [line(key, 1)]), key or "s")
    assert items == []
    assert "session_id" in poison.reason


def test_a_line_that_only_looks_like_ours_gets_an_id_by_its_place() -> None:
    """An id of another form is the producer's own."""
    for own in (
        "writer0001-0",
        "writer0001-01",
        "WRITER0001-1",
        "writer0001-1234567890123456789",
        "w-1",
        "-",
    ):
        data = msgspec.json.encode({"id": own, "event_type": "X"})
        ((_, item),), _ = parse(data)
        assert item.writer is None, own
        assert msgspec.json.decode(item.line)["source_id"] == own


def test_details_that_no_reader_could_decode_are_poison() -> None:
    """An envelope that is fine does not let details through that are not UTF-8."""
    bad = line("s", 1).replace(b'"details":{}', b'"details":{"a":"\xff"}')
    items, (poison,) = parse(aggregate("s", [bad]))
    assert items == []
    assert poison.data == bad


def test_a_line_break_inside_a_line_of_ours_does_not_reach_a_journal() -> None:
    """Pretty-printed JSON becomes one line."""
    pretty = msgspec.json.format(line("s", 1), indent=2)
    ((_, item),), _ = parse(aggregate("s", [pretty]))
    assert b"\n" not in item.line
    assert item.writer is None
