"""When the buffer is full: waiting for room, and entries that the overflow policy dropped, counted per
session and told of in its journal.

The notice (ENTRIES_DROPPED, source `journal`) comes before the next entry of the session that is
accepted, so it stands in the journal where the gap is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from streamjournal.core.clock import Clock
from streamjournal.core.entry import ENTRIES_DROPPED, Draft, encode_draft
from streamjournal.core.errors import EntryDroppedError
from streamjournal.emit.line import Line
from streamjournal.emit.outbox import Outbox
from streamjournal.emit.receipt import Receipt


class Room:
    """Where the policy `block` waits for room in the buffer.

    Args:
        seconds: that an entry waits at most.
        hurry: asks the sender not to linger.
    """

    def __init__(self, clock: Clock, seconds: float, hurry: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._hurry = hurry
        self._event = threading.Event()

    def made(self) -> None:
        """Bytes were released. From any thread."""
        self._event.set()

    def wait(self, try_again: Callable[[], bool]) -> bool:
        """Try again whenever room was made, until it works or the time is over; whether it worked."""
        deadline = self._clock.monotonic() + self._seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            self._hurry()
            self._event.clear()
            if try_again():  # after the clear, so that no release is missed
                return True
            self._event.wait(min(left, 0.1))  # not for longer: another waiting thread may have cleared it
        return try_again()


class Drops:
    """What one emitter dropped. Every method belongs to its critical section.

    Attributes:
        total: entries, ever.
        untold: the outboxes of the sessions in whose journals a notice is due.
    """

    def __init__(self) -> None:
        self.total = 0
        self.untold: dict[Outbox, None] = {}

    def count(self, receipt: Receipt, since: str) -> None:
        """Count an entry as dropped, and tell who waits for it."""
        outbox = receipt.outbox
        if not outbox.dropped:
            outbox.dropped_since = since
        outbox.dropped += 1
        outbox.slow = True
        self.untold[outbox] = None
        self.total += 1
        receipt.settle(None, EntryDroppedError("the emit buffer was full and its policy is to drop"))

    def notice(self, outbox: Outbox) -> Line:
        """The notice of what was dropped so far."""
        details = {
            "count": outbox.dropped,
            "since": outbox.dropped_since,
            "reason": "the emit buffer was full",
        }
        return partial(_notice, outbox.session_id, details)

    def told(self, outbox: Outbox, count: int) -> None:
        """A notice of `count` entries is on its way."""
        outbox.dropped -= count
        if not outbox.dropped:
            outbox.slow = outbox.retired
            self.untold.pop(outbox, None)

    def move(self, old: Outbox, new: Outbox) -> None:
        """The session goes on in another outbox; its notice is due there."""
        if old.dropped:
            new.dropped, new.dropped_since, new.slow = old.dropped, old.dropped_since, True
            self.untold[new] = None
        old.dropped = 0
        self.untold.pop(old, None)


def _notice(session_id: str, details: dict[str, Any], entry_id: str, timestamp: str) -> bytes:
    return encode_draft(
        Draft(entry_id, timestamp, session_id, ENTRIES_DROPPED, None, "WARNING", details, source="journal")
    )
