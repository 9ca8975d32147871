"""Positions: how far something has got in a stream, and which of two positions is further.

Sequence numbers compare as integers within a shard, and are kept as the text that they came as
(Kinesis promises neither a length nor that they fit a machine integer). Between shards only the
lineage decides: a descendant's position covers every ancestor's, because a child shard is read
only after its parents were drained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

TRIM_HORIZON: Final = "TRIM_HORIZON"  # as a checkpoint: nothing yet (KCL's own sentinel values)
SHARD_END: Final = "SHARD_END"


class StreamIdentity(NamedTuple):
    """A stream, told apart from an earlier one of the same name.

    Args:
        arn: its ARN, or the embedded stream's URN.
        created: when it was created, as the stream itself says it.
    """

    arn: str
    created: str

    @property
    def named(self) -> str:
        """The identity as rows of the lease table carry it."""
        return f"{self.arn} {self.created}"

    @property
    def digest(self) -> str:
        """16 hex digits that stand for the identity where room is short (an object's metadata)."""
        return hashlib.sha256(f"{self.arn}\n{self.created}".encode()).hexdigest()[:16]


class Position(NamedTuple):
    """(stream, shard, sequence number): how far a journal, or a reader, has got.

    Args:
        stream: the digest of the stream's identity.
        shard: the shard's id.
        sequence: the sequence number, as the text that the stream gave.
    """

    stream: str
    shard: str
    sequence: str

    def encode(self) -> str:
        """`stream/shard/sequence`; no part of it can hold a slash."""
        return "/".join(self)

    @classmethod
    def decode(cls, text: str) -> Position:
        """The position that `encode` wrote.

        Raises:
            ValueError: it is none.
        """
        stream, shard, sequence = text.split("/")
        if not (stream and shard and sequence.isascii() and sequence.isdigit()):
            raise ValueError(f"not a position: {text!r}")
        return cls(stream, shard, sequence)


class ShardStart(NamedTuple):
    """Where in a shard to start to read.

    Args:
        kind: a Kinesis ShardIteratorType (AFTER_SEQUENCE_NUMBER, AT_SEQUENCE_NUMBER, TRIM_HORIZON,
            LATEST, AT_TIMESTAMP).
        sequence: for the first two.
        timestamp: seconds since 1970, for AT_TIMESTAMP.
    """

    kind: str
    sequence: str | None = None
    timestamp: float | None = None

    @classmethod
    def after(cls, checkpoint: str | None) -> ShardStart:
        """After a checkpoint; None and TRIM_HORIZON mean from the oldest record."""
        if checkpoint is None or checkpoint == TRIM_HORIZON:
            return cls("TRIM_HORIZON")
        return cls("AFTER_SEQUENCE_NUMBER", sequence=checkpoint)


class Lineage:
    """Which shards descend from which, as far as the stream still lists them.

    Args:
        parents: every listed shard's id, with the ids of its parents (which may be unlisted).
    """

    __slots__ = ("_ancestors", "parents")

    def __init__(self, parents: Mapping[str, Iterable[str]]) -> None:
        self.parents: dict[str, tuple[str, ...]] = {s: tuple(p) for s, p in parents.items()}
        self._ancestors: dict[str, frozenset[str]] = {}

    def knows(self, shard: str) -> bool:
        """Whether the stream still lists the shard."""
        return shard in self.parents

    def ancestors(self, shard: str) -> frozenset[str]:
        """Every shard that `shard` descends from."""
        known = self._ancestors.get(shard)
        if known is not None:
            return known
        found: set[str] = set()
        todo = list(self.parents.get(shard, ()))
        while todo:
            parent = todo.pop()
            if parent not in found:
                found.add(parent)
                todo.extend(self.parents.get(parent, ()))
        self._ancestors[shard] = frozenset(found)
        return self._ancestors[shard]

    def covers(self, reached: Position | None, record: Position) -> bool:
        """Whether whoever has got to `reached` has seen `record` already.

        A position in another stream says nothing. A record of a shard that is not listed (with a
        fresh list) can only be of an expired ancestor, so it is covered.
        """
        if reached is None or reached.stream != record.stream:
            return False
        if reached.shard == record.shard:
            return int(record.sequence) <= int(reached.sequence)
        if record.shard in self.ancestors(reached.shard):
            return True
        return not self.knows(record.shard)

    def furthest(self, a: Position | None, b: Position) -> Position:
        """The further of two positions; `b` where nothing says that `a` is further."""
        return a if a is not None and self.covers(a, b) else b
