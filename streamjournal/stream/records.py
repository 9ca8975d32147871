"""A stream's record into entries, and into poison for what is none.

Three kinds of records come along a stream: ours (aggregated, each user record a line with an id of
ours), other producers' (plain or aggregated JSON objects, which get the id `shard:sequence:index`,
computed alike here and by a reader), and poison.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from streamjournal.core.clock import format_timestamp
from streamjournal.core.entry import (
    SESSION_END,
    SESSION_START,
    UNDECODABLE,
    check_session_id,
    decode_envelope,
    split_id,
)
from streamjournal.core.errors import BadAggregateError, InvalidEntryError
from streamjournal.core.foreign import Foreign
from streamjournal.core.item import Item
from streamjournal.core.position import Position
from streamjournal.core.summary import status_after
from streamjournal.stream.aggregation import UserRecord, split
from streamjournal.stream.port import Record

_MARKS = frozenset((SESSION_START, SESSION_END))


class Poison(NamedTuple):
    """What is no entry: its place in the record, its bytes, and why."""

    place: int
    data: bytes
    reason: str


class Parsed(NamedTuple):
    """What a record held.

    Args:
        items: (session id, entry), in the record's order.
    """

    items: list[tuple[str, Item]]
    poison: list[Poison]


def parse_record(record: Record, stream: str) -> Parsed:
    """The entries in a record.

    Args:
        stream: the digest of the stream's identity, for positions.
    """
    items: list[tuple[str, Item]] = []
    poison: list[Poison] = []
    position = Position(stream, record.shard, record.sequence)
    try:
        parts = split(record.data, record.partition_key)
    except BadAggregateError as problem:
        return Parsed([], [Poison(0, record.data, str(problem))])
    item: Item | None = None
    for index, part in enumerate(parts):
        try:
            item = _own_item(part, position, index, item) or _foreign_item(part, position, record, index)
        except InvalidEntryError as problem:
            poison.append(Poison(index, part.data, str(problem)))
        else:
            items.append((part.partition_key, item))
    return Parsed(items, poison)


def _own_item(part: UserRecord, position: Position, index: int, before: Item | None) -> Item | None:
    """The entry of a line that has an id of ours; None for any other line.

    Args:
        before: the entry before it in the record; mostly its id is the next one, which is quicker to
            make and compare than to take apart.
    """
    session_id, line = part
    try:
        envelope = decode_envelope(line)
    except UNDECODABLE:
        return None
    name: tuple[str, int] | None
    if before is not None and before.writer is not None and envelope.id == f"{before.writer}-{before.n + 1}":
        name = (before.writer, before.n + 1)
    else:
        name = split_id(envelope.id)
    if name is None or not envelope.event_type or b"\n" in line or not _is_text(line):
        return None
    if envelope.session_id != session_id or not _may_be_session(session_id):
        raise _misplaced(envelope.session_id, session_id)
    status = status_after(envelope, line) if envelope.event_type in _MARKS else None
    return Item(line, position, name[0], name[1], envelope.timestamp, envelope.level, status, index)


def _is_text(line: bytes) -> bool:
    """Whether it is UTF-8: the envelope's decoder skips over details without looking at them."""
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=4096)
def _may_be_session(session_id: str) -> bool:
    try:
        check_session_id(session_id)
    except InvalidEntryError:
        return False
    return True


def _foreign_item(part: UserRecord, position: Position, record: Record, index: int) -> Item:
    """An entry without an id of ours: it gets one by its place, the same for every reader."""
    foreign = Foreign(part.data, session_id=part.partition_key)
    if foreign.session_id != part.partition_key:
        raise _misplaced(foreign.session_id, part.partition_key)
    arrival = format_timestamp(record.arrival_ms * 1_000_000)
    line = foreign.line(f"{record.shard}:{record.sequence}:{index}", timestamp=arrival)
    envelope = decode_envelope(line)
    status = status_after(envelope, line)
    return Item(line, position, None, 0, envelope.timestamp, envelope.level, status, index)


def _misplaced(session_id: str, key: str) -> InvalidEntryError:
    """Such an entry could be anywhere on the stream, so its session's order would be lost."""
    return InvalidEntryError("session_id", f"is {session_id!r}, but the record's partition key is {key!r}")
