"""One poller per shard per process, for every read and tail in it.

A shard allows five reads a second for everybody, so readers in one process share one reader and a
window of what it read lately. There is no task behind it: whoever needs news first does the reading,
the others wait for the same news. A read that starts inside the window scans nothing.

Who is elsewhere on the shard (a tail resumed from yesterday, a consumer slower than the window) goes
on by a reader of his own until the window holds his place; so he never moves it away under others.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable

import anyio
from anyio.lowlevel import checkpoint

from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import TRIM_HORIZON, ShardStart
from streamjournal.stream.port import ReadBatch, Record, ShardReader, Stream

_WINDOW_BYTES = 8 * 2**20
_MAX_RECORDS = 1_000
_SLICE = 0.1  # seconds in one wait; between two, who will not wait gets his turn


class Feed:
    """A shard's newest records, read once for all who have joined.

    A place in it is a sequence number (everything up to it is behind), or TRIM_HORIZON.
    """

    def __init__(self, stream: Stream, shard_id: str) -> None:
        self.stream = stream
        self.shard_id = shard_id
        self.joined: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._reader: ShardReader | None = None
        self._window: deque[Record] = deque()
        self._bytes = 0
        self._from = ""  # the window holds everything after this place; empty: there is no window yet
        self._to = ""  # … up to this one
        self._behind_ms = 1
        self._ended = False
        self._busy: anyio.Event | None = None  # set when the read that is under way is over
        self._reads = 0  # begun so far
        self._hurried = 0  # calls that will not wait
        self._looked = 0  # the last one of them that asked without waiting, and was answered
        self._answered = 0  # the last one that was answered

    def holds(self, place: str) -> bool:
        """Whether everything after a place is in the window, or yet to be read into it."""
        if not self._from:
            return False
        if place == TRIM_HORIZON or self._to == TRIM_HORIZON:
            return place == self._from
        oldest = 0 if self._from == TRIM_HORIZON else int(self._from)
        return oldest <= int(place) <= int(self._to)

    async def begin(self, place: str) -> None:
        """Begin the window at a place; only while nobody else has joined."""
        reader, self._reader = self._reader, None
        self._window.clear()
        self._bytes = 0
        self._from = self._to = place
        self._behind_ms, self._ended = 1, False
        await _close(reader)

    async def after(self, place: str, wait: float) -> ReadBatch | None:
        """The records after a place that the window holds; None once it holds it no more.

        Args:
            wait: seconds to wait for a record. With 0, the answer is newer than the call.

        Raises:
            RecordsTrimmedError: the records after the place are gone.
            StreamUnavailableError, ThrottledError: call again later.
        """
        self._hurried += wait <= 0
        try:
            return await self._after(place, wait)
        finally:
            self._hurried -= wait <= 0

    async def _after(self, place: str, wait: float) -> ReadBatch | None:
        deadline = anyio.current_time() + wait
        begun = self._reads
        while self.holds(place):
            known = self._since(place)._replace(fresh=self._answered > begun)
            if known.records or known.ended:
                return known
            left = deadline - anyio.current_time()
            if left <= 0 and (wait > 0 or self._looked > begun):
                return known
            if self._busy is not None:
                await self._busy.wait()
            elif wait > 0 and self._hurried:  # he reads next; or all who wait would be before him
                await checkpoint()
            else:
                await self._read_on(min(max(left, 0.0), _SLICE))
        return None

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

    async def _read_on(self, wait: float) -> None:
        """One read into the window, by one at a time."""
        self._busy = busy = anyio.Event()
        self._reads += 1
        try:
            if self._reader is None:
                self._reader = self.stream.reader(self.shard_id, ShardStart.after(self._to))
            batch = await self._reader.next(wait=wait, max_records=_MAX_RECORDS)
            self._answered = self._reads
            if wait <= 0:
                self._looked = self._reads
            self._absorb(batch)
        except BaseException as problem:  # also cancelled: the reader may be past records that nobody got
            if isinstance(problem, RecordsTrimmedError):
                self._from = self._to = ""
            reader, self._reader = self._reader, None
            await _close(reader)
            raise
        finally:
            self._busy = None
            busy.set()

    def _absorb(self, batch: ReadBatch) -> None:
        self._behind_ms, self._ended = batch.behind_ms, batch.ended
        for record in batch.records:
            self._window.append(record)
            self._bytes += len(record.data)
            self._to = record.sequence
        while self._bytes > _WINDOW_BYTES and len(self._window) > len(batch.records):
            oldest = self._window.popleft()
            self._bytes -= len(oldest.data)
            self._from = oldest.sequence

    async def aclose(self) -> None:
        """Free the reader."""
        reader, self._reader = self._reader, None
        await _close(reader)


class Follower:
    """One consumer's way along a shard. Not to be shared between tasks.

    Attributes:
        place: everything up to it was given out.
    """

    def __init__(self, feed: Feed, place: str) -> None:
        self._feed = feed
        self.place = place
        self._own: ShardReader | None = None

    async def next(self, *, wait: float = 0.0) -> ReadBatch:
        """The records that follow. A call that fails or is cancelled has skipped none.

        Raises:
            RecordsTrimmedError: they are gone; set `place` and go on.
            StreamUnavailableError, ThrottledError: call again later.
        """
        batch = None
        while batch is None:
            batch = await self._by_window(wait) if await self._join() else await self._by_own_reader(wait)
        if batch.records:
            self.place = batch.records[-1].sequence
        return batch

    async def _join(self) -> bool:
        """Whether the shared window has this place; it is moved here if nobody else is in it."""
        feed = self._feed
        if not feed.holds(self.place):
            feed.joined.discard(self)
            if len(feed.joined) > 0:
                return False
            feed.joined.add(self)
            await feed.begin(self.place)
        feed.joined.add(self)
        await self._close_own()
        return True

    async def _by_window(self, wait: float) -> ReadBatch | None:
        return await self._feed.after(self.place, wait)

    async def _by_own_reader(self, wait: float) -> ReadBatch:
        if self._own is None:
            self._own = self._feed.stream.reader(self._feed.shard_id, ShardStart.after(self.place))
        try:
            return await self._own.next(wait=wait, max_records=_MAX_RECORDS)
        except BaseException:
            await self._close_own()
            raise

    async def _close_own(self) -> None:
        reader, self._own = self._own, None
        await _close(reader)

    async def aclose(self) -> None:
        """Leave the feed to the others."""
        self._feed.joined.discard(self)
        await self._close_own()


async def _close(reader: ShardReader | None) -> None:
    if reader is not None:
        with anyio.CancelScope(shield=True):
            await reader.aclose()


class Feeds:
    """The feeds of a process, made when they are first asked for."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._feeds: dict[str, Feed] = {}

    def follow(self, shard_id: str, place: str) -> Follower:
        """A way along a shard, from after a place on."""
        feed = self._feeds.get(shard_id)
        if feed is None:
            feed = self._feeds[shard_id] = Feed(self.stream, shard_id)
        return Follower(feed, place)

    async def scan(
        self, shard_id: str, place: str, *, until: Callable[[ReadBatch], bool]
    ) -> AsyncGenerator[ReadBatch, None]:
        """Batch after batch from a place, until one satisfies `until` (it is given out too)."""
        follower = self.follow(shard_id, place)
        wait = 0.0
        try:
            while True:
                batch = await follower.next(wait=wait)
                yield batch
                if batch.ended or until(batch):
                    return
                wait = 0.0 if batch.records else _SLICE
        finally:
            await follower.aclose()

    async def aclose(self) -> None:
        """Free every feed."""
        for feed in self._feeds.values():
            await feed.aclose()
        self._feeds.clear()
