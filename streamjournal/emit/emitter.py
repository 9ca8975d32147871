"""The emitter: from a call in an agent to a line in the spool and in an outbox, in microseconds.

`emit` takes a number, writes the spool and queues in one critical section, so that the numbers, the
spool and the stream have the same order. Re-entry by the same thread (a signal handler, a `__del__`
that the garbage collector runs) finds the section occupied by itself; such an entry is put aside and
accepted by the outer call on its way out. A signal handler may also raise, anywhere (Ctrl-C); then the
entry is either accepted as a whole or not at all, and no number is given twice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from streamjournal.core.clock import Clock, format_second
from streamjournal.core.entry import Draft, check_optional, encode_draft
from streamjournal.core.errors import BufferFullError, ClosedJournalError
from streamjournal.core.foreign import Foreign
from streamjournal.core.jsonable import encode_details, is_encodable
from streamjournal.core.settings import Settings
from streamjournal.emit.incarnation import Incarnation
from streamjournal.emit.line import Line, line_of
from streamjournal.emit.outbox import Account, Outbox
from streamjournal.emit.overflow import Drops, Room
from streamjournal.emit.receipt import Delivery, Receipt
from streamjournal.emit.redaction import Redaction
from streamjournal.emit.sessions import Sessions
from streamjournal.emit.spool import Segment, Spool

_AGENT = "agent"

_MILLIS = [f".{n:03d}" for n in range(1000)]  # formatting six digits takes longer than two lookups
_MICROS = [f"{n:03d}Z" for n in range(1000)]


class Emitter:
    """Accepts entries. Thread-safe, re-entrant, and safe after a fork.

    Args:
        make_spool: gives None to keep entries in memory only.
        wake: tells the sender that an outbox is ready; called at most once per batch, from any thread.
        hurry: tells the sender not to linger.
        forked: what to do in a forked child; it calls `after_fork`.
        redaction: takes secrets out of details.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        make_spool: Callable[[], Spool | None],
        wake: Callable[[], None],
        hurry: Callable[[], None],
        forked: Callable[[], None] | None = None,
        redaction: Redaction | None = None,
    ) -> None:
        self._settings = settings
        self._redaction = redaction
        self._clock = clock
        self._time_ns = clock.time_ns
        self._make_spool = make_spool
        self._wake = wake
        self._hurry = hurry
        self._forked = forked or self.after_fork
        self._bound = settings.buffer_bytes
        self.spool = make_spool()
        self.closed = False
        self._start_over()

    def _start_over(self) -> None:
        """An emitter with no past: a new writer, nothing queued."""
        self._lock = threading.RLock()
        self._inside = False
        self._aside: deque[tuple[Receipt, Line]] = deque()
        self._second_ns = -1_000_000_000  # of no second, so that the first entry begins one
        self._second_text = ""
        self._segment: Segment | None = None  # for the next frame; None makes the next emit go the long way
        self._incarnation = Incarnation(self._clock)
        self.room = Room(self._clock, self._settings.block_timeout, self._hurry)
        self.ready: deque[Outbox] = deque()  # outboxes for the sender to look at
        self.awake = False  # the sender has been told, and has not looked yet
        self.accepted = 0
        self.accepted_bytes = 0
        self.account = Account()
        self._drops = Drops()
        self._sessions = Sessions(self._clock, self.account, self._drops, self._hurry)
        self._known = self._sessions.known

    def emit(  # noqa: C901  # one flat block, for the sake of its microseconds
        self,
        event_type: str,
        *,
        session_id: str,
        tool_name: str | None = None,
        details: Any = None,
        level: str = "INFO",
        span_id: str | None = None,
        parent_id: str | None = None,
        source: str = _AGENT,
    ) -> Receipt:
        """Accept an entry; see `Journal.emit`, which this is."""
        try:
            outbox = self._known[session_id, event_type, tool_name, level]
        except Exception:  # noqa: BLE001  # new, or no text: unhashable, or with a __hash__ that raises
            outbox = self._introduce(session_id, event_type, tool_name, level)
        if span_id is not None or parent_id is not None or source is not _AGENT:
            check_optional("span_id", span_id)
            check_optional("parent_id", parent_id)
            check_optional("source", source)
        redaction = self._redaction
        if details is None:
            details = {}
        elif type(details) is not dict or (redaction is not None and redaction.suspects(details)):
            details = encode_details(details) if redaction is None else redaction.encode(details)
        draft = Draft("", "", session_id, event_type, tool_name, level, details, span_id, parent_id, source)
        receipt = None
        # What is not the ordinary case falls through to _accept, which takes the same steps at leisure.
        with self._lock:
            if not self._inside:
                self._inside = True
                try:
                    micros = (self._time_ns() - self._second_ns) // 1000
                    segment = self._segment
                    if segment is not None and 0 <= micros < 1_000_000 and not outbox.slow:
                        n = outbox.n + 1
                        draft.id = f"{outbox.prefix}{n}"
                        draft.timestamp = (
                            f"{self._second_text}{_MILLIS[micros // 1000]}{_MICROS[micros % 1000]}"
                        )
                        line = encode_draft(draft)
                        size = self.accepted_bytes + len(line)
                        if size - self.account.released_bytes <= self._bound and (
                            redaction is None
                            or type(details) is not dict
                            or not redaction.suspects_text(line)
                        ):
                            serial = self.accepted + 1
                            receipt = Receipt(outbox, n, line, serial, segment, segment.used)
                            if segment.append(line):
                                outbox.n, self.accepted, self.accepted_bytes = n, serial, size
                                outbox.items.append(receipt)
                                if not outbox.ready:
                                    self._make_ready(outbox)
                                return receipt
                except BaseException as problem:
                    if receipt is not None:
                        self._make_whole(receipt)
                        raise
                    if not isinstance(problem, Exception) or is_encodable(draft):
                        raise  # a signal handler's, not the encoder's
                finally:
                    self._inside = False
                    if self._aside:
                        self._accept_aside()
        if redaction is not None and type(details) is dict:
            draft.details = redaction.encode(details)
        return self._accept(outbox, line_of(draft))

    def emit_foreign(self, foreign: Foreign) -> Receipt:
        """Accept a line of somebody else's under an id of ours, keeping what it says as it says it."""
        with self._lock:
            outbox = self._sessions.outbox(foreign.session_id)
        return self._accept(outbox, lambda entry_id, now: foreign.line(entry_id, timestamp=now))

    def _introduce(self, session_id: str, event_type: str, tool_name: str | None, level: str) -> Outbox:
        with self._lock:
            if self.closed:
                raise ClosedJournalError
            return self._sessions.introduce(session_id, event_type, tool_name, level)

    def _accept(self, outbox: Outbox, line: Line) -> Receipt:
        """The critical section, as often as the overflow policy lets it be tried.

        Args:
            line: never raises.
        """
        receipt = Receipt(outbox, 0, None, 0)
        policy = self._settings.overflow
        accepted = self._enter(receipt, line)
        if not accepted and policy == "block":
            accepted = self.room.wait(lambda: self._enter(receipt, line))
        if not accepted:
            self._hurry()
            if policy == "raise":
                raise BufferFullError(self.buffered, self._bound)
            with self._lock:
                self._count_drop(receipt)
        if self.spool is not None:
            self.spool.complain()
        return receipt

    def _enter(self, receipt: Receipt, line: Line) -> bool:
        """Accept an entry, or put it aside; False if the buffer has no room for it."""
        with self._lock:
            if self.closed:
                raise ClosedJournalError
            if self._inside:
                self._segment = None  # the emit that follows goes the long way too, so it comes second
                self._aside.append((receipt, line))
                return True
            self._inside = True
            try:
                self._accept_those_aside()
                return self._accept_alone(receipt, line)
            finally:
                self._inside = False
                if self._aside:
                    self._accept_aside()

    def _accept_aside(self) -> None:
        """Accept what came from inside the critical section, before anybody else gets in."""
        while self._aside:
            self._inside = True
            try:
                self._accept_those_aside()
            finally:
                self._inside = False  # before the last look: what comes after it enters by itself

    def _accept_those_aside(self) -> None:
        while self._aside:
            receipt, line = self._aside[0]
            if not (receipt.serial or receipt.done or self._accept_alone(receipt, line)):
                self._count_drop(receipt)
            self._aside.popleft()  # last: if a signal handler raises before, its entry is known to be in

    def _accept_alone(self, receipt: Receipt, line: Line) -> bool:
        """Number, spool and queue an entry and the notice due before it; False if there is no room."""
        micros = self._micros()
        self._settle_on_outbox(receipt)
        if receipt.outbox.dropped:
            if not self._fit_together(receipt.outbox, line):
                return False  # a notice for each entry that is dropped would take the room of entries
            self._tell_dropped(receipt.outbox, micros)
        return self._add(receipt, line, micros)

    def _fit_together(self, outbox: Outbox, line: Line) -> bool:
        """Whether there is room for an entry and the notice before it."""
        entry_id, timestamp = f"{outbox.prefix}{outbox.n + 2}", f"{self._second_text}.000000Z"
        needed = len(line(entry_id, timestamp)) + len(self._drops.notice(outbox)(entry_id, timestamp))
        return self.buffered + needed <= self._bound

    def _add(self, receipt: Receipt, line: Line, micros: int, *, even_if_full: bool = False) -> bool:
        outbox = receipt.outbox
        n = outbox.n + 1
        encoded = line(f"{outbox.prefix}{n}", f"{self._second_text}.{micros:06d}Z")
        size = self.accepted_bytes + len(encoded)
        if size - self.account.released_bytes > self._bound and not even_if_full:
            return False
        segment = None if self.spool is None else self.spool.segment_for(len(encoded))
        self._segment = segment
        serial = self.accepted + 1
        receipt.n, receipt.line, receipt.serial, receipt.segment = n, encoded, serial, segment
        try:
            if segment is not None:
                receipt.offset = segment.used
                segment.append(encoded)
            outbox.n, self.accepted, self.accepted_bytes = n, serial, size
            outbox.items.append(receipt)
            if not outbox.ready:
                self._make_ready(outbox)
        except BaseException:
            self._make_whole(receipt)
            raise
        return True

    def _make_whole(self, receipt: Receipt) -> None:
        """Something interrupted the acceptance of an entry: undo it, or do the rest."""
        outbox, segment = receipt.outbox, receipt.segment
        if self.accepted < receipt.serial:
            if segment is not None:
                segment.take_back(receipt.offset)
            receipt.n, receipt.line, receipt.serial = 0, None, 0
            return
        if not receipt.done and receipt not in outbox.items.copy():
            outbox.items.append(receipt)
        self._make_ready(outbox, at_once=True)

    def _make_ready(self, outbox: Outbox, *, at_once: bool = False) -> None:
        """Put the outbox before the sender; wake it if it has not been told since it last looked."""
        outbox.ready = True
        self.ready.append(outbox)
        if at_once or not self.awake:
            self.awake = True
            self._wake()

    def _settle_on_outbox(self, receipt: Receipt) -> None:
        """Since it was looked up, the outbox may have been retired, by another thread or just now."""
        if receipt.outbox.retired:
            receipt.outbox = self._sessions.outbox(receipt.outbox.session_id)

    def _count_drop(self, receipt: Receipt) -> None:
        self._settle_on_outbox(receipt)
        self._drops.count(receipt, f"{self._second_text}Z")

    def _tell_dropped(self, outbox: Outbox, micros: int, *, even_if_full: bool = False) -> bool:
        """Journal how many of the session's entries were dropped."""
        count = outbox.dropped
        notice = Receipt(outbox, 0, None, 0)
        told = self._add(notice, self._drops.notice(outbox), micros, even_if_full=even_if_full)
        if told:
            self._drops.told(outbox, count)
        return told

    def tell_all_dropped(self, *, even_if_full: bool = False) -> None:
        """Journal what was dropped and not told of yet, once there is room again."""
        if not self._drops.untold or (self.buffered > self._bound // 2 and not even_if_full):
            return
        with self._lock:
            if self._inside:
                return
            self._inside = True
            try:
                micros = self._micros()
                for outbox in list(self._drops.untold):
                    if not self._tell_dropped(outbox, micros, even_if_full=even_if_full):
                        return
            finally:
                self._inside = False
                if self._aside:
                    self._accept_aside()

    def _micros(self) -> int:
        """Microseconds since the second that has its text ready."""
        ns = self._time_ns()
        if not 0 <= ns - self._second_ns < 1_000_000_000:
            self._begin_second(ns)
        return (ns - self._second_ns) // 1000

    def _begin_second(self, ns: int) -> None:
        """Once a second: the timestamp's first part, and whether this is another process by now."""
        if self._incarnation.was_forked():
            self._forked()
        second = ns // 1_000_000_000
        self._second_ns = second * 1_000_000_000
        self._second_text = format_second(second)
        if self._incarnation.was_restored():
            self._sessions.retire_all()

    def after_fork(self) -> None:
        """In the child: a new writer with a spool, locks and a queue of its own."""
        self._sessions.abandon()
        if self.spool is not None:
            self.spool.abandon_after_fork()
        self._start_over()
        self.spool = self._make_spool()

    @property
    def buffered(self) -> int:
        """Bytes of accepted entries that the stream has not acknowledged."""
        return self.accepted_bytes - self.account.released_bytes

    def unacknowledged(self, session_id: str) -> list[bytes]:
        """A session's lines that the stream may not have yet."""
        outbox = self._sessions.find(session_id)
        return outbox.unacknowledged() if outbox is not None else []

    def outbox_of(self, session_id: str) -> Outbox | None:
        """The session's outbox, if this process wrote to the session lately."""
        return self._sessions.find(session_id)

    def delivery(self) -> Delivery:
        """What became of everything emitted so far."""
        settled, refused = self.account.settled, self.account.refused
        return Delivery(settled - refused, max(0, self.accepted - settled), self._drops.total + refused)

    def leave_spool(self) -> None:
        """Give the spool up, once nobody sends from it; what is emitted after this begins another.

        Not if a signal handler that interrupted an emit asks for it: that emit goes on afterwards, and
        its entry is left to recovery.
        """
        with self._lock:
            if self.spool is not None and not self._inside:
                self._segment = None
                self.spool.close()

    def close(self) -> None:
        """Accept nothing more; say what was dropped, even beyond the buffer's bound."""
        with self._lock:
            self.tell_all_dropped(even_if_full=True)
            self.closed = True
            self._segment = None  # so that every emit goes the long way, and learns it there
