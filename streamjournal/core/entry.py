"""The entry: one JSON object, one line of a journal.

The six fields `timestamp, session_id, event_type, tool_name, level, details` are the contract with
journals that exist already; all else is additive and left out when empty. A line is kept as the
bytes that it came as, so what this version does not know survives it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from streamjournal.core.clock import format_timestamp
from streamjournal.core.errors import InvalidEntryError

MAX_SESSION_ID_BYTES: Final = 256  # a Kinesis partition key's bound is 256 characters
MAX_NAME_BYTES: Final = 256
MAX_LEVEL_BYTES: Final = 32
MAX_TIMESTAMP_BYTES: Final = 64

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_RANKS: Final = {"TRACE": 0, "WARN": 2, "FATAL": 4} | {name: i for i, name in enumerate(LEVELS)}

SESSION_START: Final = "SESSION_START"
SESSION_END: Final = "SESSION_END"
ENTRIES_DROPPED: Final = "ENTRIES_DROPPED"
ENTRIES_TRIMMED: Final = "ENTRIES_TRIMMED"
JOURNAL_RESTARTED: Final = "JOURNAL_RESTARTED"

_WRITER: Final = re.compile(r"[0-9a-z]{10}")
_MAX_DIGITS: Final = 18  # of a number; so it fits 64 bits
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Draft(msgspec.Struct, omit_defaults=True, gc=False):
    """An entry on its way out; the order of the fields is the order in the line.

    `tool_name`, `level` and `details` have no defaults because the contract always writes them.
    """

    id: str
    timestamp: str
    session_id: str
    event_type: str
    tool_name: str | None
    level: str
    details: Any
    span_id: str | None = None
    parent_id: str | None = None
    source: str | None = None
    source_id: Any = None


class Envelope(msgspec.Struct, gc=False):
    """What the pipeline needs to know of a line, decoded without building its details."""

    id: str = ""
    timestamp: str = ""
    session_id: str = ""
    event_type: str = ""
    tool_name: str | None = None
    level: str = "INFO"


class Entry(msgspec.Struct, kw_only=True):
    """An entry as a reader gets it.

    Args:
        line: the line as it stands in the journal, without its newline; unknown fields are in it.
        details: the decoded JSON object.
        said: what the line itself says of the details; None if it leaves a field of the contract out.
        id: `writer-n`, or `shard:sequence:index`; None in lines older than ids.
    """

    line: bytes
    timestamp: str
    session_id: str
    event_type: str
    tool_name: str | None
    level: str
    details: Any
    id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    source: str | None = None
    source_id: Any = None
    said: Any = None

    def json_line(self) -> bytes:
        """The entry as one line of JSON: as it stands in the journal, unless that leaves something out."""
        if self.said is not None and self.said is self.details:  # not a blob's, which are resolved
            return self.line
        return msgspec.json.encode(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All of the entry's fields, unknown ones included, with what older lines leave out."""
        fields: dict[str, Any] = msgspec.json.decode(self.line)
        fields.setdefault("session_id", self.session_id)
        fields.setdefault("level", self.level)
        fields["details"] = self.details  # a blob that was resolved stands here, not in the line
        return fields


_CONTRACT: Final = frozenset({"session_id", "level", "details"})  # what older lines may leave out
_encoder: Final = msgspec.json.Encoder()
_envelope_decoder: Final = msgspec.json.Decoder(Envelope)
#: What decoding a line can raise; the last two for text that is not UTF-8, and for too deep nesting.
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
encode_draft: Final = _encoder.encode
decode_envelope: Final = _envelope_decoder.decode


def envelope_of(line: bytes) -> Envelope | None:
    """The envelope of any line that a journal may have, older tools' included; None if it is no entry."""
    try:
        return decode_envelope(line)
    except UNDECODABLE:
        pass  # a field of another type than ours, as older lines have it, or no entry at all
    try:
        entry = decode_entry(line)
    except InvalidEntryError:
        return None
    return Envelope(
        entry.id or "", entry.timestamp, entry.session_id, entry.event_type, entry.tool_name, entry.level
    )


def split_id(entry_id: str) -> tuple[str, int] | None:
    """(writer, n) of an id that a writer of ours gave, or None for any other id."""
    writer, _, number = entry_id.partition("-")
    if not (number.isdecimal() and number.isascii() and number[0] != "0" and len(number) <= _MAX_DIGITS):
        return None
    return (writer, int(number)) if _is_writer(writer) else None


