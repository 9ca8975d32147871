"""The journals as they grow, checked at every commit against the ledger."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streamjournal.core.entry import (
    ENTRIES_TRIMMED,
    JOURNAL_RESTARTED,
    SESSION_END,
    SESSION_START,
    Envelope,
    decode_envelope,
    split_id,
)
from streamjournal.core.position import Position
from streamjournal.store.memory import Version
from streamjournal.store.meta import Meta
from tests.sim.ledger import Ledger, Name
from tests.sim.trace import Trace


@dataclass
class Chain:
    """One journal, from its first version to its last or its deletion; counted anew, by other code than
    the pipeline's.
    """

    session: str
    body: bytes = b""
    ids: dict[str, None] = field(default_factory=dict)
    numbers: dict[str, set[int]] = field(default_factory=dict)
    entries: int = 0
    errors: int = 0
    first: str = ""
    last: str = ""
    status: str = "running"
    position: Position | None = None


class Journals:
    """Every journal that there is now."""

    def __init__(self, ledger: Ledger, trace: Trace) -> None:
        self._ledger = ledger
        self._trace = trace
        self.chains: dict[str, Chain] = {}

    def has(self, name: Name) -> bool:
        """Whether the entry is in its session's journal."""
        chain = self.chains.get(name.session)
        return chain is not None and name.id in chain.ids

    def deleted(self, session: str) -> None:
        """An operator deleted a journal, with all that is in it."""
        chain = self.chains.pop(session)
        self._ledger.deleted |= {Name(session, entry_id) for entry_id in chain.ids}

    def committed(self, session: str, version: Version) -> None:
        """A version of a journal was written."""
        chain = self.chains.setdefault(session, Chain(session))
        before = chain.body
        if not version.body.startswith(before) or len(version.body) <= len(before):
            self._trace.fail(
                "prefix", f"{session}: a version of {len(version.body)} bytes after {len(before)}"
            )
        new = version.body[len(before) :]
        if not new.endswith(b"\n"):
            self._trace.fail("prefix", f"{session}: a version that ends within a line")
        lines = new[:-1].split(b"\n")
        self._trace.note(f"committed {session} {len(lines)} lines, {len(version.body)} bytes")
        jumps: dict[str, int] = {}
        told: dict[str, Any] = {}
        for i, line in enumerate(lines):
            told = self._line(chain, line, told, first=not before and i == 0, jumps=jumps)
        chain.body = version.body
        meta = version.meta
        if meta is None:
            self._trace.fail("metadata", f"{session}: a version without metadata")
        self._check_metadata(chain, meta)
        self._check_position(chain, meta.position, lines)

    def _line(
        self, chain: Chain, line: bytes, told: dict[str, Any], *, first: bool, jumps: dict[str, int]
    ) -> dict[str, Any]:
        """Count a line in; gives what it tells of the next ones, if it is a notice."""
        envelope = decode_envelope(line)
        session, name = chain.session, Name(chain.session, envelope.id)
        if envelope.id in chain.ids:
            self._trace.fail("once", f"{session}: {envelope.id} is there twice")
        chain.ids[envelope.id] = None
        chain.entries += 1
        chain.errors += envelope.level == "ERROR"
        chain.first = chain.first or envelope.timestamp
        chain.last = envelope.timestamp
        if envelope.event_type == SESSION_START:
            chain.status = "running"
        elif envelope.event_type == SESSION_END:
            chain.status = "failed" if envelope.level == "ERROR" else "ended"
        if name not in self._ledger.copies:
            return self._notice(chain, envelope, line, first=first, jumps=jumps)
        if line != self._ledger.lines[name]:
            self._trace.fail("once", f"{session}: {envelope.id} is not as it was sent")
        number = split_id(envelope.id)
        if number is not None:
            self._number(chain, *number, told, jumps)
        elif told:
            self._trace.fail("notice", f"{session}: ENTRIES_TRIMMED stands before {envelope.id}")
        return {}

    def _notice(
        self, chain: Chain, envelope: Envelope, line: bytes, *, first: bool, jumps: dict[str, int]
    ) -> dict[str, Any]:
        """A line that nobody sent: gives what it tells of the entry after it."""
        session = chain.session
        if envelope.event_type not in (JOURNAL_RESTARTED, ENTRIES_TRIMMED):
            self._trace.fail("once", f"{session}: nobody sent {envelope.id}")
        self._trace.strike(f"notice {envelope.event_type}", session)
        details: dict[str, Any] = msgspec.json.decode(line)["details"]
        if envelope.event_type == ENTRIES_TRIMMED:
            return details
        if not first:
            self._trace.fail("notice", f"{session}: JOURNAL_RESTARTED is not its first line")
        jumps.update(details["missing"])
        return {}

    def _number(
        self, chain: Chain, writer: str, n: int, told: dict[str, Any], restarted: dict[str, int]
    ) -> None:
        """Count a writer's number in: it is the next one, or what is missing before it is lost and told of,
        or it was lost itself and fills a gap.
        """
        session, held = chain.session, chain.numbers.setdefault(writer, set())
        highest = max(held, default=0)
        held.add(n)
        name = Name(session, f"{writer}-{n}")
        if n < highest:
            if not self._ledger.lost(name):
                self._trace.fail("order", f"{session}: {name.id} after {writer}-{highest}")
            return
        skipped = range(highest + 1, n)
        for m in skipped:
            if not self._ledger.lost(Name(session, f"{writer}-{m}")):
                self._trace.fail("order", f"{session}: {name.id} is there before {writer}-{m}")
        said = range(told["first"], told["last"] + 1) if told and told["writer"] == writer else range(0)
        if highest == 0 and writer in restarted:
            said = range(1, restarted.pop(writer) + 1)
        if (skipped or told) and list(said) != list(skipped):
            text = f"{list(skipped)} of {writer} are missing and {list(said)} are told of"
            self._trace.fail("notice", f"{session}: {text}")

    def _check_metadata(self, chain: Chain, meta: Meta) -> None:
        summary = meta.summary
        counted = (chain.entries, chain.errors, chain.first, chain.last, chain.status)
        said = (summary.entries, summary.errors, summary.first, summary.last, summary.status)
        if said != counted:
            self._trace.fail("metadata", f"{chain.session}: {said} said, {counted} counted")
        writers = list(meta.writers.writers())
        for writer in writers:
            held = chain.numbers.get(writer, set())
            highest = max(held, default=0)
            missing = {m for first, last in meta.writers.gaps(writer) for m in range(first, last + 1)}
            if meta.writers.highest(writer) != highest or missing != set(range(1, highest)) - held:
                self._trace.fail("metadata", f"{chain.session}: the numbers of {writer} are not its body's")
        if meta.writers.complete and set(writers) != set(chain.numbers):
            self._trace.fail("metadata", f"{chain.session}: a writer is missing, and it does not say so")
        crc = getattr(meta, "crc", None)
        if crc is not None and crc != zlib.crc32(chain.body):
            self._trace.fail("metadata", f"{chain.session}: checksum {crc} is not its body's")

    def _check_position(self, chain: Chain, position: Position | None, lines: list[bytes]) -> None:
        session, ledger = chain.session, self._ledger
        if position is None or position.stream != ledger.digest:
            self._trace.fail("position", f"{session}: a version without a position")
        old, chain.position = chain.position, position
        shard, sequence = position.shard, int(position.sequence)
        if old is not None and not ledger.covers(shard, sequence, old.shard, int(old.sequence)):
            self._trace.fail("position", f"{session}: {position} after {old}")
        for put in ledger.of_session[session]:
            if not ledger.covers(shard, sequence, put.shard, put.sequence):
                continue
            for name in put.names:
                if name.session == session and name.id not in chain.ids and not self._excused(name, put):
                    self._trace.fail("position", f"{session}: {position} passed {name.id}")
        for line in lines:
            name = Name(session, decode_envelope(line).id)
            copies = ledger.copies.get(name)
            if copies and not any(ledger.covers(shard, sequence, put.shard, put.sequence) for put in copies):
                self._trace.fail("position", f"{session}: {name.id} is beyond {position}")

    def _excused(self, name: Name, put: object) -> bool:
        trimmed = getattr(put, "trimmed", False)
        return name in self._ledger.deleted or (trimmed and name in self._ledger.trimmed)
