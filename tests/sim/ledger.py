"""What really happened, kept apart from the pipeline: what was accepted, what the stream took, and what
may be missing in the end because retention trimmed it unread or an operator deleted it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from streamjournal.core.entry import decode_envelope
from streamjournal.emit.receipt import Receipt
from streamjournal.store.names import dead_letter_key
from streamjournal.stream.port import Record
from streamjournal.stream.records import parse_record
from tests.sim.trace import Trace


class Name(NamedTuple):
    """An entry: its session, and its id in it."""

    session: str
    id: str


@dataclass(eq=False)
class Put:
    """A record that the stream took.

    Args:
        names: its entries.
        letters: keys of the dead letters that it must become.
        trimmed: it is gone from the stream.
    """

    shard: str
    sequence: int
    names: list[Name]
    letters: list[str]
    trimmed: bool = False


@dataclass
class Ledger:
    """The truth about one run.

    Attributes:
        accepted: receipts of every emitter.
        puts: shard -> its records, oldest first, trimmed ones included.
        copies: entry -> the records that it is in.
        lines: entry -> its line.
        landed: session -> the entries that the stream took, in its order.
        trimmed: entries of which a copy was trimmed while no journal had them.
        deleted: entries that were in a journal when an operator deleted it.
        parents: every shard that ever was, with its parents.
    """

    trace: Trace
    accepted: dict[str, list[Receipt]] = field(default_factory=lambda: defaultdict(list))
    puts: dict[str, list[Put]] = field(default_factory=lambda: defaultdict(list))
    of_session: dict[str, list[Put]] = field(default_factory=lambda: defaultdict(list))
    copies: dict[Name, list[Put]] = field(default_factory=dict)
    lines: dict[Name, bytes] = field(default_factory=dict)
    landed: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    trimmed: set[Name] = field(default_factory=set)
    deleted: set[Name] = field(default_factory=set)
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digest: str = ""
    _older: dict[str, set[str]] = field(default_factory=dict)

    def put(self, record: Record) -> None:
        """The stream took a record."""
        items, poison = parse_record(record, self.digest)
        put = Put(record.shard, int(record.sequence), [], [])
        for session, item in items:
            name = Name(session, decode_envelope(item.line).id)
            put.names.append(name)
            if name in self.copies:
                self.trace.counts["duplicate put"] += 1
            self.copies.setdefault(name, []).append(put)
            self.lines.setdefault(name, item.line)
            self.landed[session][name.id] = None
        for session in dict.fromkeys(session for session, _ in items):
            self.of_session[session].append(put)
        put.letters = [dead_letter_key(self.digest, record.shard, record.sequence, p.place) for p in poison]
        self.puts[record.shard].append(put)
        self.trace.note(f"stream took {record.shard[-2:]}:{record.sequence[-4:]} {_short(put.names)}")

    def lost(self, name: Name) -> bool:
        """Whether the entry may be missing."""
        return name in self.trimmed or name in self.deleted

    def ancestors(self, shard: str) -> set[str]:
        """Every shard that a shard descends from."""
        parents = self.parents.get(shard, ())
        return set(parents).union(*(self.ancestors(parent) for parent in parents))

    def covers(self, shard: str, sequence: int, other: str, record: int) -> bool:
        """Whether a place (shard, sequence number) is at a record, or beyond it."""
        if shard == other:
            return record <= sequence
        if shard not in self._older:
            self._older[shard] = self.ancestors(shard)
        return other in self._older[shard]


def _short(names: list[Name]) -> str:
    if not names:
        return "poison"
    return f"{names[0].session} {names[0].id}{'' if len(names) == 1 else f'..{names[-1].id}'}"
