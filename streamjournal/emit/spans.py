"""Spans: a tool's call as TOOL_START, then TOOL_END or TOOL_ERROR, and which call was made inside which.

The start is emitted before the tool runs, so a tool that hangs, or dies with its process, shows. Which
span is the current one travels in a context variable: into coroutines and tasks, and into threads that
are started with a copy of the context (`asyncio.to_thread`, anyio, Strands).

Ids have the form of OpenTelemetry's span ids: 16 hexadecimal digits
(https://www.w3.org/TR/trace-context/#parent-id).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from streamjournal.core.clock import Clock
from streamjournal.core.errors import StreamjournalError
from streamjournal.emit.receipt import Receipt
from streamjournal.emit.redaction import bounded_json, clean_text

_log = logging.getLogger("streamjournal.emit")

TOOL_START: Final = "TOOL_START"
TOOL_END: Final = "TOOL_END"
TOOL_ERROR: Final = "TOOL_ERROR"
MAX_RESULT_BYTES: Final = 16_384  # of a result's JSON; what is longer is shown in part
MAX_TRACEBACK_CHARS: Final = 4_000  # its end is kept, where the error is


class Place(NamedTuple):
    """Where the running code is: in which session, and in which span of it.

    Args:
        session: the handle that the client's code uses; opaque here.
    """

    session: Any
    span: Span | None


_NOWHERE: Final = Place(None, None)
_place: ContextVar[Place] = ContextVar("streamjournal_place", default=_NOWHERE)


def current_place() -> Place:
    """Where the calling code is."""
    return _place.get()


@contextmanager
def at_place(session: Any, span: Span | None) -> Iterator[None]:
    """Be in a session, and in a span of it, for the length of a block."""
    before = _place.get()
    _place.set(Place(session, span))
    try:
        yield
    finally:
        _place.set(before)  # not by a token: a generator may be closed in another context than it ran in


class Span:
    """One call of a tool; a context manager, sync and async alike.

    An exception that leaves the block makes it a TOOL_ERROR, and goes on. What the tool gives is set by
    `result`.

    Args:
        session: the session's handle; its `emit` takes what `Journal.emit` takes but for the session.
        tool_name: at most 256 UTF-8 bytes.
        arguments: the tool's, by name; any JSON values, others are converted.
        extra: further details of the start (`attempt`, say).
    """

    def __init__(
        self,
        session: Any,
        clock: Clock,
        tool_name: str,
        arguments: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.session = session
        self.tool_name = tool_name
        self.id = f"{clock.rng.getrandbits(64):016x}"
        self.parent_id: str | None = None
        self._emit: Callable[..., Receipt] = session.emit
        self._clock = clock
        self._arguments = arguments
        self._extra = dict(extra or {})
        self._result: Any = None
        self._has_result = False
        self._before = _NOWHERE
        self._started = 0.0
        self.ended = False

    def result(self, value: Any) -> None:
        """Say what the tool gives; the end shows it, at most MAX_RESULT_BYTES of JSON."""
        self._result, self._has_result = value, True

    def note(self, **details: Any) -> None:
        """Add details to the entry that will end the span."""
        self._extra.update(details)

    def event(self, event_type: str, *, level: str = "INFO", **details: Any) -> Receipt:
        """Emit an entry that belongs to this span."""
        return self._say(event_type, details, level=level)

    def start(self, parent: Span | None = None) -> None:
        """Emit TOOL_START; `parent`: the span that this one was called in, if it is not the current one."""
        outer = parent or current_place().span
        self.parent_id = outer.id if outer is not None else None
        self._started = self._clock.monotonic()
        details = dict(self._extra)
        if self._arguments is not None:
            details["arguments"] = self._arguments
        self._extra = {}
        self._tell(TOOL_START, details)

    def end(self, error: BaseException | None = None) -> None:
        """Emit TOOL_END, or TOOL_ERROR; the second call of the two does nothing."""
        if self.ended:
            return
        self.ended = True
        details = {"duration_ms": round((self._clock.monotonic() - self._started) * 1000, 3), **self._extra}
        if error is not None:
            self._tell(TOOL_ERROR, {**details, "error": describe_error(error)}, level="ERROR")
            return
        if self._has_result:
            details["result"] = bounded_json(self._result, MAX_RESULT_BYTES)
        self._tell(TOOL_END, details)

    def _tell(self, event_type: str, details: dict[str, Any], *, level: str = "INFO") -> None:
        """Emit the start or the end. A journal that takes nothing must not fail the tool."""
        try:
            self._say(event_type, details, level=level)
        except StreamjournalError as problem:
            _log.warning("%s of %s is not in the journal: %s", event_type, self.tool_name, problem)

    def _say(self, event_type: str, details: dict[str, Any], *, level: str = "INFO") -> Receipt:
        return self._emit(
            event_type,
            tool_name=self.tool_name,
            details=details,
            level=level,
            span_id=self.id,
            parent_id=self.parent_id,
        )

    def __enter__(self) -> Self:
        self.start()
        self._before = _place.get()
        _place.set(Place(self.session, self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _place.set(self._before)
        self.end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def describe_error(error: BaseException) -> dict[str, str]:
    """An exception as details: type, message, and the end of its traceback. Never raises."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # __str__ is the caller's own code
        message = "<its text cannot be had>"
    return {
        "type": type(error).__name__,
        "message": message,
        # cleaned before it is cut: half a key has no form that is known
        "traceback": clean_text("".join(traceback.format_exception(error)))[-MAX_TRACEBACK_CHARS:],
    }
