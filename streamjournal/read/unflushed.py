"""What is on the stream and not in a session's journal yet.

Which shards can hold it follows from the session's hash and the lineage; from where on, from the
shard's checkpoint C and the journal's position H: everything at or before either is in the journal.
C has to be read before the journal: what is flushed in between moves C past records that the older
journal does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    NotConfiguredError,
    RecordsTrimmedError,
    UnavailableError,
)
from streamjournal.core.item import Item
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import SHARD_END, TRIM_HORIZON, Position
from streamjournal.leases.port import Leases
from streamjournal.read.feed import Feeds
from streamjournal.store.port import Head
from streamjournal.stream.caught_up import CaughtUp
from streamjournal.stream.port import ReadBatch, Record, Shard, Stream, lineage_of
from streamjournal.stream.records import parse_record

_OWN_SECONDS = 5.0  # that an acknowledged record may take to show; it may have been trimmed, too


class StreamState(NamedTuple):
    """The stream as it was before the journal was read.

    Args:
        digest: of the stream's identity.
        shards: as listed, parents before children.
        checkpoints: shard -> checkpoint; a shard without one is undrained from its start.
    """

    digest: str
    shards: Sequence[Shard]
    checkpoints: Mapping[str, str]


async def stream_state(stream: Stream, leases: Leases) -> StreamState:
    """The shards and how far the worker has got in each.

    Without the lease table nothing is known of that, so everything on the stream counts as unflushed:
    slower, and just as right.

    Raises:
        StreamUnavailableError, NotConfiguredError: the stream cannot be read.
    """
    identity = await stream.identity()
    named = identity.named
    try:
        rows = await leases.rows()
    except (UnavailableError, NotConfiguredError):
        rows = []
    checkpoints = {row.key: row.checkpoint for row in rows if row.stream == named}
    return StreamState(identity.digest, await stream.shards(), checkpoints)


def shards_of(state: StreamState, session_id: str | None) -> list[Shard]:
    """The shards that may hold records of a session (None: of any), parents before children."""
    if session_id is None:
        return list(state.shards)
    key = int.from_bytes(hashlib.md5(session_id.encode(), usedforsecurity=False).digest())
    return [shard for shard in state.shards if shard.first_hash <= key <= shard.last_hash]


def start_in(state: StreamState, shard: Shard, reached: Position | None) -> str | None:
    """The place after which a shard's records are unflushed; None if the journal has them all.

    Args:
        reached: the journal's position; None if it has none, or for many sessions at once.
    """
    checkpoint = state.checkpoints.get(shard.id, TRIM_HORIZON)
    if checkpoint == SHARD_END:
        return None
    if reached is None or reached.stream != state.digest:
        return checkpoint
    if reached.shard == shard.id:
        if checkpoint == TRIM_HORIZON or int(reached.sequence) > int(checkpoint):
            return reached.sequence
        return checkpoint
    ancestors = lineage_of(state.shards).ancestors(reached.shard)
    return None if shard.id in ancestors else checkpoint


class Numbered:
    """Drops what a journal has, and what comes twice: durable numbers and pending ones are kept apart.

    Args:
        head: the journal's; None if there is no journal.
    """

    def __init__(self, head: Head | None) -> None:
        if head is None:
            self._durable = WriterNumbers()
        elif head.meta is None:  # adopted: only its lines can tell, and are looked at when it matters
            self._durable = WriterNumbers(complete=False)
        else:
            self._durable = head.meta.writers
        self._pending = WriterNumbers()

    @property
    def complete(self) -> bool:
        """Whether every writer of the journal is known."""
        return self._durable.complete

    def knows(self, writer: str) -> bool:
        """Whether the numbers of a writer can be told without the journal's body."""
        return self._durable.knows(writer)

    def learn(self, numbers: WriterNumbers) -> None:
        """Take the numbers from the journal's body instead."""
        self._durable = numbers

    def is_new(self, writer: str | None, n: int) -> bool:
        """Whether neither the journal nor an earlier call had the entry; True for other producers'."""
        if writer is None:
            return True
        return not self._durable.has(writer, n) and self._pending.add(writer, n)

    def begin_at(self, writer: str, n: int) -> None:
        """Count everything of a writer that was not met before n as known: who begins in the middle
        of a session does not ask for what came earlier, and must not take a resend of it for news.
        """
        if writer not in self._pending and n > 1:
            self._pending.begin_at(writer, n - 1)


class Scan:
    """Goes through the records that a merged read adds to the journal.

    Args:
        at_least: a position of this session that must have been seen, since its writer knows that
            it is there; without it the shard's own word (nothing more, 0 ms behind) is believed.
    """

    def __init__(
        self, feeds: Feeds, state: StreamState, clock: Clock, *, at_least: Position | None = None
    ) -> None:
        self._feeds = feeds
        self._state = state
        self._at_least = at_least
        self._clock = clock
        self._own_deadline = clock.monotonic() + _OWN_SECONDS
        self.overdue = False  # a position of `at_least` was not seen in time
        self.trimmed: list[RecordsTrimmedError] = []
        self.places: dict[str, str] = {}  # shard -> the last record's sequence number

    async def records(self, shard: Shard, place: str) -> AsyncGenerator[Record, None]:
        """The shard's records after a place, until caught up.

        Raises:
            UnavailableError: the stream cannot be read (further).
        """
        self.places[shard.id] = place
        try:
            async with aclosing(self._from(shard, place)) as records:
                async for record in records:
                    yield record
            return
        except RecordsTrimmedError as gap:
            self.trimmed.append(gap)
        try:
            async with aclosing(self._from(shard, TRIM_HORIZON)) as records:
                async for record in records:
                    yield record
        except RecordsTrimmedError:
            return  # the shard itself has expired

    async def _from(self, shard: Shard, place: str) -> AsyncGenerator[Record, None]:
        caught_up = partial(self._caught_up, shard, CaughtUp())
        async with aclosing(self._feeds.scan(shard.id, place, until=caught_up)) as batches:
            async for batch in batches:
                for record in batch.records:
                    yield record
                    self.places[shard.id] = record.sequence  # not before: who gave up on it comes back to it

    def _caught_up(self, shard: Shard, end: CaughtUp, batch: ReadBatch) -> bool:
        """Whether a batch ends the scan."""
        reached = end(batch)
        if not self._has_seen_own(shard, batch):
            self.overdue = self._clock.monotonic() > self._own_deadline
            return self.overdue
        return reached

    def _has_seen_own(self, shard: Shard, batch: ReadBatch) -> bool:
        wanted = self._at_least
        if wanted is None or wanted.stream != self._state.digest or wanted.shard != shard.id:
            return True
        place = batch.records[-1].sequence if batch.records else self.places[shard.id]
        return place != TRIM_HORIZON and int(place) >= int(wanted.sequence)

    async def items(self, shard: Shard, place: str, session_id: str) -> AsyncGenerator[Item, None]:
        """The entries of one session in those records."""
        encoded = session_id.encode()
        async with aclosing(self.records(shard, place)) as records:
            async for record in records:
                if record.partition_key != session_id and encoded not in record.data:
                    continue  # a KPL may aggregate several keys; only then is it under another one
                for found, item in parse_record(record, self._state.digest).items:
                    if found == session_id:
                        yield item
