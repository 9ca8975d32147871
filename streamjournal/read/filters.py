"""Which entries to show: decided per line, as early and as cheaply as each test allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from streamjournal.core.clock import parse_timestamp
from streamjournal.core.entry import Entry, Envelope, decode_entry, envelope_of, level_rank
from streamjournal.core.errors import InvalidEntryError

Where = Callable[[Entry], object] | Mapping[str, Any]


class Filter:
    """Tests of a line; all of them must hold.

    Args:
        event_types: any of these.
        tool: this tool name.
        level: at least this severe (DEBUG < INFO < WARNING < ERROR < CRITICAL).
        since, until: the timestamp lies in [since, until); an entry whose timestamp names no moment
            passes neither.
        text: is in the line, whatever its case; in a value as well as in a field's name.
        where: a function of the entry, or what its details must hold. Details that are kept apart
            because of their size are seen as the pointer that stands in their place.

    Attributes:
        passes_all: whether it tests nothing.
    """

    def __init__(
        self,
        *,
        event_types: Collection[str] | str | None = None,
        tool: str | None = None,
        level: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        where: Where | None = None,
    ) -> None:
        if isinstance(event_types, str):
            event_types = (event_types,)
        self._event_types = frozenset(event_types) if event_types else None
        self._tool = tool
        self._rank = level_rank(level) if level else None
        self._since = since
        self._until = until
        # As JSON writes it, so that quotes and line breaks in it are found in the line as it stands.
        self._text = json.dumps(text, ensure_ascii=False)[1:-1].lower().encode() if text else None
        self._plain_text = text.lower() if text else ""
        self._where = _predicate(where) if where is not None else None
        tests = (self._event_types, tool, self._rank, since, until, self._text, where)
        self.passes_all = all(test is None for test in tests)

    def __call__(self, line: bytes) -> bool:
        """Whether the line passes; one that is no entry passes only if there is nothing to test."""
        if self.passes_all:
            return True
        if self._text is not None and not self._has_text(line):
            return False
        envelope = envelope_of(line)
        if envelope is None or not self._passes(envelope):
            return False
        if self._where is None:
            return True
        try:
            entry = decode_entry(line)
        except InvalidEntryError:
            return True  # whoever decodes it next says what is wrong with it; here it would not be told
        return bool(self._where(entry))

    def _passes(self, envelope: Envelope) -> bool:
        if self._event_types is not None and envelope.event_type not in self._event_types:
            return False
        if self._tool is not None and envelope.tool_name != self._tool:
            return False
        if self._rank is not None and level_rank(envelope.level) < self._rank:
            return False
        return (self._since is None and self._until is None) or self._in_time(envelope.timestamp)

    def _in_time(self, timestamp: str) -> bool:
        moment = parse_timestamp(timestamp)
        if moment is None or (self._since is not None and moment < self._since):
            return False
        return self._until is None or moment < self._until

    def _has_text(self, line: bytes) -> bool:
        assert self._text is not None
        folded = line.lower() if line.isascii() else line.decode("utf-8", "replace").lower().encode()
        if self._text in folded:
            return True
        # Foreign lines may write letters as \u00e9: only then is the line decoded to look again.
        if b"\\u" not in line:
            return False
        try:
            return self._plain_text in json.dumps(json.loads(line), ensure_ascii=False).lower()
        except (ValueError, RecursionError):
            return False


def _predicate(where: Where) -> Callable[[Entry], object]:
    if callable(where):
        return where
    if not isinstance(where, Mapping):
        raise InvalidEntryError("where", f"must be a function of the entry, or a mapping; not {where!r}")
    wanted = dict(where)

    def holds(entry: Entry) -> bool:
        details = entry.details
        return isinstance(details, dict) and all(
            name in details and details[name] == value for name, value in wanted.items()
        )

    return holds


EVERYTHING = Filter()