@lru_cache(maxsize=1024)
def _is_writer(text: str) -> bool:
    """Remembered, because many entries in a row have the same writer, and matching costs more."""
    return _WRITER.fullmatch(text) is not None


def is_known_level(level: str) -> bool:
    """Whether a level is one of LEVELS, or a usual other name of one, in any case."""
    return level.upper() in _RANKS


def level_rank(level: str) -> int:
    """How severe a level is; a level that is not known ranks as INFO."""
    return _RANKS.get(level.upper(), 1)


def check_session_id(session_id: object) -> str:
    """`session_id` if it may name a session.

    Raises:
        InvalidEntryError: it is empty, longer than 256 UTF-8 bytes, no text, or holds control characters.
    """
    return _check_text("session_id", session_id, MAX_SESSION_ID_BYTES)


def check_event_type(event_type: object) -> str:
    """`event_type` if it is 1 to 256 UTF-8 bytes without control characters."""
    return _check_text("event_type", event_type, MAX_NAME_BYTES)


def check_level(level: object) -> str:
    """`level` if it is 1 to 32 UTF-8 bytes without control characters."""
    return _check_text("level", level, MAX_LEVEL_BYTES)


def check_optional(field: str, value: object) -> str | None:
    """`value` if it is None, empty, or text of at most 256 UTF-8 bytes without control characters."""
    if value is None or (isinstance(value, str) and not value):
        return value
    return _check_text(field, value, MAX_NAME_BYTES)


def check_timestamp(timestamp: object) -> str:
    """`timestamp` if it is text of at most 64 bytes; its form is the writer's own business."""
    return _check_text("timestamp", timestamp, MAX_TIMESTAMP_BYTES)


def _check_text(field: str, value: object, bound: int) -> str:
    if not isinstance(value, str):
        problem = "is missing" if value is None else f"must be text, not {type(value).__name__}"
        raise InvalidEntryError(field, problem)
    if not value:
        raise InvalidEntryError(field, "must not be empty")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidEntryError(field, "holds a lone surrogate, which has no UTF-8 form") from None
    if size > bound:
        raise InvalidEntryError(field, f"is {size} UTF-8 bytes long; at most {bound} are allowed")
    if control := _CONTROL.search(value):
        raise InvalidEntryError(field, f"holds the control character {control[0]!r}")
    return value if type(value) is str else str.__str__(value)  # the encoder takes exactly str


def decode_entry(line: bytes, *, session_id: str = "") -> Entry:
    """An entry from a journal's line, older lines included.

    Args:
        line: one line, without its newline.
        session_id: the session whose journal the line is from, for lines that do not say it.

    Raises:
        InvalidEntryError: the line is not a JSON object with an event type.
    """
    fields = decode_object(line)
    event_type = fields.get("event_type")
    if not isinstance(event_type, str) or not event_type:
        raise InvalidEntryError("event_type", "is missing")
    tool_name = fields.get("tool_name")
    details = fields.get("details", {})
    return Entry(
        line=line,
        id=_text_or_none(fields.get("id")),
        timestamp=_text_or_none(fields.get("timestamp")) or "",
        session_id=_text_or_none(fields.get("session_id")) or session_id,
        event_type=event_type,
        tool_name=None if tool_name is None else str(tool_name),
        level=_text_or_none(fields.get("level")) or "INFO",
        details=details,
        span_id=_text_or_none(fields.get("span_id")),
        parent_id=_text_or_none(fields.get("parent_id")),
        source=_text_or_none(fields.get("source")),
        source_id=fields.get("source_id"),
        said=details if fields.keys() >= _CONTRACT else None,
    )


def decode_object(line: bytes) -> dict[str, Any]:
    """The JSON object in `line`.

    Raises:
        InvalidEntryError: it is no JSON, or another JSON value than an object.
    """
    try:
        fields = msgspec.json.decode(line)
    except UNDECODABLE as problem:
        raise InvalidEntryError("entry", f"is not JSON: {problem}") from None
    if not isinstance(fields, dict):
        raise InvalidEntryError("entry", f"is a JSON {type(fields).__name__}, not an object")
    return fields


def notice(entry_id: str, session_id: str, event_type: str, time_ns: int, details: dict[str, Any]) -> bytes:
    """A line in which the system itself speaks (`source: journal`, level WARNING)."""
    return encode_draft(
        Draft(
            id=entry_id,
            timestamp=format_timestamp(time_ns),
            session_id=session_id,
            event_type=event_type,
            tool_name=None,
            level="WARNING",
            details=details,
            source="journal",
        )
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
