"""What sandboxed code says of itself, made into entries by rules that are the host's.

The code in a sandbox may be a model's, or anybody's. So the host says which session, tool and span its
entries belong to (`source: sandbox`), when they came, and what they may call themselves: an entry that
poses as the host's own, or as the journal's, is kept as SANDBOX_ENTRY, in the words it was printed in.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from streamjournal.agents.markers import MAX_ENTRIES, MAX_ENTRY_BYTES, Malformed, MarkerParser, Parsed
from streamjournal.core.entry import (
    ENTRIES_DROPPED,
    ENTRIES_TRIMMED,
    JOURNAL_RESTARTED,
    check_event_type,
    check_level,
)
from streamjournal.core.errors import InvalidEntryError, StreamjournalError

if TYPE_CHECKING:
    from streamjournal.client.session import AsyncSession, Session
    from streamjournal.emit.spans import Span

_log = logging.getLogger("streamjournal.agents")

CODE_INTERPRETER_EVENT: Final = "CODE_INTERPRETER_EVENT"  # an entry that does not say what it is
SANDBOX_ENTRY: Final = "SANDBOX_ENTRY"  # one that says to be what only the host may be
SANDBOX_MALFORMED: Final = "SANDBOX_MALFORMED"  # the report on blocks that are no entries
SAID: Final = "$sandbox"  # the key under which details keep what the sandbox said of the envelope
MAX_EXAMPLES: Final = 10  # malformed blocks that the report shows

# What the host and the journal say, and people and alerts go by.
_RESERVED: Final = re.compile(
    rf"(?:TOOL_|SESSION_|SANDBOX_).*|{ENTRIES_DROPPED}|{ENTRIES_TRIMMED}|{JOURNAL_RESTARTED}",
    re.IGNORECASE | re.DOTALL,
)
_BLOB: Final = "$blob"  # in details, it says that they are elsewhere; only the sender may say so


class SandboxOutput:
    """One run's stdout: gives back the output without its entries, and emits them as they come.

    Nothing that the sandbox prints raises. What is no entry is told by one SANDBOX_MALFORMED entry at the
    end of the run, level WARNING: how many blocks, and the reason and start of the first MAX_EXAMPLES.

    Args:
        session: the host's; its entries go there.
        tool_name: the tool that runs the code; else the span's.
        span: the span that the entries belong to.
        nonce, max_entry_bytes, max_entries: as for `MarkerParser`.
    """

    def __init__(
        self,
        session: Session | AsyncSession,
        *,
        tool_name: str | None = None,
        span: Span | None = None,
        nonce: str | None = None,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._parser = MarkerParser(nonce, max_entry_bytes=max_entry_bytes, max_entries=max_entries)
        self._session = session
        self._tool_name = span.tool_name if tool_name is None and span is not None else tool_name
        self._span = span
        self._examples: list[Malformed] = []
        self._reported = False
        self._told_limit = False
        self.entries = 0  # that were emitted
        self.malformed = 0  # blocks that are no entries

    @property
    def holds(self) -> bool:
        """Whether output is held back that may become part of a block."""
        return self._parser.holds

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of stdout; gives what is not part of a block."""
        return self.take(self._parser.feed(chunk))

    def feed_text(self, chunk: str) -> str:
        """Take the next characters of stdout, for output that comes as text."""
        return self.feed(chunk.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def finish(self) -> bytes:
        """Say that the output has ended: gives what was held back, and reports what was malformed."""
        rest = self.take(self._parser.finish())
        if (self.malformed or self._parser.beyond) and not self._reported:
            self._reported = True
            self._emit(SANDBOX_MALFORMED, self._report(), "WARNING", source="agent")
        return rest

    def finish_text(self) -> str:
        """`finish`, for output that comes as text."""
        return self.finish().decode("utf-8", "surrogatepass")

    def take(self, parsed: Parsed) -> bytes:
        """Take what a parser of one's own has found; gives the output."""
        for printed in parsed.entries:
            self._emit(*host_view(printed), source="sandbox")
        self.entries += len(parsed.entries)
        if self._parser.beyond and not self._told_limit:
            self._told_limit = True  # now, since the report comes at the end, which may be hours away
            _log.warning("a sandbox printed more than %d entries; the rest stays in its output", self.entries)
        self.malformed += len(parsed.malformed)
        self._examples += parsed.malformed[: MAX_EXAMPLES - len(self._examples)]
        return parsed.output

    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            "malformed": self.malformed,
            "examples": [example._asdict() for example in self._examples],
        }
        if self._parser.beyond:
            report["beyond_limit"] = self._parser.beyond
        return report

    def _emit(self, event_type: str, details: Any, level: str, *, source: str) -> None:
        """Emit an entry. A journal that takes nothing must not end the run."""
        span = self._span
        try:
            self._session.journal.emit(
                event_type,
                session_id=self._session.session_id,
                tool_name=self._tool_name,
                details=details,
                level=level,
                span_id=span.id if span is not None else None,
                parent_id=span.parent_id if span is not None else None,
                source=source,
            )
        except StreamjournalError as problem:
            _log.warning("%s from a sandbox is not in the journal: %s", event_type, problem)


def host_view(printed: dict[str, Any]) -> tuple[str, Any, str]:
    """(event type, details, level) of an entry that sandboxed code printed.

    The host's clock gives the timestamp, and the host the rest of the envelope. What the code says of
    those (`timestamp`, `tool_name`, fields of its own) is kept in the details, under SAID.
    """
    said = {name: value for name, value in printed.items() if name not in ("event_type", "details", "level")}
    details = printed.get("details")
    details = dict(details) if isinstance(details, dict) and _BLOB not in details else _as_value(details)
    event_type = _checked(check_event_type, printed, "event_type", CODE_INTERPRETER_EVENT, said)
    level = _checked(check_level, printed, "level", "INFO", said)
    if _RESERVED.fullmatch(event_type.strip()):
        return SANDBOX_ENTRY, {"printed": printed}, "WARNING"
    if said:
        before = details.get(SAID)
        details[SAID] = said if before is None else {**said, SAID: before}
    return event_type, details, level


def _as_value(details: Any) -> dict[str, Any]:
    return {} if details is None else {"value": details}


def _checked(check: Any, printed: dict[str, Any], field: str, default: str, said: dict[str, Any]) -> str:
    """A field if it may stand in an envelope; else the default, and the field goes to what was said."""
    if field not in printed:
        return default
    try:
        checked: str = check(printed[field])
    except InvalidEntryError:
        said[field] = printed[field]
        return default
    return checked
