"""A handle on one session, so that its id need not be passed along."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from streamjournal.client.base import JournalBase, Tests, Wanted
from streamjournal.client.jobs import AsyncJob, Job
from streamjournal.core.entry import SESSION_END, SESSION_START, Entry, check_session_id
from streamjournal.core.errors import NoCurrentSessionError
from streamjournal.emit.receipt import Receipt
from streamjournal.emit.spans import Span, at_place, current_place, describe_error

if TYPE_CHECKING:
    from streamjournal.client.async_journal import AsyncJournal
    from streamjournal.client.journal import Journal
    from streamjournal.read.results import AsyncRead, AsyncTail, Read, SyncTail


def current_session() -> Session | AsyncSession:
    """The session that the calling code runs in: of the `with` block, span or traced function around it.

    Raises:
        NoCurrentSessionError: there is none.
    """
    session: Session | AsyncSession | None = current_place().session
    if session is None:
        raise NoCurrentSessionError
    return session


class _SessionBase:
    journal: JournalBase
    _inside: AbstractContextManager[None]

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
        """Accept an entry of this session; see `Journal.emit`. Inside a span it belongs to that span."""
        if span_id is None and parent_id is None:
            session, span = current_place()
            if span is not None and session.session_id == self.session_id:
                span_id, parent_id = span.id, span.parent_id
        return self.journal.emit(
            event_type,
            session_id=self.session_id,
            tool_name=tool_name,
            details=details,
            level=level,
            span_id=span_id,
            parent_id=parent_id,
        )

    def event(self, event_type: str, *, level: str = "INFO", **details: Any) -> Receipt:
        """Emit what the keyword arguments say: `session.event("DATA_LOADED", rows=1000)`.

        Inside a tool's call it belongs to that call, tool name included.
        """
        session, span = current_place()
        if span is not None and session.session_id == self.session_id:
            return span.event(event_type, level=level, **details)
        return self.emit(event_type, details=details, level=level)

    def tool(self, tool_name: str, /, **arguments: Any) -> Span:
        """A tool's call as a context manager, sync and async: TOOL_START, then TOOL_END or TOOL_ERROR.

        Args:
            tool_name: at most 256 UTF-8 bytes.
            arguments: the call's, by name; the start shows them.
        """
        return Span(self, self.journal.clock, tool_name, arguments)

    def _start(self) -> None:
        self.emit(SESSION_START)  # first: a closed journal raises, and leaves the code where it was
        self._inside = at_place(self, None)
        self._inside.__enter__()

    def _end(self, error: BaseException | None) -> None:
        """SESSION_END; its id's number is the count of this writer's entries, so a lost tail shows."""
        self._inside.__exit__(None, None, None)
        if error is None:
            self.emit(SESSION_END, details={"status": "ok"})
        else:
            self.emit(SESSION_END, details={"status": "error", "error": describe_error(error)}, level="ERROR")


class Session(_SessionBase):
    """One session of a `Journal`; as a context manager it writes SESSION_START and SESSION_END.

    An exception that leaves the block makes it a failed session, and goes on.
    """

    journal: Journal

    def job(self, kind: str, name: str, *, resume: bool = False, **details: Any) -> Job:
        """A long job that runs somewhere else: TRAINING_STARTED now, for a `kind` of "training".

        `status` and `finish` of what it gives write TRAINING_STATUS and TRAINING_FINISHED; `watch` polls
        and writes both.

        Args:
            name: the job's own.
            resume: it was started before, so nothing is written now.
            details: further ones of TRAINING_STARTED.
        """
        return Job(self, kind, name, details, resume=resume)

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

    def latest(self, **wanted: Unpack[Wanted]) -> Entry | None:
        """The last entry that is wanted; see `Journal.latest`."""
        return self.journal.latest(self.session_id, **wanted)

    def wait_for(
        self, *, timeout: float | None = None, after: str | None = None, **wanted: Unpack[Wanted]
    ) -> Entry | None:
        """The last entry that is wanted, or else the first one to come; see `Journal.wait_for`."""
        return self.journal.wait_for(self.session_id, timeout=timeout, after=after, **wanted)

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

    def job(self, kind: str, name: str, *, resume: bool = False, **details: Any) -> AsyncJob:
        """A long job that runs somewhere else; see `Session.job`."""
        return AsyncJob(self, kind, name, details, resume=resume)

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

    async def latest(self, **wanted: Unpack[Wanted]) -> Entry | None:
        """The last entry that is wanted; see `AsyncJournal.latest`."""
        return await self.journal.latest(self.session_id, **wanted)

    async def wait_for(
        self, *, timeout: float | None = None, after: str | None = None, **wanted: Unpack[Wanted]
    ) -> Entry | None:
        """The last entry that is wanted, or else the first one to come; see `AsyncJournal.wait_for`."""
        return await self.journal.wait_for(self.session_id, timeout=timeout, after=after, **wanted)

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)
