"""A stream in memory, for tests and the simulation: no threads, no real time, shards that split.

Ships with the package, so that users can test against it what they build on the port.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from streamjournal.core.clock import SYSTEM, Clock, format_timestamp
from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.stream.port import Accepted, PutRecord, ReadBatch, Record, Refused, Shard
from streamjournal.stream.rules import (
    MAX_READ_BYTES,
    check_call,
    durable_to,
    even_ranges,
    hash_of,
    refusal_of,
    shard_name,
)

# Some puts later the numbers get a digit more, and no 64 bits hold them: who compares them as text,
# or as machine integers, is found out.
FIRST_SEQUENCE: Final = 99_999_999_999_999_999_999_990


class MemoryStream:
    """A stream that lives as long as its object, in one event loop.

    Args:
        shards: how many there are at first, dividing the hash space evenly.
        clock: for arrival times and the retention.
        retention_seconds: how old a record must be before `trim` or `expire` deletes it.
        name: the identity's; a stream made again has the same name and another identity.
        first_sequence: of the first record; they rise by 1 across all shards.
    """

    def __init__(
        self,
        *,
        shards: int = 4,
        clock: Clock = SYSTEM,
        retention_seconds: float = 86_400.0,
        name: str = "memory",
        first_sequence: int = FIRST_SEQUENCE,
    ) -> None:
        self._clock = clock
        self._retention_ms = int(retention_seconds * 1000)
        created = f"{format_timestamp(clock.time_ns())}-{clock.draw_id()}"
        self._identity = StreamIdentity(f"urn:streamjournal:memory:{name}", created)
        self._next_sequence = first_sequence
        self._shards: dict[str, _Shard] = {}
        self._numbers = 0
        for first, last in even_ranges(shards):
            self._add((), first, last)

    async def identity(self) -> StreamIdentity:
        """Which stream this is."""
        await checkpoint()
        return self._identity

    async def retention(self) -> float:
        """How old a record must be before it is deleted, seconds."""
        await checkpoint()
        return self._retention_ms / 1000

    async def shards(self) -> list[Shard]:
        """Every shard that was not forgotten, parents before children."""
        await checkpoint()
        return [shard.listed() for shard in self._shards.values()]

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put records; only those that break a bound of Kinesis's are refused.

        Raises:
            ValueError: more records or bytes than one call may have.
        """
        check_call(records)
        await checkpoint()  # before anything is taken: a cancelled put has put nothing
        arrival_ms = self._clock.time_ns() // 1_000_000
        return [refusal_of(record) or self._append(record, arrival_ms) for record in records]

    def reader(self, shard_id: str, start: ShardStart) -> MemoryReader:
        """A reader of one shard."""
        return MemoryReader(self, shard_id, start)

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        """Delete what is both older than the retention and at or below its shard's checkpoint."""
        await checkpoint()
        return sum(
            self._shards[name].trim(durable_to(reached), self._horizon_ms())
            for name, reached in checkpoints.items()
            if name in self._shards
        )

    async def aclose(self) -> None:
        """Nothing to free."""

    def split(self, shard_id: str, at: int | None = None) -> tuple[str, str]:
        """Close a shard and open two children in its place.

        Args:
            at: the second child's first hash; default is the middle.
        """
        parent = self._open_shard(shard_id)
        at = (parent.first_hash + parent.last_hash + 1) // 2 if at is None else at
        if not parent.first_hash < at <= parent.last_hash:
            raise ValueError(f"{at} does not divide {shard_id}")
        parent.close()
        return (
            self._add((shard_id,), parent.first_hash, at - 1),
            self._add((shard_id,), at, parent.last_hash),
        )

    def merge(self, a: str, b: str) -> str:
        """Close two adjacent shards and open one child in their place."""
        left, right = sorted((self._open_shard(a), self._open_shard(b)), key=lambda s: s.first_hash)
        if left.last_hash + 1 != right.first_hash:
            raise ValueError(f"{a} and {b} are not adjacent")
        left.close()
        right.close()
        return self._add((a, b), left.first_hash, right.last_hash)

    def trim_to(self, shard_id: str, sequence: str) -> int:
        """Delete a shard's records up to and including `sequence`, whatever their age."""
        return self._shards[shard_id].trim(int(sequence), None)

    def expire(self) -> int:
        """Delete what is older than the retention without asking for checkpoints, as Kinesis does."""
        return sum(shard.trim(float("inf"), self._horizon_ms()) for shard in self._shards.values())

    def forget_empty(self) -> list[str]:
        """Stop listing closed shards that hold nothing any more, as Kinesis does in the end."""
        gone = [name for name, shard in self._shards.items() if shard.closed and not shard.records]
        for name in gone:
            del self._shards[name]
        return gone

    def forget(self, shard_id: str) -> None:
        """Stop listing a closed shard, and delete whatever it still holds.

        Raises:
            ValueError: it is open.
        """
        if not self._shards[shard_id].closed:
            raise ValueError(f"{shard_id} is open")
        del self._shards[shard_id]

    def find(self, shard_id: str) -> _Shard | None:
        """A shard's state, None for one that is not listed (for the reader)."""
        return self._shards.get(shard_id)

    def last_sequence(self) -> int:
        """The highest sequence number given so far (for the reader)."""
        return self._next_sequence - 1

    def _add(self, parents: tuple[str, ...], first_hash: int, last_hash: int) -> str:
        name = shard_name(self._numbers)
        self._numbers += 1
        self._shards[name] = _Shard(name, parents, first_hash, last_hash)
        return name

    def _append(self, record: PutRecord, arrival_ms: int) -> Accepted:
        place = hash_of(record.partition_key)
        shard = next(
            s for s in self._shards.values() if not s.closed and s.first_hash <= place <= s.last_hash
        )
        sequence = self._next_sequence
        self._next_sequence += 1
        shard.append(
            sequence, Record(shard.id, str(sequence), record.partition_key, bytes(record.data), arrival_ms)
        )
        return Accepted(shard.id, str(sequence))

    def _open_shard(self, shard_id: str) -> _Shard:
        shard = self._shards[shard_id]
        if shard.closed:
            raise ValueError(f"{shard_id} is closed already")
        return shard

    def _horizon_ms(self) -> int:
        return self._clock.time_ns() // 1_000_000 - self._retention_ms


