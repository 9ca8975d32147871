"""The journal for sync programs: the async one's reading, on a thread with an event loop of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from streamjournal.client.async_journal import CLOSE_SECONDS, AsyncJournal
from streamjournal.client.base import JournalBase, Tests, Wanted
from streamjournal.client.session import Session
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.entry import Entry
from streamjournal.core.loop_thread import LoopThread
from streamjournal.core.settings import Settings
from streamjournal.emit.receipt import Delivery
from streamjournal.emit.redaction import UserRedaction
from streamjournal.read.results import Read, SyncTail
from streamjournal.read.sessions import SessionList
from streamjournal.read.state import State
from streamjournal.read.verification import Verification

T = TypeVar("T")


class Journal(JournalBase):
    """A journal for sync programs; usable from any thread, also inside async code for emitting.

    With no settings at all it is embedded: a stream in SQLite and journals in files, under
    ~/.streamjournal.

    Args:
        settings: ready-made settings; otherwise they come from `arguments`, then the environment
            (STREAMJOURNAL_…), then defaults. See `core.settings.Settings`.
        redact_with: gets each entry's details, a dict of JSON values without the secrets that were
            recognised, and gives what is to be journaled. If it raises, the details are left out.

    Raises:
        SettingsError: a setting cannot be used.
        NotConfiguredError: a stream is set, but no bucket can be told.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        clock: Clock = SYSTEM,
        redact_with: UserRedaction | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(settings, clock, arguments, redact_with)
        self._async = _Reader(self)
        self._loop = LoopThread("streamjournal-reader")
        self._pid = os.getpid()

    def _reader(self) -> LoopThread:
        if os.getpid() != self._pid:  # a forked child: threads and connections are the parent's
            self._pid = os.getpid()
            self._loop.forget()
            self._async = _Reader(self)
        return self._loop

    def session(self, session_id: str) -> Session:
        """A handle on one session; as a context manager it writes SESSION_START and SESSION_END."""
        return Session(self, session_id)

    def read(
        self,
        session_id: str,
        *,
        last: int | None = None,
        after: str | None = None,
        journal_only: bool = False,
        **tests: Unpack[Tests],
    ) -> Read:
        """The session's journal, and what is not in it yet, each entry once, in order.

        Arguments and errors as for `AsyncJournal.read`.
        """
        loop = self._reader()

        async def begin() -> Read:
            read = self._async.read(session_id, last=last, after=after, journal_only=journal_only, **tests)
            return Read(read, loop)

        return loop.portal().call(begin)

    @contextmanager
    def tail(
        self,
        session_id: str | None = None,
        *,
        history: int | None = 10,
        after: str | None = None,
        follow: bool = True,
        **tests: Unpack[Tests],
    ) -> Iterator[SyncTail]:
        """A session's entries, or all sessions', as they come, after some history.

        Arguments as for `AsyncJournal.tail`. Iterating blocks until the next entry.
        """
        loop = self._reader()
        opened = self._async.tail(session_id, history=history, after=after, follow=follow, **tests)
        with loop.portal().wrap_async_context_manager(opened) as tail:
            yield SyncTail(tail, loop)

    def sessions(self, limit: int | None = None) -> SessionList:
        """The sessions with a summary each, the one written to last first; see `AsyncJournal.sessions`."""
        return self._reader().portal().call(self._async.sessions, limit)

    def latest(self, session_id: str, **wanted: Unpack[Wanted]) -> Entry | None:
        """The session's last entry that is wanted; see `AsyncJournal.latest`."""
        return self._reader().call(lambda: self._async.latest(session_id, **wanted))

    def wait_for(
        self,
        session_id: str,
        *,
        timeout: float | None = None,
        after: str | None = None,
        **wanted: Unpack[Wanted],
    ) -> Entry | None:
        """The session's last entry that is wanted, or else the first one to come; see
        `AsyncJournal.wait_for`.
        """
        return self._reader().call(
            lambda: self._async.wait_for(session_id, timeout=timeout, after=after, **wanted)
        )

    def state(
        self,
        session_id: str,
        reducer: Callable[[T, Entry], T],
        initial: Callable[[], T] = lambda: None,  # type: ignore[assignment,return-value]
    ) -> State[T]:
        """A value folded from the session's entries; see `AsyncJournal.state`. The reducer runs on the
        reader's thread.
        """
        return State(self._async.state(session_id, reducer, initial), self._reader())

    def verify(self, session_id: str) -> Verification:
        """Check a session's journal; see `AsyncJournal.verify`."""
        return self._reader().portal().call(self._async.verify, session_id)

    def flush(self, timeout: float | None = None) -> Delivery:
        """Bring what is pending to the stream, and say what became of everything emitted so far.

        Args:
            timeout: seconds; None waits as long as it takes.
        """
        return self.background.flush(timeout)

    def close(self, timeout: float | None = CLOSE_SECONDS) -> Delivery:
        """Send what is pending for at most `timeout` seconds, and close; the rest stays in the spool."""
        delivery = self.background.close(timeout)
        if os.getpid() == self._pid and self._loop.running:
            self._loop.portal().call(self._async.close_access)
            self._loop.stop()
        return delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Reader(AsyncJournal):
    """An async journal for reading only, that shares the sync journal's emitter."""

    def __init__(self, journal: Journal) -> None:
        self._share(journal)
