"""Which outbox a session's entries go to, and under which writer id they are numbered.

(session, writer, n) must never be given twice. So wherever an outbox is forgotten, the writer id goes
first: code that comes in between (a signal handler, a `__del__`) can then only make outboxes of a writer
that has not written yet.
"""

from __future__ import annotations

from collections.abc import Callable

from streamjournal.core.clock import Clock
from streamjournal.core.entry import check_event_type, check_level, check_optional, check_session_id
from streamjournal.emit.outbox import Account, Outbox
from streamjournal.emit.overflow import Drops

Known = dict[tuple[str, str, str | None, str], Outbox]

_MAX_KNOWN = 16_384  # checked (session_id, event_type, tool_name, level) that are remembered
_MAX_SESSIONS = 10_000  # sessions whose counters are kept; the idle ones beyond that are forgotten


class Sessions:
    """The outboxes of one emitter. Every method belongs to its lock.

    Args:
        drops: learns where a session goes on that has a notice due.
        hurry: handed to each outbox.
    """

    def __init__(self, clock: Clock, account: Account, drops: Drops, hurry: Callable[[], None]) -> None:
        self._clock = clock
        self._account = account
        self._drops = drops
        self._hurry = hurry
        self._writer = ""
        self._outboxes: dict[str, Outbox] = {}
        self._limit = _MAX_SESSIONS
        self.known: Known = {}  # what was checked before; emit looks here first

    def introduce(self, session_id: str, event_type: str, tool_name: str | None, level: str) -> Outbox:
        """Check the four, find the session's outbox, and remember both.

        Raises:
            InvalidEntryError: one of them breaks its bound.
        """
        event_type = check_event_type(event_type)
        tool_name = check_optional("tool_name", tool_name)
        level = check_level(level)
        session_id = check_session_id(session_id)
        outbox = self.outbox(session_id)
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        self.known[session_id, event_type, tool_name, level] = outbox
        return outbox

    def outbox(self, session_id: str) -> Outbox:
        """The session's outbox, made at its first entry."""
        outbox = self._outboxes.get(session_id)
        if outbox is None:
            if len(self._outboxes) >= self._limit:
                self._forget_idle()
            if not self._writer:
                self._writer = self._clock.draw_id()
            new = Outbox(session_id, self._writer, self._account, self._hurry)
            outbox = self._outboxes.setdefault(session_id, new)  # a signal handler may have come first
        return outbox

    def find(self, session_id: str) -> Outbox | None:
        """The session's outbox, if it wrote lately."""
        return self._outboxes.get(session_id)

    def _forget_idle(self) -> None:
        """Drop the counters of idle sessions. Their numbers are never given again: the writer is new."""
        self._writer = self._clock.draw_id()
        self.known.clear()
        for session_id, outbox in list(self._outboxes.items()):
            if not outbox.items and not outbox.ready and not outbox.dropped:
                outbox.retired = outbox.slow = True
                self._outboxes.pop(session_id, None)
        self._limit = max(_MAX_SESSIONS, 2 * len(self._outboxes))  # all are busy: do not look every time

    def retire_all(self) -> None:
        """Go on under another writer id. What is queued goes first, under its old ids."""
        self._writer = self._clock.draw_id()
        self.known.clear()
        for session_id, old in list(self._outboxes.items()):
            before = old if old.items or old.must_wait() else None
            new = Outbox(session_id, self._writer, self._account, self._hurry, before)
            new.position = old.position
            old.retired = old.slow = True
            self._outboxes[session_id] = new
            self._drops.move(old, new)

    def abandon(self) -> None:
        """In a forked child: no outbox that a half-finished emit holds is to be used any more."""
        for outbox in self._outboxes.values():
            outbox.retired = outbox.slow = True
