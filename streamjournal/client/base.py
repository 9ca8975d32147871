"""What both journals share: the settings, the emitter and its background sender."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from streamjournal import wiring
from streamjournal.client.traced import traced
from streamjournal.core.clock import Clock, parse_timestamp
from streamjournal.core.entry import LEVELS, is_known_level
from streamjournal.core.errors import ClosedJournalError, InvalidEntryError
from streamjournal.core.foreign import Foreign
from streamjournal.core.settings import Settings, load
from streamjournal.emit.background import BackgroundSender
from streamjournal.emit.receipt import Delivery, Receipt
from streamjournal.emit.redaction import UserRedaction
from streamjournal.read.filters import Filter, Where
from streamjournal.read.words import Own
from streamjournal.store.port import Store
from streamjournal.stream.port import Stream

if TYPE_CHECKING:
    from streamjournal.client.session import AsyncSession, Session

F = TypeVar("F", bound=Callable[..., Any])


class Tests(TypedDict, total=False):
    """What an entry must pass to be shown; all of what is given must hold.

    Args:
        event_types: one of these, or just this one.
        tool: this tool name.
        level: at least this severe (DEBUG < INFO < WARNING < ERROR < CRITICAL).
        since, until: timestamp in [since, until); a datetime, or text in ISO 8601 (UTC if it says no zone).
        text: is somewhere in the entry, whatever its case.
        where: a function of the entry that says whether it passes, or what its details must hold:
            `{"run": "r1"}`. Details kept apart because of their size are not looked into.
    """

    event_types: Collection[str] | str | None
    tool: str | None
    level: str | None
    since: datetime | str | None
    until: datetime | str | None
    text: str | None
    where: Where | None


class Wanted(TypedDict, total=False):
    """Which entry is looked for, or waited for.

    Args:
        event_type: one of these, or just this one.
        tool_name: this tool.
        where: as in `Tests`.
    """

    event_type: Collection[str] | str | None
    tool_name: str | None
    where: Where | None


def as_tests(wanted: Wanted) -> Tests:
    """The tests that the wanted entry passes."""
    return {
        "event_types": wanted.get("event_type"),
        "tool": wanted.get("tool_name"),
        "where": wanted.get("where"),
    }


def as_filter(tests: Tests) -> Filter:
    """The filter that the tests make.

    Raises:
        InvalidEntryError: `since` or `until` names no moment, or `level` is not known.
    """
    level = tests.get("level")
    if level is not None and not is_known_level(level):  # it would rank as INFO and hide the slip
        raise InvalidEntryError("level", f"is {level!r}, which is none of {', '.join(LEVELS)}")
    return Filter(
        event_types=tests.get("event_types"),
        tool=tests.get("tool"),
        level=level,
        since=_moment("since", tests.get("since")),
        until=_moment("until", tests.get("until")),
        text=tests.get("text"),
        where=tests.get("where"),
    )


def _moment(name: str, value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else value.isoformat()
    moment = parse_timestamp(text)
    if moment is None:
        raise InvalidEntryError(name, f"names no moment: {value!r}; write it as 2026-11-22T13:12:01Z")
    return moment


class JournalBase(ABC):
    """What both journals share: settings, the emitter and its sender."""

    def __init__(
        self,
        settings: Settings | None,
        clock: Clock,
        arguments: dict[str, Any],
        redact_with: UserRedaction | None = None,
    ) -> None:
        self.settings = settings if settings is not None else load(**arguments)
        self.clock = clock
        self.background = BackgroundSender(
            self.settings, clock, self._open_sender_adapters, wiring.destination(self.settings), redact_with
        )
        self.emit = self.background.emitter.emit  # type: ignore[method-assign]  # one call less, per entry

    def _open_sender_adapters(self) -> tuple[Stream, Store]:
        return wiring.open_stream(self.settings, self.clock), wiring.open_store(self.settings, self.clock)

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
        """Accept an entry, without waiting for anything.

        Once this returns, the entry is in the spool: it survives the death of the process. A thread
        brings it to the stream in the background.

        Args:
            event_type: TOOL_START, TOOL_ERROR, …; 1 to 256 UTF-8 bytes without control characters.
            session_id: the session, 1 to 256 UTF-8 bytes without control characters.
            tool_name: at most 256 UTF-8 bytes.
            details: any JSON object. Values that are no JSON are converted, see `core.jsonable`; what
                is no object becomes `{"value": …}`.
            level: DEBUG, INFO, WARNING, ERROR, CRITICAL, or one of your own.
            span_id, parent_id: the span that the entry belongs to, and that span's parent.
            source: who speaks: `agent`, `sandbox`, `aws`.

        Returns:
            A receipt. Await it, or call its `result(timeout)`, to know that the stream has the entry.

        Raises:
            InvalidEntryError: an argument breaks its bound; nothing was accepted.
            BufferFullError: the buffer is full, and the policy is `raise`.
            ClosedJournalError: after `close`.
        """
        return self.background.emitter.emit(
            event_type,
            session_id=session_id,
            tool_name=tool_name,
            details=details,
            level=level,
            span_id=span_id,
            parent_id=parent_id,
            source=source,
        )

    def emit_line(self, line: bytes, *, session_id: str | None = None, redact: bool = False) -> Receipt:
        """Accept a line that somebody else wrote: JSON of an entry, from an older journal or another tool.

        Its timestamp, its values and its unknown fields stay as they are written; its `id` becomes
        `source_id`, and it gets an id of ours.

        Args:
            line: one JSON object with at least an `event_type`.
            session_id: the session of a line that does not say it.
            redact: take secrets out of its details, as `emit` does.

        Raises:
            InvalidEntryError: it is no such object; nothing was accepted.
            BufferFullError, ClosedJournalError: as for `emit`.
        """
        foreign = Foreign(line, session_id=session_id)
        if redact:
            foreign.change_details(self.background.redaction.clean)
        return self.background.emitter.emit_foreign(foreign)

    @abstractmethod
    def session(self, session_id: str) -> Session | AsyncSession:
        """A handle on one session."""

    @overload
    def traced(self, function: F, /) -> F: ...
    @overload
    def traced(
        self, function: None = None, /, *, tool_name: str | None = None, session_id: str | None = None
    ) -> Callable[[F], F]: ...
    def traced(
        self, function: Any = None, /, *, tool_name: str | None = None, session_id: str | None = None
    ) -> Any:
        """Journal every call of a function: `@journal.traced`, or `@journal.traced(tool_name="eda")`.

        TOOL_START with the arguments by name is on its way before the function runs; TOOL_END with the
        duration and the result, or TOOL_ERROR with the exception, follows. Sync and async functions and
        generators.

        Args:
            tool_name: else the function's own name.
            session_id: the session of calls that are made outside every session; else each such call
                has a session of its own, named after the tool.
        """

        def open_session(name: str) -> Session | AsyncSession:
            return self.session(session_id or f"{name}-{self.clock.draw_id()}")

        def decorate(function: F) -> F:
            return traced(function, open_session, tool_name=tool_name)

        return decorate if function is None else decorate(function)

    @property
    def delivery(self) -> Delivery:
        """What became of the entries emitted so far."""
        return self.background.emitter.delivery()

    def _own(self, session_id: str) -> Own:
        emitter = self.background.emitter
        outbox = emitter.outbox_of(session_id)
        return Own(outbox.position if outbox is not None else None, emitter.unacknowledged(session_id))

    def _check_open(self) -> None:
        if self.background.emitter.closed:
            raise ClosedJournalError
