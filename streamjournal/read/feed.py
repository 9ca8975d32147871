"""One poller per shard per process, for every read and tail in it.

A shard allows five reads a second for everybody, so readers in one process share one reader and a
window of what it read lately. There is no task behind it: whoever needs news first does the reading,
the others wait for the same news. A read that starts inside the window scans nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio

from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import TRIM_HORIZON, ShardStart
from streamjournal.stream.port import ReadBatch, Record, ShardReader, Stream

_WINDOW_BYTES = 8 * 2**20
_MAX_RECORDS = 100


class Feed:
    """A shard's newest records, read once for all.

    A place in it is a sequence number (everything up to it is behind), or TRIM_HORIZON.
    """

    def __init__(self, stream: Stream, shard_id: str) -> None:
        self._stream = stream
        self.shard_id = shard_id
        self._reading = anyio.Lock()
        self._reader: ShardReader | None = None
        self._window: deque[Record] = deque()
        self._bytes = 0
        self._from = ""  # the window holds everything after this place; empty: there is no window yet
        self._to = ""  # … up to this one
        self._behind_ms = 1
        self._ended = False

    async def after(self, place: str, *, wait: float) -> ReadBatch:
        """The records after a place; by the window, or by reading on.

        Args:
            wait: seconds to wait for a record, if there is none yet.

        Raises:
            RecordsTrimmedError: the records after the place are gone.
            StreamUnavailableError, ThrottledError: call again later.
        """
        if not self._holds(place):
            return await self._restart(place, wait)
        known = self._since(place)
        if known.records or known.ended:
            return known
        async with self._reading:  # while waiting for it, another reader may have brought the news
            if self._holds(place):
                known = self._since(place)
                if not known.records and not known.ended:
                    await self._read_on(wait)
                    known = self._since(place)
                return known
        return await self._restart(place, wait)

    def _holds(self, place: str) -> bool:
        if not self._from:
            return False
        if place == TRIM_HORIZON or self._to == TRIM_HORIZON:
            return place == self._from
        oldest = 0 if self._from == TRIM_HORIZON else int(self._from)
        return oldest <= int(place) <= int(self._to)

    def is_past(self, place: str) -> bool:
        """Whether the window begins after a place."""
        if not self._from or self._from == TRIM_HORIZON:
            return False
        return place == TRIM_HORIZON or int(place) < int(self._from)

    def _since(self, place: str) -> ReadBatch:
        if place in (self._from, TRIM_HORIZON):
            records = list(self._window)
        else:
            after = int(place)
            records = []
            for record in reversed(self._window):
                if int(record.sequence) <= after:
                    break
                records.append(record)
            records.reverse()
        return ReadBatch(records, self._behind_ms, self._ended)

    async def _restart(self, place: str, wait: float) -> ReadBatch:
        """Begin the window at a place. Those who are further on find it again once it gets there."""
        async with self._reading:
            await self._drop_reader()
            self._window.clear()
            self._bytes = 0
            self._from = self._to = place
            self._behind_ms, self._ended = 1, False
            await self._read_on(wait)
            return self._since(place)

    async def _read_on(self, wait: float) -> None:
        if self._reader is None:
            self._reader = self._stream.reader(self.shard_id, ShardStart.after(self._to))
        try:
            batch = await self._reader.next(wait=wait, max_records=_MAX_RECORDS)
        except RecordsTrimmedError:
            await self._drop_reader()
            self._from = self._to = ""
            raise
        except BaseException:  # also cancelled: the reader may be past records that nobody got
            await self._drop_reader()
            raise
        self._behind_ms, self._ended = batch.behind_ms, batch.ended
        for record in batch.records:
            self._window.append(record)
            self._bytes += len(record.data)
            self._to = record.sequence
        while self._bytes > _WINDOW_BYTES and len(self._window) > len(batch.records):
            oldest = self._window.popleft()
            self._bytes -= len(oldest.data)
            self._from = oldest.sequence

    async def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with anyio.CancelScope(shield=True):
                await reader.aclose()

    async def aclose(self) -> None:
        """Free the reader."""
        await self._drop_reader()


class Feeds:
    """The feeds of a process, made when they are first asked for."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._feeds: dict[str, Feed] = {}

    def of(self, shard_id: str) -> Feed:
        """The shard's feed."""
        feed = self._feeds.get(shard_id)
        if feed is None:
            feed = self._feeds[shard_id] = Feed(self.stream, shard_id)
        return feed

    async def scan(
        self, shard_id: str, place: str, *, until: Callable[[ReadBatch], bool]
    ) -> AsyncIterator[ReadBatch]:
        """Batch after batch from a place, until one satisfies `until` (it is given out too)."""
        feed = self.of(shard_id)
        if feed.is_past(place):  # those who follow the shard's end keep their window
            async for batch in self._catch_up(feed, place):
                yield batch
                if batch.ended or until(batch):
                    return
                if batch.records:
                    place = batch.records[-1].sequence
        while True:
            batch = await feed.after(place, wait=0.0)
            yield batch
            if batch.ended or until(batch):
                return
            if batch.records:
                place = batch.records[-1].sequence

    async def _catch_up(self, feed: Feed, place: str) -> AsyncIterator[ReadBatch]:
        """Batches from a place before the feed's window, by a reader of one's own, up to the window."""
        reader = self.stream.reader(feed.shard_id, ShardStart.after(place))
        try:
            while feed.is_past(place):
                batch = await reader.next(max_records=_MAX_RECORDS)
                yield batch
                if batch.records:
                    place = batch.records[-1].sequence
                elif batch.behind_ms == 0:
                    return
        finally:
            with anyio.CancelScope(shield=True):
                await reader.aclose()

    async def aclose(self) -> None:
        """Free every feed."""
        for feed in self._feeds.values():
            await feed.aclose()
        self._feeds.clear()
