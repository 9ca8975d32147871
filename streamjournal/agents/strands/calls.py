"""A call as a span (of an agent, a model, a tool, a node), and the calls that are open in an agent."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

from streamjournal.client import AsyncSession, Session
from streamjournal.client.traced import MAX_ARGUMENT_BYTES
from streamjournal.core.jsonable import encode_value
from streamjournal.emit.redaction import bounded_json
from streamjournal.emit.spans import TOOL_END, TOOL_ERROR, Span, at_place, current_place

Kind = Literal["AGENT", "MODEL", "TOOL", "MULTIAGENT", "NODE"]
AnySession = Session | AsyncSession


class Call(Span):
    """A span that says what kind of call it is: AGENT_START, MODEL_END, NODE_ERROR, …

    Entered, it is also the place where the running code is, as `current_session()` sees it. What cannot
    be journaled raises: the hooks log it, at a limited rate.

    Args:
        name: shown as the entries' tool name; what is longer than that may be is cut.
        outer: the call that this one was made in; None for the current one of the same session.
    """

    def __init__(
        self,
        session: AnySession,
        kind: Kind,
        name: str,
        *,
        outer: Span | None = None,
        arguments: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        shown = name.encode("utf-8", "replace")[:256].decode("utf-8", "ignore")
        super().__init__(session, session.journal.clock, shown, arguments, extra)
        self.kind = kind
        self._outer = outer if outer is not None else enclosing(session)
        self._failure: dict[str, str] | None = None
        self._failure_level = "ERROR"
        self._handled = sys.exception()  # whatever is being handled as it begins is no error of its own

    def start(self, parent: Span | None = None) -> None:
        """Emit the start."""
        outer = parent or self._outer
        if outer is None:
            with at_place(self.session, None):  # a span of another session is no parent in this one
                super().start()
        else:
            super().start(outer)

    def fail(self, kind: str, message: str, *, level: str = "ERROR", **details: Any) -> None:
        """End it as a failure that is no exception."""
        if not self.ended:
            self._failure, self._failure_level = {"type": kind, "message": message}, level
            self.note(**details)
            self.end()

    def finish(self, error: BaseException | None) -> None:
        """End it; what is taken down from outside (cancelled, closed) has made no error of its own."""
        if error is None or isinstance(error, Exception):
            self.end(error)
        else:
            text = str(error) or "cancelled from outside"
            self.fail(type(error).__name__, text, level="WARNING", cancelled=True)

    def raised(self) -> BaseException | None:
        """The exception that ends it: Strands tells of an end while the exception is under way."""
        error = sys.exception()
        return None if error is self._handled else error

    def leave(self) -> None:
        """Be where the code was before; the call has ended."""
        if current_place().span is self:
            self.__exit__(None, None, None)

    def _tell(self, event_type: str, details: dict[str, Any], *, level: str = "INFO") -> None:
        if event_type == TOOL_END and self._failure is not None:
            details = {**details, "error": self._failure}
            event_type, level = TOOL_ERROR, self._failure_level
        self._say(self.kind + event_type.removeprefix("TOOL"), details, level=level)


def enclosing(session: AnySession) -> Span | None:
    """The span around the running code, if it is of the same session."""
    place = current_place()
    same = place.session is not None and place.session.session_id == session.session_id
    return place.span if same else None


class Open:
    """What is going on in one agent, or in one multi-agent.

    Args:
        generated: the session that was made up for it, if no other was to be had.
    """

    def __init__(self) -> None:
        self.generated: AnySession | None = None
        self.session: AnySession | None = None  # of its last invocation
        self.invocations: list[Call] = []  # the innermost last
        self.inner: dict[str, Call] = {}  # tool calls by toolUseId, or nodes by id
        self.attempts: Counter[str] = Counter()  # by toolUseId, until no interrupt keeps a call going
        self.asked: dict[str, Mapping[str, Any]] = {}  # the tool uses of the batch under way
        self.model: Call | None = None
        self.cycle: tuple[object, int] = (None, 0)  # a model is called again within a cycle: a retry
        self.usage: Counter[str] = Counter()  # tokens of the invocation

    def begin(self, call: Call) -> None:
        """Begin an invocation."""
        self.session = call.session
        self.invocations.append(call)
        self.usage.clear()
        call.start()

    def interrupt(self) -> None:
        """End what the invocation leaves without an end."""
        for call in list(self.inner.values()):
            call.fail(
                "Interrupted", "no result before the invocation ended", level="WARNING", interrupted=True
            )
            call.leave()
        self.inner.clear()

    @property
    def invocation(self) -> Call | None:
        """The invocation under way."""
        return self.invocations[-1] if self.invocations else None


def arguments_of(value: Any) -> dict[str, Any]:
    """A tool's input by name, each bounded."""
    named: dict[Any, Any] = value if isinstance(value, dict) else {"input": value}
    if len(encode_value(named)) <= MAX_ARGUMENT_BYTES:  # nearly always; as it is, it is encoded once more
        return named
    return {str(name): bounded_json(item, MAX_ARGUMENT_BYTES) for name, item in named.items()}


_BINARY: Final = ("image", "document", "video", "audio")


def result_of(result: Any) -> Any:
    """What a tool gave, as Strands wraps it: alone if it is one text or value, media as what they are."""
    content = result.get("content") if isinstance(result, dict) else result
    if not isinstance(content, list):
        return content
    shown = [_block(block) for block in content]
    return shown[0] if len(shown) == 1 else shown


def text_of(result: Any) -> str:
    """The texts of a tool's result."""
    content = result.get("content") if isinstance(result, dict) else None
    texts = [str(block["text"]) for block in content or () if isinstance(block, dict) and "text" in block]
    return "\n".join(texts)[:4_000] or "the tool says that it failed, and not why"


def _block(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    for name in ("text", "json"):
        if name in block:
            return block[name]
    for name in _BINARY:  # a megabyte of picture in the journal helps nobody
        if isinstance(block.get(name), dict):
            data = (block[name].get("source") or {}).get("bytes")
            size = len(data) if isinstance(data, bytes | bytearray) else None
            return {name: {"format": block[name].get("format"), "bytes": size}}
    return block
