"""What a read needs, what it gives out, and what it could not include."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamjournal.core.clock import Clock
from streamjournal.core.position import Position
from streamjournal.leases.port import Leases
from streamjournal.read.cursor import Cursor
from streamjournal.read.feed import Feeds
from streamjournal.store.port import Store
from streamjournal.stream.port import Stream


class Missing(NamedTuple):
    """Something that a read could not include.

    Args:
        what: `stream`, `store` (not readable), `range` (trimmed before anyone read it), `journal` (it was
            begun anew since the cursor), `blob`, `line` (not what it should be).
        why: for a person.
    """

    what: str
    why: str


class Access(NamedTuple):
    """What a read needs: the adapters, and the process's feeds."""

    stream: Stream
    store: Store
    leases: Leases
    feeds: Feeds
    clock: Clock


class Own(NamedTuple):
    """What this process knows of its own writing to a session.

    Args:
        at_least: where its last acknowledged entry is.
        pending: its lines that the stream may not have.
    """

    at_least: Position | None
    pending: list[bytes]


class Block(NamedTuple):
    """Some lines that pass, in order.

    Args:
        cursor_after: the place after the line of an index.
    """

    lines: list[bytes]
    cursor_after: Callable[[int], Cursor]


NOTHING_OWN = Own(None, [])
