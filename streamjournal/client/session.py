"""A handle on one session, so that its id need not be passed along."""

from __future__ import annotations

import traceback
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from streamjournal.client.base import JournalBase, Tests
from streamjournal.core.entry import SESSION_END, SESSION_START, check_session_id
from streamjournal.emit.receipt import Receipt

if TYPE_CHECKING:
    from streamjournal.client.async_journal import AsyncJournal
    from streamjournal.client.journal import Journal
    from streamjournal.read.results import AsyncRead, AsyncTail, Read, SyncTail


class _SessionBase:
    journal: JournalBase

    def __init__(self, journal: JournalBase, session_id: str) -> None:
        self.journal = journal
        self.session_id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r})"

    def emit(
        self,
        event_type: str,
        *,
        tool_name: str | None = None,
        details: Any = None,
        level: str = "INFO",
        span_id: str | None = None,
        parent_id: str | None = None,
    ) -> Receipt:
        """Accept an entry of this session; see `Journal.emit`."""
        return self.journal.emit(
            event_type,
            session_id=self.session_id,
            tool_name=tool_name,
            details=details,
            level=level,
            span_id=span_id,
            parent_id=parent_id,
        )

    def _start(self) -> None:
        self.emit(SESSION_START)

    def _end(self, error: BaseException | None) -> None:
        """SESSION_END; its id's number is the count of this writer's entries, so a lost tail shows."""
        if error is None:
            self.emit(SESSION_END, details={"status": "ok"})
            return
        details = {
            "status": "error",
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error))[-4_000:],
            },
        }
        self.emit(SESSION_END, details=details, level="ERROR")


class Session(_SessionBase):
    """One session of a `Journal`; as a context manager it writes SESSION_START and SESSION_END.

    An exception that leaves the block makes it a failed session, and goes on.
    """

    journal: Journal

    def read(
        self,
        *,
        last: int | None = None,
        after: str | None = None,
        journal_only: bool = False,
        **tests: Unpack[Tests],
    ) -> Read:
        """The session's entries; see `Journal.read`."""
        return self.journal.read(self.session_id, last=last, after=after, journal_only=journal_only, **tests)

    def tail(
        self,
        *,
        history: int | None = 10,
        after: str | None = None,
        follow: bool = True,
        **tests: Unpack[Tests],
    ) -> AbstractContextManager[SyncTail]:
        """The session's entries as they come; see `Journal.tail`."""
        return self.journal.tail(self.session_id, history=history, after=after, follow=follow, **tests)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)


class AsyncSession(_SessionBase):
    """One session of an `AsyncJournal`; as an async context manager it writes SESSION_START and _END."""

    journal: AsyncJournal

    def read(
        self,
        *,
        last: int | None = None,
        after: str | None = None,
        journal_only: bool = False,
        **tests: Unpack[Tests],
    ) -> AsyncRead:
        """The session's entries; see `AsyncJournal.read`."""
        return self.journal.read(self.session_id, last=last, after=after, journal_only=journal_only, **tests)

    def tail(
        self,
        *,
        history: int | None = 10,
        after: str | None = None,
        follow: bool = True,
        **tests: Unpack[Tests],
    ) -> AbstractAsyncContextManager[AsyncTail]:
        """The session's entries as they come; see `AsyncJournal.tail`."""
        return self.journal.tail(self.session_id, history=history, after=after, follow=follow, **tests)

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)
