"""The audit of a journal's lines: each an entry, each writer's numbers 1 to n, and what notices tell of.

It sees every line once, in order, and remembers of them what its writers' numbers and its findings need.
So its memory grows with the writers, the blobs and the damage, and not with the journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from streamjournal.core.entry import (
    ENTRIES_DROPPED,
    ENTRIES_TRIMMED,
    JOURNAL_RESTARTED,
    SESSION_END,
    SESSION_START,
    UNDECODABLE,
    Envelope,
    decode_entry,
    decode_envelope,
    envelope_of,
    split_id,
)
from streamjournal.core.errors import InvalidEntryError
from streamjournal.core.position import Position
from streamjournal.core.summary import Status, Summary, status_after
from streamjournal.read.blobs import blob_pointer, may_have_blob
from streamjournal.read.findings import Findings
from streamjournal.read.writer_audit import Place, WriterAudit

_NOTICES: Final = frozenset((ENTRIES_DROPPED, ENTRIES_TRIMMED, JOURNAL_RESTARTED))
_MARKS: Final = frozenset((SESSION_START, SESSION_END))
_NOBODY: Final = WriterAudit("")


class Audit:
    """The lines of one journal.

    Attributes:
        entries, unnumbered, dropped: see `Verification`.
        writers: by their ids.
        positions: (stream, shard) -> the highest sequence number that a notice names.
        blobs: place, entry id and pointer of each entry whose details are in a blob.
    """

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self.findings = Findings()
        self.writers: dict[str, WriterAudit] = {}
        self.positions: dict[tuple[str, str], int] = {}
        self.blobs: list[tuple[Place, str, dict[str, Any]]] = []
        self.unnumbered = 0
        self.dropped = 0
        self.entries = 0
        self.errors = 0
        self._first = ""
        self._last = ""
        self._status: Status = "running"
        self._line = 0
        self._offset = 0
        self._last_id = ""
        self._current = _NOBODY
        self._next_id: str | None = None  # of the writer whose entry was the last; None for nobody's

    def take(self, lines: Iterable[bytes]) -> None:
        """The next lines, empty ones included."""
        for line in lines:
            self._line += 1
            start = self._offset
            self._offset += len(line) + 1
            if line:
                self._take(line, start)
                if may_have_blob(line):
                    self._note_blob(line, start)

    def _note_blob(self, line: bytes, start: int) -> None:
        try:
            entry = decode_entry(line, session_id=self._session_id)
        except InvalidEntryError:
            return  # told as such already
        pointer = blob_pointer(entry.details)
        if pointer is not None:
            self.blobs.append((Place(self._line, start), entry.id or "", pointer))

    def _take(self, line: bytes, start: int) -> None:  # noqa: C901  # flat, for the sake of its microseconds
        self.entries += 1
        try:
            envelope = decode_envelope(line)
        except UNDECODABLE:
            found = envelope_of(line)
            if found is None:
                self._refuse(line, start)
                return
            envelope = found
        event_type = envelope.event_type
        if envelope.level == "ERROR":
            self.errors += 1
        if envelope.timestamp:
            self._last = envelope.timestamp
            self._first = self._first or self._last
        if event_type in _MARKS:
            self._status = status_after(envelope, line) or self._status
        if not event_type or not (line.isascii() or _is_text(line)):
            self._refuse(line, start)
            return
        if envelope.id == self._next_id:
            self._last_id = ""
            writer = self._current
            writer.highest = n = writer.highest + 1
            writer.entries += 1
            self._next_id = f"{writer.prefix}{n + 1}"
        else:
            self._last_id = envelope.id
            name = split_id(envelope.id)
            if name is None:
                self._take_unnumbered(envelope, line, start)
                return
            writer = self._number(name[0], name[1], Place(self._line, start))
        writer.ended = event_type == SESSION_END
        if event_type == ENTRIES_DROPPED:
            self._note_dropped(line, start)
        if envelope.session_id != self._session_id:
            text = f"belongs to session {envelope.session_id[:80]!r}"
            self.findings.add("other_session", Place(self._line, start), text)

    def _refuse(self, line: bytes, start: int) -> None:
        try:
            decode_entry(line)
            why = "is not UTF-8"
        except InvalidEntryError as problem:
            why = str(problem).removeprefix("entry ")
        self._last_id = ""
        self._next_id = None
        self.findings.add("not_an_entry", Place(self._line, start), f"{line[:60]!r}: {why}")

    def _number(self, writer_id: str, n: int, at: Place) -> WriterAudit:
        """Count a number in that is not simply the next one of the writer before."""
        writer = self.writers.get(writer_id)
        if writer is None:
            writer = self.writers[writer_id] = WriterAudit(writer_id)
        if n == writer.highest + 1:
            writer.highest = n
            writer.entries += 1
        elif n > writer.highest:
            writer.jump(n, at)
        else:
            self.findings.add_number(
                "repeated" if writer.fill(n) is None else "out_of_order", at, writer_id, n, writer.highest
            )
        self._current = writer
        self._next_id = f"{writer.prefix}{writer.highest + 1}"
        return writer

    def _take_unnumbered(self, envelope: Envelope, line: bytes, start: int) -> None:
        self.unnumbered += 1
        self._next_id = None
        if envelope.event_type not in _NOTICES:
            return
        entry = decode_entry(line)
        if entry.source != "journal" or not isinstance(entry.details, dict):
            return
        at = Place(self._line, start)
        self._note_position(entry.details)
        if envelope.event_type == JOURNAL_RESTARTED:
            self._note_restart(entry.details, at)
        elif envelope.event_type == ENTRIES_TRIMMED:
            self._note_trimmed(entry.details, at)

    def _note_position(self, details: dict[str, Any]) -> None:
        try:
            stream, shard, sequence = Position.decode(str(details.get("position")))
        except ValueError:
            return
        known = self.positions.get((stream, shard), 0)
        self.positions[stream, shard] = max(known, int(sequence))

    def _note_restart(self, details: dict[str, Any], at: Place) -> None:
        missing = details.get("missing")
        ranges = [
            (writer, 1, last)
            for writer, last in (missing.items() if isinstance(missing, dict) else ())
            if isinstance(last, int) and last > 0
        ]
        self.findings.add_notice("journal_restarted", at, self._told(ranges, at))

    def _note_trimmed(self, details: dict[str, Any], at: Place) -> None:
        writer, first, last = (details.get(key) for key in ("writer", "first", "last"))
        ranges = []
        if isinstance(writer, str) and isinstance(first, int) and isinstance(last, int) and 0 < first <= last:
            ranges = [(writer, first, last)]
        self.findings.add_notice("entries_trimmed", at, self._told(ranges, at))

    def _told(self, ranges: list[tuple[str, int, int]], at: Place) -> list[tuple[WriterAudit, int, int]]:
        found = []
        for writer_id, first, last in ranges:
            if split_id(f"{writer_id}-{last}") is None:
                continue  # no notice of ours
            writer = self.writers.get(writer_id)
            if writer is None:
                writer = self.writers[writer_id] = WriterAudit(writer_id)
            writer.tell(first, last, at)
            found.append((writer, first, last))
        return found

    def _note_dropped(self, line: bytes, start: int) -> None:
        entry = decode_entry(line)
        count = entry.details.get("count") if isinstance(entry.details, dict) else None
        if entry.source == "journal" and isinstance(count, int):
            self.dropped += count
            self.findings.note_dropped(Place(self._line, start))

    @property
    def summary(self) -> Summary:
        """The summary, counted as every commit counts it."""
        return Summary(self.entries, self.errors, self._first, self._last, self._status)

    @property
    def last_place(self) -> tuple[str, int] | None:
        """Shard and sequence number of the last line, if that is another producer's entry."""
        shard, _, rest = self._last_id.partition(":")
        sequence, colon, index = rest.partition(":")
        if not (shard and colon and _is_number(sequence) and _is_number(index)):
            return None
        return shard, int(sequence)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_text(line: bytes) -> bool:
    """Whether it is UTF-8; the decoder of envelopes skips over details without looking at them."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
