"""The tail: a merged read that goes on.

First the history, then what comes, shard by shard from where the history ended, through the process's
shared feeds. A split or a merge is followed into the children. A stream that does not answer is
waited for; a range that was trimmed meanwhile is told of, not hidden.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import NamedTuple, Self

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamjournal.core.backoff import Backoff
from streamjournal.core.entry import decode_envelope
from streamjournal.core.errors import NotConfiguredError, RecordsTrimmedError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.read.cursor import Cursor
from streamjournal.read.filters import EVERYTHING, Filter
from streamjournal.read.merged import Access, MergedRead, Missing
from streamjournal.read.unflushed import Numbered, StreamState, shards_of, stream_state
from streamjournal.stream.port import ReadBatch, Record, Shard
from streamjournal.stream.records import parse_record

_POLL = 1.0  # seconds in one wait; the stream's adapter answers as soon as there is something
_SESSIONS = 10_000  # sessions whose numbers a tail of all sessions remembers


class _News(NamedTuple):
    shard_id: str
    records: list[Record]


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
        self._follow = follow
        self.missing: list[Missing] = []
        self._stack = AsyncExitStack()
        self._base = Cursor(session_id)  # the cursor, but for the id of the last line given out
        self._given: bytes | None = None
        self._numbered: OrderedDict[str, Numbered] = OrderedDict()
        self._places: dict[str, str] = {}
        self._shards: dict[str, Shard] = {}
        self._ended: set[str] = set()
        self._followed: set[str] = set()
        self._digest = ""
        self._skip_id: str | None = None
        self._send: MemoryObjectSendStream[_News]
        self._receive: MemoryObjectReceiveStream[_News]

    @property
    def cursor(self) -> Cursor:
        """The place after the last entry given out."""
        if self._given is None:
            return self._base
        last_id = decode_envelope(self._given).id or None
        return msgspec.structs.replace(self._base, last_id=last_id) if last_id else self._base

    async def __aenter__(self) -> Self:
        self._send, self._receive = anyio.create_memory_object_stream[_News](16)
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._lines = self._all_lines()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._lines.aclose()
        self._send.close()
        self._receive.close()
        await self._stack.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next line; raises StopAsyncIteration only without `follow`."""
        return await anext(self._lines)

    async def _all_lines(self) -> AsyncGenerator[bytes, None]:
        async for line in self._history_lines():
            yield line
        if self._follow:
            async for line in self._live_lines():
                yield line

    async def _history_lines(self) -> AsyncGenerator[bytes, None]:
        if self.session_id is None:
            await self._look_at_stream()
            for line in await self._recent():
                yield line
            return
        read = MergedRead(
            self._access,
            self.session_id,
            self._passes,
            last=self._history if self._resume is None else None,
            resume=self._resume,
        )
        async for block in read.blocks():
            self._base = msgspec.structs.replace(read.cursor, offset=read.block_start, last_id=None)
            for line in block:
                self._given = line
                yield line
        self._base, self._given = read.cursor, None
        self.missing += read.missing
        self._numbered[self.session_id] = read.numbered
        self._places = dict(read.places)
        if read.state is None:
            await self._look_at_stream()
        else:
            self._note_state(read.state)

    async def _look_at_stream(self) -> None:
        """The shards, as often as it takes."""
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            try:
                self._note_state(await stream_state(self._access.stream, self._access.leases))
            except (UnavailableError, NotConfiguredError) as problem:
                if not self._follow:
                    self.missing.append(Missing("stream", str(problem)))
                    return
                if not backoff.failures:
                    self.missing.append(Missing("stream", str(problem)))
                await backoff.wait()
            else:
                return

    def _note_state(self, state: StreamState) -> None:
        self._digest = state.digest
        for shard in shards_of(state, self.session_id):
            self._shards[shard.id] = shard
            checkpoint = state.checkpoints.get(shard.id, TRIM_HORIZON)
            if self._resume is not None and self.session_id is None:
                self._places.setdefault(shard.id, self._resume.shards.get(shard.id, TRIM_HORIZON))
            elif checkpoint == SHARD_END:
                self._ended.add(shard.id)
            else:
                self._places.setdefault(shard.id, checkpoint)

    async def _recent(self) -> list[bytes]:
        """All sessions: what the worker has not got to yet, at most `history` entries of it."""
        self._base = Cursor(None, shards=dict(self._places))
        if self._resume is not None:
            self._skip_id = self._resume.last_id
            return []
        lines: list[bytes] = []
        for shard_id, place in list(self._places.items()):
            async for batch in self._access.feeds.scan(shard_id, place, until=_caught_up):
                for record in batch.records:
                    lines += [item.line for item in self._new_items(record) if self._passes(item.line)]
                    self._places[shard_id] = record.sequence
        self._base = Cursor(None, shards=dict(self._places))
        return lines if self._history is None else lines[len(lines) - min(self._history, len(lines)) :]

    async def _live_lines(self) -> AsyncGenerator[bytes, None]:
        self._follow_shards()
        async for news in self._receive:
            for record in news.records:
                for item in self._new_items(record):
                    if self._passes(item.line):
                        self._give(item)
                        yield item.line
                self._places[news.shard_id] = record.sequence

    def _give(self, item: Item) -> None:
        """Move the cursor on to an entry that is given out now.

        A session's cursor names the record that the entry is in, since the entry's id tells what of it
        is behind. Without a session it names the last whole record, from which a resume reads on.
        """
        places = dict(self._places)
        if self.session_id is not None:
            places[item.position.shard] = item.position.sequence
        self._base = msgspec.structs.replace(self._base, shards=places)
        self._given = item.line

    def _follow_shards(self) -> None:
        """Start to follow the shards that can be: a child only once its parents have ended."""
        for shard in self._shards.values():
            parents = [p for p in shard.parents if p in self._shards]
            if shard.id in self._followed or shard.id in self._ended:
                continue
            if all(p in self._ended for p in parents):
                self._followed.add(shard.id)
                place = self._places.get(shard.id, TRIM_HORIZON)
                self._tasks.start_soon(self._pump, shard.id, place, name=f"tail {shard.id}")

    async def _pump(self, shard_id: str, place: str) -> None:
        """Bring one shard's records, in order, until it ends."""
        feed = self._access.feeds.of(shard_id)
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            try:
                batch = await feed.after(place, wait=_POLL)
            except RecordsTrimmedError as gap:
                self.missing.append(Missing("range", str(gap)))
                place = TRIM_HORIZON
                continue
            except (UnavailableError, NotConfiguredError) as problem:
                if not backoff.failures:
                    self.missing.append(Missing("stream", str(problem)))
                await backoff.wait()
                continue
            backoff.worked()
            if batch.records:
                await self._send.send(_News(shard_id, list(batch.records)))
                place = batch.records[-1].sequence
            if batch.ended:
                self._ended.add(shard_id)
                await self._look_at_stream()
                self._follow_shards()
                return

    def _new_items(self, record: Record) -> list[Item]:
        """The entries in a record that are the session's, and were not given out before."""
        found = [
            (session_id, item)
            for session_id, item in parse_record(record, self._digest).items
            if self.session_id in (None, session_id)
        ]
        if self._skip_id is not None:
            ids = [decode_envelope(item.line).id for _, item in found]
            if self._skip_id in ids:  # the cursor's reader got this record up to here
                found = found[ids.index(self._skip_id) + 1 :]
                self._skip_id = None
        return [item for session_id, item in found if self._is_new(session_id, item)]

    def _is_new(self, session_id: str, item: Item) -> bool:
        numbered = self._numbered.get(session_id)
        if numbered is None:
            numbered = self._numbered[session_id] = Numbered(None)
            if len(self._numbered) > _SESSIONS:
                self._numbered.popitem(last=False)
        return numbered.is_new(item.writer, item.n)


def _caught_up(batch: ReadBatch) -> bool:
    return not batch.records and batch.behind_ms == 0
