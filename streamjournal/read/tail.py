"""The tail: a merged read that goes on.

First the history, then what comes, shard by shard from where the history ended, through the process's
shared feeds. A split or a merge is followed into the children. A stream that does not answer is
waited for; a range that was trimmed meanwhile is told of, not hidden.

A task of the tail's own does the reading and hands on what it finds; so a consumer that gives up
waiting (a timeout around `anext`) loses nothing, and one that is slow slows only himself.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamjournal.core.backoff import Backoff
from streamjournal.core.errors import (
    NotConfiguredError,
    RecordsTrimmedError,
    UnavailableError,
)
from streamjournal.core.item import Item
from streamjournal.core.position import SHARD_END, TRIM_HORIZON, Position
from streamjournal.read.cursor import Cursor
from streamjournal.read.feed import Follower
from streamjournal.read.filters import EVERYTHING, Filter
from streamjournal.read.merged import MergedRead, id_of
from streamjournal.read.recent import Recent, place_of
from streamjournal.read.unflushed import Numbered, StreamState, shards_of, start_in, stream_state
from streamjournal.read.words import Access, Block, Missing
from streamjournal.stream.port import Record, Shard
from streamjournal.stream.records import parse_record

_POLL = 1.0  # seconds in one wait; the stream's adapter answers as soon as there is something
_SESSIONS = 10_000  # sessions whose numbers a tail of all sessions remembers
_AHEAD = 2  # reads that may wait for the consumer


class _News(NamedTuple):
    """What one read of a shard brought."""

    shard_id: str
    records: list[Record]
    ended: bool


class Tail:
    """Entries of a session, or of all, as they come. An async context manager; iterate inside.

    Args:
        session_id: None for all sessions.
        history: entries to begin with: the last so many; None for all (of a session), 0 for none.
        resume: begin after this cursor instead.
        follow: go on after the history.
    """

    def __init__(
        self,
        access: Access,
        session_id: str | None,
        passes: Filter = EVERYTHING,
        *,
        history: int | None = 10,
        resume: Cursor | None = None,
        follow: bool = True,
    ) -> None:
        self._access = access
        self.session_id = session_id
        self._passes = passes
        self._history = history
        self._resume = resume
        self.follow = follow
        self.missing: list[Missing] = []
        self._stack = AsyncExitStack()
        start = resume if resume is not None else Cursor(session_id)
        self._cursor: Callable[[], Cursor] = partial(_itself, start)
        self._before: Callable[[], Cursor] = self._cursor
        self._ready: deque[tuple[bytes, Callable[[], Cursor]]] = deque()
        self._base = start  # the cursor where the history ends
        self._places: dict[str, str] = {}  # of the consumer: shard -> the last record gone through
        self._skips: dict[str, str] = {}  # shard -> the last entry given out of a record's, by its place
        self._unread: deque[_News] = deque()
        self._numbered: OrderedDict[str, Numbered] = OrderedDict()
        self._starts: dict[str, str] = {}  # where to begin in the shards listed first
        self._shards: dict[str, Shard] = {}
        self._ended: set[str] = set()
        self._followed: set[str] = set()
        self._digest = ""
        self._send: MemoryObjectSendStream[Block | _News | Cursor | Exception]
        self._receive: MemoryObjectReceiveStream[Block | _News | Cursor | Exception]

    @property
    def cursor(self) -> Cursor:
        """The place after the last entry given out."""
        return self._cursor()

    @property
    def cursor_before(self) -> Cursor:
        """The place before it, and after the one given out before that."""
        return self._before()

    async def __aenter__(self) -> Self:
        self._send, self._receive = anyio.create_memory_object_stream(_AHEAD)
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._produce, name=f"tail {self.session_id or 'of all sessions'}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        self._send.close()
        self._receive.close()
        await self._stack.__aexit__(None, None, None)

    # The consumer's side

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next line; it may be cancelled and called again. StopAsyncIteration only without `follow`."""
        while not self._ready:
            try:
                news = self._unread.popleft() if self._unread else await self._receive.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                raise StopAsyncIteration from None
            if isinstance(news, Exception):
                raise news
            if isinstance(news, Cursor):
                self._cursor = partial(_itself, news)
                continue
            if isinstance(news, Block):
                self._ready += [(line, partial(news.cursor_after, i)) for i, line in enumerate(news.lines)]
            else:
                self._take(news)
        self._before = self._cursor
        line, self._cursor = self._ready.popleft()
        return line

    def _take(self, news: _News) -> None:
        for i, record in enumerate(news.records):
            try:
                items = self._new_items(record)
            except Exception:  # of the consumer's own test: what it was not asked about yet is not skipped
                self._unread.appendleft(news._replace(records=news.records[i:]))
                raise
            if items:
                # A session's cursor names the record that the entry is in, since the entry's id tells
                # what of it is behind. Without a session it names the last whole record.
                at = {} if self.session_id is None else {record.shard: record.sequence}
                base = self._base.at(shards=self._places | at)
                after = (
                    _after_item
                    if self.session_id is not None
                    else partial(_after_place, [*self._skips.values()])
                )
                self._ready += [(item.line, partial(after, base, item)) for item in items]
            self._places[record.shard] = record.sequence
        if news.ended and self.session_id is None:
            self._places[news.shard_id] = SHARD_END  # a resume must not begin it again

    def _new_items(self, record: Record) -> list[Item]:
        """The entries in a record that are the session's, pass, and were not given out before."""
        found = [
            (session_id, item)
            for session_id, item in parse_record(record, self._digest).items
            if self.session_id in (None, session_id)
        ]
        skip = self._skips.get(record.shard, "")
        if skip.startswith(f"{record.shard}:{record.sequence}:"):
            upto = int(skip.rpartition(":")[2])  # the cursor's reader got this record up to here
            found = [(session_id, item) for session_id, item in found if item.place > upto]
        passing = [self._passes(item.line) for _, item in found]  # first, since it may raise
        self._skips.pop(record.shard, None)
        new = [self._is_new(session_id, item) for session_id, item in found]
        return [item for (_, item), a, b in zip(found, passing, new, strict=True) if a and b]

    def _is_new(self, session_id: str, item: Item) -> bool:
        numbered = self._numbered.get(session_id)
        if numbered is None:
            numbered = self._numbered[session_id] = Numbered(None)
            if len(self._numbered) > _SESSIONS:
                self._numbered.popitem(last=False)
        self._numbered.move_to_end(session_id)  # the session that was quiet longest is forgotten first
        if self.session_id is None and item.writer is not None:
            numbered.begin_at(item.writer, item.n)
        return numbered.is_new(item.writer, item.n)

    # The producer's side

    async def _produce(self) -> None:
        try:
            if self.session_id is None:
                await self._begin_with_all()
            else:
                await self._begin_with(self.session_id)
        except Exception as problem:  # noqa: BLE001  # also a test's own: it is the consumer's, not this task's
            await self._send.send(problem)
            self._send.close()
            return
        if self.session_id is not None or self._resume is None:
            await self._send.send(self._base.at(shards=self._places))  # where it is, if nothing comes
        if self.follow:
            self._follow_shards()
        else:
            self._send.close()

    async def _begin_with(self, session_id: str) -> None:
        """A session's history, by merged reads: again, until one has got through the stream.

        Only then are the numbers known that make a resend recognisable later.
        """
        resume = self._resume
        last = self._history if resume is None else None
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            read = MergedRead(self._access, session_id, self._passes, last=last, resume=resume)
            async with aclosing(read.blocks()) as blocks:
                async for block in blocks:
                    await self._send.send(block)
            if not backoff.failures:
                self.missing += read.missing
            self._base = resume = read.cursor
            last = None
            if read.scanned and read.state is not None:
                break
            if not self.follow:
                return
            await backoff.wait()
        await read.learn_numbers()  # now, of the version given out: later the journal is further
        self._numbered[session_id] = read.numbered
        self._places = dict(read.cursor.shards)
        meta = read.head.meta if read.head is not None else None
        self._note_first(read.state, meta.position if meta is not None else None)

    def _note_first(self, state: StreamState, reached: Position | None) -> None:
        """The shards as they were before the journal was read, and where to begin in each."""
        self._digest = state.digest
        for shard in shards_of(state, self.session_id):
            self._shards[shard.id] = shard
            start = start_in(state, shard, reached)
            if start is None:
                self._ended.add(shard.id)
            else:
                scanned = self._places.get(shard.id, TRIM_HORIZON)
                self._starts[shard.id] = max(start, scanned, key=_rank)

    async def _begin_with_all(self) -> None:
        """All sessions: what the worker has not got to yet, or what follows the cursor."""
        state = await self._look_at_stream()
        if state is None:
            return
        self._digest = state.digest
        self._shards = {shard.id: shard for shard in state.shards}
        resume = self._resume
        if resume is not None and resume.stream in ("", state.digest):
            self._starts = {shard.id: resume.shards.get(shard.id, TRIM_HORIZON) for shard in state.shards}
            places = resume.last_id.split(",") if resume.last_id else []
            self._skips = {place.partition(":")[0]: place for place in places}
        elif resume is not None:
            self.missing.append(Missing("stream", "it is another one since the cursor; read from its start"))
        else:
            recent = Recent(self._access, state, self._passes, self._is_new, patient=self.follow)
            block = await recent.look(self._history)
            self.missing += recent.missing
            self._starts = recent.ends
            await self._send.send(block)
        self._ended = {shard_id for shard_id, place in self._starts.items() if place == SHARD_END}
        self._places = dict(self._starts)
        self._base = Cursor(None, stream=state.digest)

    async def _look_at_stream(self) -> StreamState | None:
        """The shards, as often as it takes; None if nobody wants to wait."""
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            try:
                return await stream_state(self._access.stream, self._access.leases)
            except (UnavailableError, NotConfiguredError) as problem:
                if not backoff.failures:
                    self.missing.append(Missing("stream", str(problem)))
                if not self.follow:
                    return None
                await backoff.wait()

    def _follow_shards(self) -> None:
        """Start to follow the shards that can be: a child only once its parents have ended.

        A shard that was not there at first is read from its oldest record, however far the worker is
        in it: nothing of it was given out.
        """
        for shard in self._shards.values():
            if shard.id in self._followed or shard.id in self._ended:
                continue
            if all(parent in self._ended for parent in shard.parents if parent in self._shards):
                self._followed.add(shard.id)
                place = self._starts.get(shard.id, TRIM_HORIZON)
                self._tasks.start_soon(self._pump, shard.id, place, name=f"tail {shard.id}")

    async def _pump(self, shard_id: str, place: str) -> None:
        """Bring one shard's records, in order, until it ends; then its children's."""
        follower = self._access.feeds.follow(shard_id, place)
        try:
            await self._follow_to_end(shard_id, follower)
        finally:
            await follower.aclose()
        self._ended.add(shard_id)
        state = await self._look_at_stream()
        assert state is not None  # it waits for as long as it takes
        for shard in shards_of(state, self.session_id):
            self._shards.setdefault(shard.id, shard)
        self._follow_shards()

    async def _follow_to_end(self, shard_id: str, follower: Follower) -> None:
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            try:
                batch = await follower.next(wait=_POLL)
            except RecordsTrimmedError as gap:
                self.missing.append(Missing("range", str(gap)))
                if follower.place == TRIM_HORIZON:  # the shard itself has expired
                    await self._send.send(_News(shard_id, [], ended=True))
                    return
                follower.place = TRIM_HORIZON
                continue
            except (UnavailableError, NotConfiguredError) as problem:
                if not backoff.failures:
                    self.missing.append(Missing("stream", str(problem)))
                await backoff.wait()
                continue
            backoff.worked()
            if batch.records or batch.ended:
                await self._send.send(_News(shard_id, list(batch.records), batch.ended))
            if batch.ended:
                return


def _itself(cursor: Cursor) -> Cursor:
    return cursor


def _rank(place: str) -> int:
    return int(place) if place.isdigit() else -1


def _after_item(base: Cursor, item: Item) -> Cursor:
    return base.at(last_id=id_of(item.line))


def _after_place(skips: Sequence[str], base: Cursor, item: Item) -> Cursor:
    """Other shards' records that were given out in part, and did not come again yet, stay so."""
    return base.at(last_id=",".join([place_of(item), *skips]))
