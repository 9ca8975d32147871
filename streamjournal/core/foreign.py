"""Lines that somebody else wrote: plain JSON records on the stream, and imported JSONL.

They become entries by gaining what is missing and nothing else: values that were given stay as
they were written, down to the digits of a number (`msgspec.Raw`). An id of the producer's own
moves to `source_id`, since (session_id, id) must be unique and only our ids are known to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from streamjournal.core.entry import (
    check_event_type,
    check_level,
    check_optional,
    check_session_id,
    check_timestamp,
)
from streamjournal.core.errors import InvalidEntryError
from streamjournal.core.jsonable import to_jsonable

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_ENVELOPE = ("timestamp", "session_id", "event_type", "tool_name", "level", "details")


class Foreign:
    """A foreign line, checked: its envelope decoded, everything else as raw JSON.

    Args:
        line: one JSON object, with or without newlines between its tokens.
        session_id: the session that it belongs to where the line itself does not say.

    Raises:
        InvalidEntryError: not a JSON object, or a field of the envelope breaks its bound.
    """

    __slots__ = ("_fields", "event_type", "session_id", "timestamp")

    def __init__(self, line: bytes, *, session_id: str | None = None) -> None:
        fields = _decode_raw(line)
        given = {name: msgspec.json.decode(fields[name]) for name in _ENVELOPE[:-1] if name in fields}
        own_session = given.get("session_id")
        self.session_id = check_session_id(session_id if own_session is None else own_session)
        self.event_type = check_event_type(given.get("event_type"))
        check_optional("tool_name", given.get("tool_name"))
        if given.get("level") is not None:
            check_level(given["level"])
        else:
            fields.pop("level", None)
        self.timestamp: str | None = given.get("timestamp")
        if self.timestamp is not None:
            check_timestamp(self.timestamp)
        self._fields = fields

    def change_details(self, change: Callable[[msgspec.Raw], msgspec.Raw]) -> None:
        """Put `change(details)` in place of the details, which it gets as a JSON object."""
        details = _as_object(self._fields.get("details"))
        raw = details if isinstance(details, msgspec.Raw) else msgspec.Raw(_encoder.encode(details))
        self._fields["details"] = change(raw)

    def line(self, entry_id: str, *, timestamp: str) -> bytes:
        """The entry's line under the id that it gets, `timestamp` being for a line without one."""
        fields: dict[str, Any] = dict(self._fields)
        own_id = fields.pop("id", None)
        details = fields.pop("details", None)
        line: dict[str, Any] = {
            "id": entry_id,
            "timestamp": _raw(fields.pop("timestamp", None)) or timestamp,
            "session_id": self.session_id,
            "event_type": self.event_type,
            "tool_name": fields.pop("tool_name", None),
            "level": fields.pop("level", "INFO"),
            "details": _as_object(details),
        }
        fields.pop("session_id", None)
        fields.pop("event_type", None)
        line.update(fields)
        if own_id is not None and bytes(own_id) != b"null":
            line["source_id"] = own_id
        encoded = _encoder.encode(line)
        if b"\n" in encoded or b"\r" in encoded:  # raw values bring the producer's own white space
            encoded = msgspec.json.format(encoded, indent=-1)
        return encoded


def _decode_raw(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        msgspec.json.decode(line)  # what a reader could not decode must not get into a journal
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        line = _repair(line)
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError:
        raise InvalidEntryError("entry", "is JSON, but not an object") from None


def _repair(line: bytes) -> bytes:
    """JSON that the standard library reads and msgspec does not: lone surrogates, 1e400, NaN."""
    try:
        return _encoder.encode(to_jsonable(json.loads(line)))
    except (ValueError, RecursionError) as problem:
        raise InvalidEntryError("entry", f"is not JSON: {problem}") from None


def _raw(value: msgspec.Raw | None) -> msgspec.Raw | None:
    return None if value is None or bytes(value) == b"null" else value


def _as_object(details: msgspec.Raw | None) -> Any:
    if details is None or bytes(details) == b"null":
        return {}
    return details if bytes(details)[:1] == b"{" else {"value": details}
