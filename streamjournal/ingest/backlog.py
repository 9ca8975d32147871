"""A shard's sessions whose entries are not in their journals yet, and which of them are due.

Nothing here goes through all sessions for each read: with a flush interval of 30 seconds there may be
thousands, and reads come several times a second.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from streamjournal.core.item import Item


class Pending:
    """One session's entries that are not in its journal.

    Args:
        serial: in the order of the sessions' first pending records.
        before: sequence number of the record before that one; None if it was the first.
        since: monotonic seconds when it was taken.
        arrival_ms: when the stream took its first pending record, milliseconds since 1970.
    """

    __slots__ = ("arrival_ms", "before", "items", "serial", "since", "size")

    def __init__(self, serial: int, before: str | None, since: float, arrival_ms: int) -> None:
        self.serial = serial
        self.before = before
        self.since = since
        self.arrival_ms = arrival_ms
        self.items: list[Item] = []
        self.size = 0


class Backlog:
    """The pending sessions of one shard, the one with the oldest record first.

    A session leaves it whole, with all its pending entries, and comes back with its next one. So the
    records before the first session's first record are all durable.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Pending] = {}
        self._serials = count()
        self._times: list[tuple[float, int, str]] = []  # a heap; may hold what is gone already
        self._urgent: set[str] = set()

    def begin(
        self, session_id: str, *, before: str | None, now: float, due: float, arrival_ms: int
    ) -> Pending:
        """Add a session, with its first entry to come.

        Args:
            before: sequence number of the record before its first.
            due: monotonic seconds when it is to be flushed at the latest.
            arrival_ms: when the stream took its first record, milliseconds since 1970.
        """
        pending = self.sessions[session_id] = Pending(next(self._serials), before, now, arrival_ms)
        heappush(self._times, (due, pending.serial, session_id))
        return pending

    def hurry(self, session_id: str) -> None:
        """Make a session due at once."""
        self._urgent.add(session_id)

    def end(self, session_id: str) -> None:
        """Take a session out: its entries are durable."""
        del self.sessions[session_id]
        self._urgent.discard(session_id)

    def next_due(self) -> float | None:
        """Monotonic seconds when the next session is due; None if none is pending."""
        if self._urgent:
            return 0.0
        times = self._times
        while times and not self._is_pending(times[0]):
            heappop(times)
        return times[0][0] if times else None

    def due(self, now: float, *, over: int) -> list[str]:
        """The sessions to flush, oldest first.

        Args:
            over: bytes by which the shard holds too much; its oldest sessions are due for them.
        """
        times = self._times
        while times and times[0][0] <= now:
            entry = heappop(times)
            if self._is_pending(entry):
                self._urgent.add(entry[2])
        due = set(self._urgent)
        for session_id, pending in self.sessions.items():
            if over <= 0:
                break
            over -= pending.size
            due.add(session_id)
        return sorted(due, key=lambda session_id: self.sessions[session_id].serial)

    def _is_pending(self, entry: tuple[float, int, str]) -> bool:
        pending = self.sessions.get(entry[2])
        return pending is not None and pending.serial == entry[1]

    def oldest(self) -> Pending | None:
        """The session with the oldest pending record."""
        return next(iter(self.sessions.values()), None)

    def clear(self) -> None:
        """Forget everything."""
        self.sessions.clear()
        self._times.clear()
        self._urgent.clear()
