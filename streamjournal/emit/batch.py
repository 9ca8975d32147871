"""Batches: entries of one session and one writer into a record, records of many sessions into a call.

A batch refuses what does not fit before it takes it. Under backlog the records grow, up to the
stream's bound, instead of getting more: a session has at most one record in a call, and at most one
call under way, since PutRecords promises no order inside a call or between two.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.emit.outbox import Outbox
from streamjournal.emit.receipt import Receipt
from streamjournal.stream.aggregation import aggregate, header_bytes, line_bytes
from streamjournal.stream.port import MAX_PUT_BYTES, MAX_PUT_RECORDS, MAX_RECORD_BYTES, PutRecord

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_LIMIT: Final = 10**9


class Lane:
    """An outbox in the sender's hands.

    Args:
        due: monotonic seconds from which it may be sent.
        limit: entries per record; lowered to find the one that the stream refuses.
        withdrawn: its entries are not ours to send any more.
    """

    __slots__ = ("backoff", "due", "limit", "outbox", "withdrawn")

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self.outbox = outbox
        self.due = 0.0
        self.withdrawn = False
        self.limit = _NO_LIMIT
        self.backoff = Backoff(clock)

    def worked(self) -> None:
        """Forget what went wrong before."""
        self.limit = _NO_LIMIT
        self.backoff.worked()


class RecordDraft:
    """A record on its way: the first `items` of a lane, and their aggregated bytes."""

    __slots__ = ("items", "lane", "record", "size")

    def __init__(self, lane: Lane, items: list[Receipt], record: PutRecord, size: int) -> None:
        self.lane = lane
        self.items = items
        self.record = record
        self.size = size

    @classmethod
    def shortening(cls, lane: Lane, item: Receipt) -> RecordDraft:
        """Stands in a call for an entry over the record limit, whose details go to the store first."""
        return cls(lane, [item], PutRecord(lane.outbox.session_id, b""), 0)

    @property
    def shortens(self) -> bool:
        """Whether there is nothing to put yet."""
        return not self.record.data


class Call:
    """The records of one PutRecords call."""

    __slots__ = ("drafts", "size")

    def __init__(self) -> None:
        self.drafts: list[RecordDraft] = []
        self.size = 0

    def add(self, lane: Lane) -> bool:
        """Take as much of the lane as fits into one record; False if nothing does."""
        if len(self.drafts) >= MAX_PUT_RECORDS:
            return False
        draft = draft_record(lane, min(MAX_RECORD_BYTES, MAX_PUT_BYTES - self.size))
        if draft is None:
            return False
        self.drafts.append(draft)
        self.size += draft.size
        return True


def draft_record(lane: Lane, room: int) -> RecordDraft | None:
    """A record of the lane's first entries, at most `room` bytes; None if the first does not fit."""
    key = lane.outbox.session_id
    size = header_bytes(key) + len(key.encode())
    items: list[Receipt] = []
    lines: list[bytes] = []
    for item in lane.outbox.items.copy():  # emit may append meanwhile
        line = item.line
        assert line is not None  # settled items leave the outbox in the same step
        size += line_bytes(len(line))
        if size > room or len(items) >= lane.limit:
            size -= line_bytes(len(line))
            break
        items.append(item)
        lines.append(line)
    return RecordDraft(lane, items, PutRecord(key, aggregate(key, lines)), size) if items else None


def fits_a_record(session_id: str, line: bytes) -> bool:
    """Whether an entry fits into a record by itself."""
    used = header_bytes(session_id) + len(session_id.encode()) + line_bytes(len(line))
    return used <= MAX_RECORD_BYTES


def details_of(line: bytes) -> bytes:
    """An entry's details, as they stand in its line."""
    return bytes(_fields.decode(line)["details"])


def with_blob(line: bytes, key: str) -> bytes:
    """The line with its details replaced by where they are, their size in bytes and their SHA-256."""
    fields: dict[str, object] = dict(_fields.decode(line))
    details = details_of(line)
    fields["details"] = {
        "$blob": key,
        "bytes": len(details),
        "sha256": hashlib.sha256(details).hexdigest(),
    }
    return msgspec.json.encode(fields)
