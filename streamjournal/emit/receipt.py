"""The receipt: what `emit` returns, and at the same time the entry's place in the queue.

One object per entry instead of two: making objects is most of what an emit costs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
import msgspec

from streamjournal.core.errors import StreamjournalError
from streamjournal.core.threads import notifier

if TYPE_CHECKING:
    from streamjournal.core.position import Position
    from streamjournal.emit.outbox import Outbox
    from streamjournal.emit.spool import Segment


# id() of a receipt -> who waits for it. Beside the receipts, since few are ever waited for.
_waiters: Final[dict[int, list[Callable[[], None]]]] = {}
os.register_at_fork(after_in_child=_waiters.clear)  # they are the parent's threads and event loops


class Delivery(NamedTuple):
    """What became of the entries of one journal object so far.

    Args:
        acknowledged: the stream has them.
        pending: accepted, in memory and (if the spool works) in the spool, not acknowledged yet.
        dropped: refused by the overflow policy, or parked as dead letters; not in the stream.
    """

    acknowledged: int
    pending: int
    dropped: int


class Receipt(msgspec.Struct, eq=False, gc=False):
    """One emitted entry, until and after the stream has it. Await it, or call `result`.

    Args:
        outbox: of the entry's session.
        n: the entry's number; 0 if it was dropped.
        line: its bytes; None once they are not needed any more.
        serial: its place among all entries of this emitter, 1, 2, 3, …; 0 if it has none (yet).
        segment, offset: its frame in the spool; None if it is in memory only.
        position: where in the stream it is, once acknowledged.
        error: why it will never be acknowledged.
    """

    outbox: Outbox
    n: int
    line: bytes | None
    serial: int
    segment: Segment | None = None
    offset: int = 0
    position: Position | None = None
    error: StreamjournalError | None = None

    @property
    def id(self) -> str | None:
        """The entry's id, None if it was dropped."""
        return f"{self.outbox.prefix}{self.n}" if self.n else None

    @property
    def done(self) -> bool:
        """Whether it is known what became of the entry."""
        return self.position is not None or self.error is not None

    def result(self, timeout: float | None = None) -> Position:
        """Wait until the stream has the entry.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            Where the entry is in the stream.

        Raises:
            TimeoutError: not acknowledged yet; it stays pending, nothing is lost.
            EntryDroppedError, EntryRefusedError: it never will be.
        """
        if not self.done:
            event = threading.Event()
            with self._notifying(event.set):
                self.outbox.hurry()
                event.wait(timeout)
            if not self.done:
                raise TimeoutError(f"entry {self.id} was not acknowledged within {timeout} s; it is pending")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Position]:
        return self._async_result().__await__()

    async def _async_result(self) -> Position:
        if not self.done:
            event = anyio.Event()
            with self._notifying(notifier(event)):
                self.outbox.hurry()
                await event.wait()
        return self._outcome()

    @contextmanager
    def _notifying(self, notify: Callable[[], None]) -> Iterator[None]:
        """Have `notify` called at the outcome, even if that comes at this very moment."""
        waiting = _waiters.setdefault(id(self), [])  # atomic, so that two threads find the same list
        waiting.append(notify)
        try:
            if self.done:  # it came before the line above; being told twice does no harm
                notify()
            yield
        finally:
            waiting.remove(notify)
            if self.done:
                _waiters.pop(id(self), None)

    def _outcome(self) -> Position:
        if self.error is not None:
            raise self.error
        assert self.position is not None
        return self.position

    def settle(self, position: Position | None, error: StreamjournalError | None = None) -> None:
        """Record the outcome and tell whoever waits. Called once, by the sender."""
        self.line = None
        self.position = position
        self.error = error
        if _waiters:
            for notify in _waiters.pop(id(self), []).copy():
                notify()
