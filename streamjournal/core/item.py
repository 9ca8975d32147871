"""An entry on its way from the stream to a journal or a reader: its line, and what the line says."""

from __future__ import annotations

import msgspec

from streamjournal.core.position import Position
from streamjournal.core.summary import Status


class Item(msgspec.Struct, frozen=True, gc=False):
    """One entry of a record. Not for the garbage collector to look at: a worker holds many, none in a cycle.

    Args:
        line: the entry's line without its newline.
        position: of the record that it came in.
        writer, n: from its id; writer is None for an entry of another producer.
        timestamp, level: as in the line.
        status: what it makes of the session: None for nothing, else its status from there on.
        place: its index in the record.
    """

    line: bytes
    position: Position
    writer: str | None
    n: int
    timestamp: str
    level: str
    status: Status | None
    place: int = 0
