"""The emitter: from a call in an agent to a line in the spool and in an outbox, in microseconds.

`emit` takes a number, writes the spool and queues in one critical section, so that the numbers, the
spool and the stream have the same order. Re-entry by the same thread (a signal handler, a `__del__`
that the garbage collector runs) finds the section occupied by itself; such an entry is put aside and
accepted by the outer call on its way out.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from streamjournal.core.clock import Clock, format_second
from streamjournal.core.entry import (
    ENTRIES_DROPPED,
    Draft,
    check_event_type,
    check_level,
    check_optional,
    check_session_id,
    encode_draft,
)
from streamjournal.core.errors import (
    BufferFullError,
    ClosedJournalError,
    EntryDroppedError,
)
from streamjournal.core.foreign import Foreign
from streamjournal.core.jsonable import encode_details
from streamjournal.core.settings import Settings
from streamjournal.emit.outbox import Account, Outbox
from streamjournal.emit.receipt import Delivery, Receipt
from streamjournal.emit.spool import Segment, Spool

_MAX_KNOWN = 16_384  # checked (session_id, event_type, tool_name, level) that are remembered
_MAX_SESSIONS = 10_000  # sessions whose counters are kept; the idle ones beyond that are forgotten
_CLOCK_STEP = 2_000_000_000  # ns that wall and monotonic time may drift apart within a run
_UNENCODABLE = (TypeError, ValueError, RecursionError, OverflowError)  # UnicodeEncodeError is a ValueError

_MILLIS = [f".{n:03d}" for n in range(1000)]  # formatting six digits takes longer than two lookups
_MICROS = [f"{n:03d}Z" for n in range(1000)]

Line = Callable[[str, str], bytes]  # (id, timestamp) -> the entry's line


class Emitter:
    """Accepts entries. Thread-safe, re-entrant, and safe after a fork.

    Args:
        spool: None keeps entries in memory only.
        wake: tells the sender that an outbox is ready; called at most once per batch, from any thread.
        hurry: tells the sender not to linger.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        make_spool: Callable[[], Spool | None],
        wake: Callable[[], None],
        hurry: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._time_ns = clock.time_ns
        self._make_spool = make_spool
        self._wake = wake
        self._hurry = hurry
        self._bound = settings.buffer_bytes
        self.spool = make_spool()
        self.room = threading.Event()  # set by the sender when bytes were released
        self.closed = False
        self._start_over()

    def _start_over(self) -> None:
        """An emitter with no past: a new writer, nothing queued."""
        self._lock = threading.RLock()
        self._inside = False
        self._aside: list[tuple[Receipt, Line]] = []
        self._known: dict[tuple[str, str, str | None, str], Outbox] = {}  # what was checked before
        self._sessions: dict[str, Outbox] = {}
        self._writer = ""
        self._second_ns = -1_000_000_000  # of no second, so that the first entry begins one
        self._second_text = ""
        self._segment: Segment | None = None  # that the next frame probably fits into
        self._pid = os.getpid()
        self._drift = self._clock.time_ns() - int(self._clock.monotonic() * 1e9)
        self.ready: deque[Outbox] = deque()  # outboxes for the sender to look at
        self.awake = False  # the sender has been told, and has not looked yet
        self.accepted = 0
        self.accepted_bytes = 0
        self.account = Account()
        self.dropped = 0
        self._untold = 0  # of those, no notice tells yet

    def emit(
        self,
        event_type: str,
        *,
        session_id: str,
        tool_name: str | None = None,
        details: Any = None,
        level: str = "INFO",
        span_id: str | None = None,
        parent_id: str | None = None,
        source: str = "agent",
    ) -> Receipt:
        """Accept an entry; see `Journal.emit`, which this is."""
        try:
            outbox = self._known[session_id, event_type, tool_name, level]
        except (KeyError, TypeError):  # TypeError: unhashable, so no text
            outbox = self._introduce(session_id, event_type, tool_name, level)
        if span_id is not None or parent_id is not None:
            check_optional("span_id", span_id)
            check_optional("parent_id", parent_id)
        if type(details) is not dict:
            details = {} if details is None else encode_details(details)
        draft = Draft("", "", session_id, event_type, tool_name, level, details, span_id, parent_id, source)
        try:
            # One flat block, for the sake of its microseconds. What is not the ordinary case falls
            # through to _accept below, which takes the same steps at leisure.
            with self._lock:
                micros = (self._time_ns() - self._second_ns) // 1000
                segment = self._segment
                if segment is not None and 0 <= micros < 1_000_000 and not (self._inside or outbox.dropped):
                    self._inside = True
                    try:
                        n = outbox.n + 1
                        draft.id = f"{outbox.prefix}{n}"
                        draft.timestamp = (
                            f"{self._second_text}{_MILLIS[micros // 1000]}{_MICROS[micros % 1000]}"
                        )
                        line = encode_draft(draft)
                        accepted_bytes = self.accepted_bytes + len(line)
                        if accepted_bytes - self.account.released_bytes <= self._bound:
                            offset = segment.append(line)
                            if offset >= 0:
                                outbox.n = n
                                self.accepted_bytes = accepted_bytes
                                self.accepted = serial = self.accepted + 1
                                receipt = Receipt(outbox, n, line, serial, segment, offset)
                                outbox.items.append(receipt)
                                if not outbox.ready:
                                    self._make_ready(outbox)
                                return receipt
                    finally:
                        self._inside = False
                        if self._aside:
                            self._accept_aside()
        except _UNENCODABLE:
            draft.details = encode_details(details)  # runs the caller's own code: outside the section
        return self._accept(outbox, partial(_fill_in, draft))

    def emit_foreign(self, foreign: Foreign) -> Receipt:
        """Accept a line of somebody else's under an id of ours, keeping what it says as it says it."""
        outbox = self._outbox(foreign.session_id)
        return self._accept(outbox, lambda entry_id, now: foreign.line(entry_id, timestamp=now))

    def _accept(self, outbox: Outbox, line: Line) -> Receipt:
        """The critical section, as often as the overflow policy lets it be tried."""
        deadline: float | None = None
        while True:
            receipt = self._enter(outbox, line)
            if receipt is not None:
                return receipt
            if self._settings.overflow == "raise":
                raise BufferFullError(self.buffered, self._bound)
            now = self._clock.monotonic()
            if deadline is None:
                deadline = now + self._settings.block_timeout
            if self._settings.overflow == "drop" or now >= deadline:
                return self._drop(outbox)
            self._hurry()
            self.room.clear()
            if self.buffered >= self._bound / 2:  # not released between the try and the clear
                self.room.wait(min(deadline - now, 0.1))

    def _enter(self, outbox: Outbox, line: Line) -> Receipt | None:
        with self._lock:
            if self._inside:
                receipt = Receipt(outbox, 0, None, 0)
                self._aside.append((receipt, line))
                return receipt
            self._inside = True
            try:
                return self._accept_alone(outbox, line)
            finally:
                self._inside = False
                if self._aside:
                    self._accept_aside()

    def _accept_alone(self, outbox: Outbox, line: Line, receipt: Receipt | None = None) -> Receipt | None:
        """Number, spool and queue an entry; None if the buffer has no room for it."""
        ns = self._time_ns()
        if not 0 <= ns - self._second_ns < 1_000_000_000 and self._new_second(ns):
            outbox = self._outbox(outbox.session_id)
        if outbox.dropped and not self._tell_dropped(outbox):
            return None
        n = outbox.n + 1
        micros = (ns - self._second_ns) // 1000
        encoded = line(f"{outbox.prefix}{n}", f"{self._second_text}.{micros:06d}Z")
        size = len(encoded)
        if self.accepted_bytes + size - self.account.released_bytes > self._bound:
            return None
        segment, offset = (None, 0) if self.spool is None else self.spool.append(encoded)
        self._segment = segment
        outbox.n = n
        self.accepted_bytes += size
        self.accepted = serial = self.accepted + 1
        if receipt is None:
            receipt = Receipt(outbox, n, encoded, serial, segment, offset)
        else:
            receipt.fill(outbox, n, encoded, serial, segment, offset)
        outbox.items.append(receipt)
        if not outbox.ready:
            self._make_ready(outbox)
        return receipt

    def _make_ready(self, outbox: Outbox) -> None:
        """Put the outbox before the sender; wake it if it has not been told since it last looked."""
        outbox.ready = True
        self.ready.append(outbox)
        if not self.awake:
            self.awake = True
            self._wake()

    def _accept_aside(self) -> None:
        """Accept what came from inside the critical section, before anybody else gets in."""
        self._inside = True
        while self._aside:
            receipt, line = self._aside.pop(0)
            try:
                if self._accept_alone(receipt.outbox, line, receipt) is None:
                    self._count_drop(receipt)
            except _UNENCODABLE as problem:
                receipt.settle(
                    None, EntryDroppedError(f"emitted from inside an emit, and no JSON: {problem}")
                )
        self._inside = False

    def _drop(self, outbox: Outbox) -> Receipt:
        receipt = Receipt(outbox, 0, None, 0)
        with self._lock:
            self._count_drop(receipt)
        return receipt

    def _count_drop(self, receipt: Receipt) -> None:
        outbox = receipt.outbox
        self.dropped += 1
        self._untold += 1
        outbox.dropped += 1
        if outbox.dropped == 1:
            outbox.dropped_since = f"{self._second_text}Z"
        receipt.settle(None, EntryDroppedError("the emit buffer was full and its policy is to drop"))

    def _tell_dropped(self, outbox: Outbox) -> bool:
        """Journal how many entries were dropped, before the next one that is accepted."""
        count, outbox.dropped = outbox.dropped, 0
        details = {"count": count, "since": outbox.dropped_since, "reason": "the emit buffer was full"}

        def line(entry_id: str, timestamp: str) -> bytes:
            session_id = outbox.session_id
            return encode_draft(
                Draft(
                    entry_id,
                    timestamp,
                    session_id,
                    ENTRIES_DROPPED,
                    None,
                    "WARNING",
                    details,
                    source="journal",
                )
            )

        told = self._accept_alone(outbox, line) is not None
        if told:
            self._untold -= count
        else:
            outbox.dropped = count
        return told

    def tell_all_dropped(self) -> None:
        """Journal what was dropped and not told of yet, as far as there is room."""
        if not self._untold:
            return
        with self._lock:
            if self._inside:
                return
            self._inside = True
            try:
                for outbox in [o for o in self._sessions.values() if o.dropped]:
                    self._tell_dropped(outbox)
            finally:
                self._inside = False

    def _introduce(self, session_id: str, event_type: str, tool_name: str | None, level: str) -> Outbox:
        """Check the four, find the session's outbox, and remember both; or raise what is wrong."""
        check_event_type(event_type)
        check_optional("tool_name", tool_name)
        check_level(level)
        outbox = self._outbox(check_session_id(session_id))
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[session_id, event_type, tool_name, level] = outbox
        return outbox

    def _outbox(self, session_id: str) -> Outbox:
        """The session's outbox, made at its first entry."""
        if self.closed:
            raise ClosedJournalError
        with self._lock:
            outbox = self._sessions.get(session_id)
            if outbox is None:
                if not self._writer:
                    self._writer = self._clock.draw_id()
                if len(self._sessions) >= _MAX_SESSIONS:
                    self._forget_idle()
                outbox = self._sessions[session_id] = Outbox(
                    session_id, self._writer, self.account, self._hurry
                )
            return outbox

    def _forget_idle(self) -> None:
        """Drop the counters of idle sessions. Their numbers are never given again: the writer is new."""
        for session_id, outbox in list(self._sessions.items()):
            if not outbox.items and not outbox.ready and not outbox.dropped:
                del self._sessions[session_id]
        self._known.clear()
        self._writer = self._clock.draw_id()

    def _new_second(self, ns: int) -> bool:
        """Once a second: the timestamp's first part, and whether this is another process by now.

        A fork that Python's hooks did not see, or a restored snapshot of the machine (wall time jumps
        against monotonic time), must not go on with this writer's numbers: somebody else has them too.
        """
        second = ns // 1_000_000_000
        self._second_ns = second * 1_000_000_000
        self._second_text = format_second(second)
        if os.getpid() != self._pid:
            self.after_fork()
            return True
        drift = self._time_ns() - int(self._clock.monotonic() * 1e9)
        if abs(drift - self._drift) > _CLOCK_STEP:
            self._drift = drift
            self._sessions = {}  # what is queued goes on under its ids; a clone's copy is a duplicate
            self._known.clear()
            self._writer = ""
            return True
        return False

    def after_fork(self) -> None:
        """In the child: a new writer with a spool, locks and a queue of its own."""
        if self.spool is not None:
            self.spool.abandon_after_fork()
        self._start_over()
        self.spool = self._make_spool()
        self.room = threading.Event()

    @property
    def buffered(self) -> int:
        """Bytes of accepted entries that the stream has not acknowledged."""
        return self.accepted_bytes - self.account.released_bytes

    def unacknowledged(self, session_id: str) -> list[bytes]:
        """A session's lines that the stream may not have yet."""
        outbox = self._sessions.get(session_id)
        return outbox.unacknowledged() if outbox is not None else []

    def outbox_of(self, session_id: str) -> Outbox | None:
        """The session's outbox, if this process wrote to the session lately."""
        return self._sessions.get(session_id)

    def delivery(self) -> Delivery:
        """What became of everything emitted so far."""
        settled, refused = self.account.settled, self.account.refused
        return Delivery(settled - refused, max(0, self.accepted - settled), self.dropped + refused)

    def close(self) -> None:
        """Accept nothing more."""
        with self._lock:
            self.closed = True
            self._known.clear()  # so that the next emit looks for its outbox, and learns it


def _fill_in(draft: Draft, entry_id: str, timestamp: str) -> bytes:
    draft.id = entry_id
    draft.timestamp = timestamp
    return encode_draft(draft)
