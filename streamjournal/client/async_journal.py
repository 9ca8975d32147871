"""The journal for async programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import anyio.to_thread
from anyio.lowlevel import EventLoopToken, current_token

from streamjournal import wiring
from streamjournal.client.base import JournalBase, Tests, Wanted, as_filter, as_tests
from streamjournal.client.session import AsyncSession
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.entry import Entry, check_session_id
from streamjournal.core.errors import StreamUnavailableError
from streamjournal.core.settings import Settings
from streamjournal.emit.receipt import Delivery
from streamjournal.emit.redaction import UserRedaction
from streamjournal.read.cursor import Cursor
from streamjournal.read.feed import Feeds
from streamjournal.read.merged import MergedRead
from streamjournal.read.results import AsyncRead, AsyncTail
from streamjournal.read.sessions import HeadCache, SessionList, list_sessions
from streamjournal.read.state import AsyncState
from streamjournal.read.tail import Tail
from streamjournal.read.unflushed import stream_state
from streamjournal.read.verification import Verification, without_journal
from streamjournal.read.verify import is_on_stream, verify_journal
from streamjournal.read.words import Access

T = TypeVar("T")

_OWN_FLUSH_SECONDS = 2.0  # a read waits so long for its own process's entries; later ones it adds itself
CLOSE_SECONDS = 10.0


class AsyncJournal(JournalBase):
    """A journal for async programs (asyncio; embedded also trio).

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
        self._begin_reading()

    def _share(self, journal: JournalBase) -> None:
        """Take over another journal's settings and emitter, instead of making them."""
        self.settings = journal.settings
        self.clock = journal.clock
        self.background = journal.background
        self._begin_reading()

    def _begin_reading(self) -> None:
        self._access: Access | None = None
        self._loop: EventLoopToken | None = None
        self._heads = HeadCache()

    def session(self, session_id: str) -> AsyncSession:
        """A handle on one session; as an async context manager it writes SESSION_START and SESSION_END."""
        return AsyncSession(self, session_id)

    def _reach(self) -> Access:
        """The adapters for reading, of the event loop that asks."""
        self._check_open()
        loop = current_token()
        if self._access is None or self._loop != loop:
            stream = wiring.open_stream(self.settings, self.clock)
            store = wiring.open_store(self.settings, self.clock)
            leases = wiring.open_leases(self.settings)
            self._access = Access(stream, store, leases, Feeds(stream), self.clock)
            self._loop = loop
        return self._access

    def read(
        self,
        session_id: str,
        *,
        last: int | None = None,
        after: str | None = None,
        journal_only: bool = False,
        **tests: Unpack[Tests],
    ) -> AsyncRead:
        """The session's journal, and what is not in it yet, each entry once, in order.

        Args:
            last: only the last so many entries that pass; read from the end.
            after: a cursor; only what follows it.
            journal_only: leave the stream out.
            tests: what an entry must pass, see `Tests`.

        Raises:
            InvalidEntryError: the session id cannot be one.
            CursorError: the cursor is none, or of another session.

        Going through the result raises StoreUnavailableError or NotConfiguredError if the journal
        cannot be read. A stream that cannot be read makes the result incomplete instead.
        """
        check_session_id(session_id)
        access = self._reach()
        merged = MergedRead(
            access,
            session_id,
            as_filter(tests),
            last=last,
            resume=Cursor.parse(after, session_id=session_id) if after else None,
            journal_only=journal_only,
            own=lambda: self._own(session_id),
        )

        async def prepare() -> None:
            if not journal_only:
                await self._send_own(session_id)

        return AsyncRead(merged, access, prepare)

    @asynccontextmanager
    async def tail(
        self,
        session_id: str | None = None,
        *,
        history: int | None = 10,
        after: str | None = None,
        follow: bool = True,
        **tests: Unpack[Tests],
    ) -> AsyncIterator[AsyncTail]:
        """A session's entries, or all sessions', as they come, after some history.

        Args:
            session_id: None for all sessions.
            history: entries to begin with; None for all of the session.
            after: a cursor; begin after it instead.
            follow: False ends after the history.
            tests: what an entry must pass, see `Tests`.
        """
        if session_id is not None:
            check_session_id(session_id)
        access = self._reach()
        tail = Tail(
            access,
            session_id,
            as_filter(tests),
            history=history,
            resume=Cursor.parse(after, session_id=session_id) if after else None,
            follow=follow,
        )
        await self._send_own(session_id)
        async with tail:
            yield AsyncTail(tail, access)

    async def sessions(self, limit: int | None = None) -> SessionList:
        """The sessions with a summary each, the one written to last first.

        Args:
            limit: at most so many.

        Raises:
            StoreUnavailableError, NotConfiguredError: the journals cannot be listed.
        """
        access = self._reach()
        await self._send_own(None)
        return await list_sessions(access, self._heads, limit=limit)

    async def latest(self, session_id: str, **wanted: Unpack[Wanted]) -> Entry | None:
        """The session's last entry that is wanted; None if there is none.

        Args:
            wanted: `event_type`, `tool_name`, `where`; see `Wanted`.

        Raises:
            StreamUnavailableError: the stream cannot be read, so there may be a later one.
            StoreUnavailableError, NotConfiguredError: the journal cannot be read.
        """
        read = self.read(session_id, last=1, **as_tests(wanted))
        found = await read.all()
        for gap in read.missing:
            if gap.what == "stream":
                raise StreamUnavailableError(f"the last entry cannot be told: {gap.why}")
        return found[-1] if found else None

    async def wait_for(
        self,
        session_id: str,
        *,
        timeout: float | None = None,
        after: str | None = None,
        **wanted: Unpack[Wanted],
    ) -> Entry | None:
        """The session's last entry that is wanted, or else the first one to come; None after `timeout`.

        It is woken by the entry's arrival. A stream that does not answer is waited for.

        Args:
            timeout: seconds; None waits as long as it takes.
            after: a cursor; the first one after it, whatever there was before.
            wanted: as for `latest`.

        Raises:
            StoreUnavailableError, NotConfiguredError: the journal cannot be read.
        """
        with anyio.move_on_after(timeout):
            async with self.tail(session_id, history=1, after=after, **as_tests(wanted)) as tail:
                async for entry in tail:
                    return entry
        return None

    def state(
        self,
        session_id: str,
        reducer: Callable[[T, Entry], T],
        initial: Callable[[], T] = lambda: None,  # type: ignore[assignment,return-value]
    ) -> AsyncState[T]:
        """A value folded from the session's entries; each `update()` folds in only what came since.

        Args:
            reducer: gives the next value, from the value so far and an entry.
            initial: makes the value before the first entry; None without it.
        """
        check_session_id(session_id)

        def begin(after: str | None) -> AsyncRead:
            access = self._reach()
            merged = MergedRead(
                access,
                session_id,
                resume=Cursor.parse(after, session_id=session_id) if after else None,
                own=lambda: self._own(session_id)._replace(pending=[]),
            )
            return AsyncRead(merged, access, partial(self._send_own, session_id))

        return AsyncState(begin, reducer, initial)

    async def verify(self, session_id: str) -> Verification:
        """Check a session's journal: every writer's numbers run 1 to n, in order, and all that the journal
        says of itself is so.

        What is on the stream only is not checked, since nothing is missing before it is in the journal.

        Raises:
            InvalidEntryError: the session id cannot be one.
            UnavailableError, NotConfiguredError: the journal, or without a journal the stream, cannot be
                read.
        """
        check_session_id(session_id)
        access = self._reach()
        found = await verify_journal(access.store, session_id)
        if found is not None:
            return found
        await self._send_own(session_id)
        state = await stream_state(access.stream, access.leases)
        found = await verify_journal(access.store, session_id)  # a worker may have come first
        if found is not None:
            return found
        on_stream = bool(self._own(session_id).pending) or await is_on_stream(access, session_id, state)
        return without_journal(session_id, on_stream=on_stream)

    async def _send_own(self, session_id: str | None) -> None:
        """Have what this process wrote (to a session, or at all) on the stream before that is read."""
        if self._own(session_id).pending if session_id is not None else self.delivery.pending:
            await self.flush(_OWN_FLUSH_SECONDS)

    async def flush(self, timeout: float | None = None) -> Delivery:
        """Bring what is pending to the stream, and say what became of everything emitted so far.

        Args:
            timeout: seconds; None waits as long as it takes.
        """
        return await anyio.to_thread.run_sync(self.background.flush, timeout, abandon_on_cancel=True)

    async def close(self, timeout: float | None = CLOSE_SECONDS) -> Delivery:
        """Send what is pending for at most `timeout` seconds, and close; the rest stays in the spool."""
        delivery = await anyio.to_thread.run_sync(self.background.close, timeout)
        await self.close_access()
        return delivery

    async def close_access(self) -> None:
        """Free what reading has opened on this event loop."""
        if self._access is not None and self._loop == current_token():
            await self._access.feeds.aclose()
            await self._access.stream.aclose()
            await self._access.store.aclose()
            await self._access.leases.aclose()
            self._access = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()