class _Shard:
    """A shard's records, oldest first, and who waits for more."""

    def __init__(self, name: str, parents: tuple[str, ...], first_hash: int, last_hash: int) -> None:
        self.id = name
        self.parents = parents
        self.first_hash = first_hash
        self.last_hash = last_hash
        self.closed = False
        self.records: list[Record] = []
        self.sequences: list[int] = []  # of `records`, to search in
        self.trimmed_to = -1
        self._changed: anyio.Event | None = None

    def listed(self) -> Shard:
        return Shard(self.id, self.parents, self.first_hash, self.last_hash, self.closed)

    def append(self, sequence: int, record: Record) -> None:
        self.records.append(record)
        self.sequences.append(sequence)
        self._notify()

    def close(self) -> None:
        self.closed = True
        self._notify()

    def trim(self, through: float, before_ms: int | None) -> int:
        """Delete the oldest records, up to the first one above `through`, or not older than asked."""
        count = bisect_right(self.sequences, through)
        if before_ms is not None:
            young = (i for i, record in enumerate(self.records[:count]) if record.arrival_ms >= before_ms)
            count = next(young, count)
        if count:
            self.trimmed_to = self.sequences[count - 1]
            del self.records[:count], self.sequences[:count]
        return count

    async def change(self) -> None:
        """Wait until a record arrives or the shard is closed."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class MemoryReader:
    """Reads one shard onwards."""

    def __init__(self, stream: MemoryStream, shard_id: str, start: ShardStart) -> None:
        self._stream = stream
        self._shard_id = shard_id
        self._start = start
        self._position: int | None = None  # everything up to it was returned

    async def next(self, *, wait: float = 0.0, max_records: int = 10_000) -> ReadBatch:
        """The records that follow, as soon as there is one.

        Raises:
            RecordsTrimmedError: records that follow were deleted, or the shard is not listed.
        """
        await checkpoint()
        batch = self._read(max_records)
        with anyio.move_on_after(wait):
            while not batch.records and not batch.ended and wait > 0:
                await self._shard().change()
                batch = self._read(max_records)
        return batch

    async def aclose(self) -> None:
        """Nothing is held."""

    def _read(self, max_records: int) -> ReadBatch:
        shard = self._shard()
        if self._position is None:
            self._position = self._resolve(shard)
        if self._position < shard.trimmed_to:
            raise RecordsTrimmedError(self._shard_id, str(self._position))
        first = bisect_right(shard.sequences, self._position)
        records = _within_bytes(shard.records[first : first + max_records])
        stop = first + len(records)
        if records:
            self._position = shard.sequences[stop - 1]
        if stop == len(shard.records):
            return ReadBatch(records, 0, ended=shard.closed)
        behind_ms = shard.records[-1].arrival_ms - shard.records[max(0, stop - 1)].arrival_ms
        return ReadBatch(records, max(1, behind_ms))

    def _shard(self) -> _Shard:
        shard = self._stream.find(self._shard_id)
        if shard is None:
            raise RecordsTrimmedError(self._shard_id, self._start.sequence)
        return shard

    def _resolve(self, shard: _Shard) -> int:
        """The sequence number to read after, for where the reader was asked to start."""
        start = self._start
        if start.kind == "TRIM_HORIZON":
            return shard.trimmed_to
        if start.kind == "LATEST":
            return self._stream.last_sequence()
        if start.kind == "AFTER_SEQUENCE_NUMBER" and start.sequence is not None:
            return int(start.sequence)
        if start.kind == "AT_SEQUENCE_NUMBER" and start.sequence is not None:
            return int(start.sequence) - 1
        if start.kind == "AT_TIMESTAMP" and start.timestamp is not None:
            found = bisect_left(shard.records, int(start.timestamp * 1000), key=lambda r: r.arrival_ms)
            if found < len(shard.records):
                return shard.sequences[found] - 1
            return self._stream.last_sequence()
        raise ValueError(f"not a place to start: {start}")


def _within_bytes(records: list[Record]) -> list[Record]:
    """The first records, up to about 10 MiB."""
    size = 0
    for count, record in enumerate(records, start=1):
        size += len(record.data)
        if size >= MAX_READ_BYTES:
            return records[:count]
    return records
