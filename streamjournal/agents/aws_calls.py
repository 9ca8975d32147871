"""AWS calls as entries: every call of an instrumented boto3, botocore or aiobotocore session is an AWS_CALL.

By botocore's own events, so nothing is patched: `before-call`, then `after-call` with the answer, or
`after-call-error` when there was none
(https://boto3.amazonaws.com/v1/documentation/api/latest/guide/events.html). Sync and async clients
send the same events. What a call was given and what it gave is not looked at: it may be anybody's data.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from streamjournal.client.base import JournalBase
from streamjournal.core.entry import check_session_id
from streamjournal.emit.spans import Place, current_place

_log = logging.getLogger("streamjournal.agents")

AWS_CALL: Final = "AWS_CALL"


def instrument_boto(
    session: Any,
    journal: JournalBase,
    *,
    session_id: str | None = None,
    sample: float = 1.0,
    ignore: str | Iterable[str] = (),
) -> Callable[[], None]:
    """Journal the AWS calls of all clients that a session makes from now on, or of one client.

    A call belongs to the session that the calling code runs in, and to the tool's call that it is in.
    Outside of every session nothing is written, unless `session_id` names one. Each call is written
    once for a journal, however often its session was instrumented; the last time counts.

    Args:
        session: of boto3, botocore or aiobotocore; or a client of one, for a client that was made
            before: its session does not reach it any more.
        journal: a `Journal` or an `AsyncJournal`.
        session_id: the session of every call, whatever the calling code runs in.
        sample: the share of the successful calls to write, 0 to 1. Failed ones are always written.
        ignore: services (`sts`), or operations of one (`s3.HeadObject`), that are not written.

    Returns:
        What ends it, for clients that were made meanwhile, too.

    Raises:
        TypeError: `session` is neither a session nor a client.
        ValueError: `sample` is not between 0 and 1, or (InvalidEntryError) the session id cannot be one.
    """
    if not 0.0 <= sample <= 1.0:
        raise ValueError(f"sample is {sample}; it is a share, between 0 and 1")
    if session_id is not None:
        check_session_id(session_id)
    calls = _Calls(journal, session_id, sample, ignore)
    calls.listen_to(_events_of(session))
    return calls.stop


def _events_of(session: Any) -> Any:
    """The emitter of a session's or a client's events."""
    for owner in (session, getattr(session, "meta", None)):
        events = getattr(owner, "events", None)  # a boto3 session; a client has them in its `meta`
        if hasattr(events, "register_first"):
            return events
    if hasattr(session, "get_component"):  # a botocore or aiobotocore session
        return session.get_component("event_emitter")
    client = getattr(getattr(session, "meta", None), "client", None)
    if client is not None:  # a boto3 resource
        return client.meta.events
    raise TypeError(f"{type(session).__name__} is no session or client of boto3, botocore or aiobotocore")


class _Call(NamedTuple):
    """A call under way.

    Args:
        place: where the code is that made it.
        started: seconds of the monotonic clock.
        headers: of the request; they are complete once it was sent.
    """

    owner: _Calls
    place: Place
    service: str
    operation: str
    method: str
    started: float
    size: int | None
    headers: Mapping[str, Any]


class _Calls:
    """The handlers of the events. They raise nothing, and give nothing: that would be taken for an answer."""

    def __init__(
        self, journal: JournalBase, session_id: str | None, sample: float, ignore: str | Iterable[str]
    ) -> None:
        self._journal = journal
        self._session_id = session_id
        self._sample = sample
        self._ignored = {_plain(one) for one in ([ignore] if isinstance(ignore, str) else ignore)}
        self._key = (
            f"streamjournal-{id(journal)}"  # in a call's context, which the SDK hands from event to event
        )
        self._active = True
        self._failed = False
        self._stop: Callable[[], None]

    def listen_to(self, events: Any) -> None:
        """Be told of the calls: first, since a handler that answers a call keeps it from those after it."""
        handlers = (
            ("before-call.*.*", self._begins),  # of all names that match, the SDK takes this one first
            ("after-call", self._answered),
            ("after-call-error", self._not_answered),
        )
        for name, handler in handlers:
            events.register_first(name, handler)

        def unregister() -> None:
            for name, handler in handlers:
                events.unregister(name, handler)

        self._stop = unregister

    def stop(self) -> None:
        """Write no more. Clients copied the handlers when they were made, so these are turned off, too."""
        if self._active:
            self._active = False
            self._stop()

    def _begins(self, model: Any = None, params: Any = None, context: Any = None, **_: Any) -> None:
        try:
            if not self._active:
                return
            service, operation = model.service_model.service_name, model.name
            if _plain(service) in self._ignored or _plain(f"{service}.{operation}") in self._ignored:
                context[self._key] = None  # also if this journal listened here before, and wants it
                return
            context[self._key] = _Call(
                self,
                current_place(),
                service,
                operation,
                model.http.get("method", ""),
                self._journal.clock.monotonic(),
                _size_of(params.get("body")),
                params.get("headers", {}),
            )
        except Exception as problem:  # noqa: BLE001  # the call is the user's, and goes on
            self._note(problem)

    def _answered(self, http_response: Any = None, parsed: Any = None, context: Any = None, **_: Any) -> None:
        try:
            call = self._end_of(context)
            if call is None:
                return
            status = http_response.status_code
            answer = parsed if isinstance(parsed, Mapping) else {}
            code = None
            if status >= 300:  # what the SDK raises as an error
                code = (
                    context.get("error_code_override") or answer.get("Error", {}).get("Code") or str(status)
                )
            received = None if call.method == "HEAD" else _number(http_response.headers.get("content-length"))
            self._write(
                call,
                context,
                status=status,
                error_code=code,
                request_id=answer.get("ResponseMetadata", {}).get("RequestId"),
                bytes_received=received,
            )
        except Exception as problem:  # noqa: BLE001  # the call is the user's, and goes on
            self._note(problem)

    def _not_answered(self, exception: Any = None, context: Any = None, **_: Any) -> None:
        try:
            call = self._end_of(context)
            if call is not None:
                # Without its text: that names the URL, with bucket and key in it.
                self._write(call, context, error_code=type(exception).__name__)
        except Exception as problem:  # noqa: BLE001  # the call is the user's, and goes on
            self._note(problem)

    def _end_of(self, context: Any) -> _Call | None:
        """The call that ends, if it is ours to write."""
        call: _Call | None = context.get(self._key)
        if call is None or call.owner is not self or not self._active:
            return None
        context[self._key] = None  # a handler of somebody else may send an event twice
        return call

    def _write(
        self,
        call: _Call,
        context: Any,
        *,
        error_code: str | None,
        status: int | None = None,
        request_id: str | None = None,
        bytes_received: int | None = None,
    ) -> None:
        session, span = call.place
        session_id = self._session_id or (session.session_id if session is not None else None)
        if session_id is None:
            return
        clock = self._journal.clock
        if error_code is None and self._sample < 1.0 and clock.rng.random() >= self._sample:
            return
        if session is None or session.session_id != session_id:
            span = None
        sent = call.size if call.size is not None else _size_told(call.headers)
        details = {
            "service": call.service,
            "operation": call.operation,
            "region": context.get("client_region"),
            "duration_ms": round((clock.monotonic() - call.started) * 1000, 3),
            "retries": context.get("retries", {}).get("attempt", 1) - 1,
            "status": status,
            "error_code": error_code,
            "request_id": request_id,
            "bytes_sent": sent,
            "bytes_received": bytes_received,
            "sample": self._sample if error_code is None and self._sample < 1.0 else None,
        }
        self._journal.emit(
            AWS_CALL,
            session_id=session_id,
            tool_name=span.tool_name if span is not None else None,
            details={name: value for name, value in details.items() if value is not None},
            level=_level(status, error_code),
            span_id=span.id if span is not None else None,
            parent_id=span.parent_id if span is not None else None,
            source="aws",
        )

    def _note(self, problem: Exception) -> None:
        """Say that calls are not journaled: once, since the next call fails alike."""
        level = logging.DEBUG if self._failed else logging.WARNING
        self._failed = True
        _log.log(level, "an AWS call is not in the journal: %s: %s", type(problem).__name__, problem)


def _level(status: int | None, error_code: str | None) -> str:
    """ERROR if the service failed; that it refused is often expected, as when a file is looked for."""
    if error_code is None:
        return "INFO"
    return "ERROR" if status is None or status >= 500 else "WARNING"


def _plain(name: str) -> str:
    """A name without the differences between `GetObject` and `get_object`."""
    return name.lower().replace("_", "")


def _size_of(body: Any) -> int | None:
    """Bytes of a request's body; None if that cannot be told without reading it."""
    if body is None:
        return 0
    if isinstance(body, str):
        return len(body.encode())
    if isinstance(body, Mapping):  # of the older protocols; the SDK encodes it later
        return len(urlencode(body, doseq=True))
    if isinstance(body, bytes | bytearray | memoryview):
        return memoryview(body).nbytes
    if isinstance(body, io.IOBase) and body.seekable():
        place = body.tell()
        end = body.seek(0, io.SEEK_END)
        body.seek(place)
        return end - place
    return None


def _size_told(headers: Mapping[str, Any]) -> int | None:
    """The body's size as the SDK or the caller has told it; the first one is of a body sent in chunks."""
    for name in ("X-Amz-Decoded-Content-Length", "Content-Length"):
        size = _number(headers.get(name))
        if size is not None:
            return size
    return None


def _number(text: Any) -> int | None:
    text = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
    return int(text) if text.isascii() and text.isdecimal() else None
