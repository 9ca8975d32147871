"""The merged read: a session's journal, and everything of it that is on the stream and not in it yet.

The steps and their order are the correctness of it (DESIGN: checkpoint, journal, stream):

1. the shards' checkpoints, 2. the journal with its position and numbers, of one version, 3. the
stream after the further of the two, until caught up, 4. what the journal has is dropped by number,
5. this process's own entries that the stream has not acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from streamjournal.core.clock import Clock
from streamjournal.core.entry import decode_envelope, split_id
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.lines import split_blocks
from streamjournal.core.position import TRIM_HORIZON, Position
from streamjournal.leases.port import Leases
from streamjournal.read.backwards import last_lines
from streamjournal.read.cursor import Cursor
from streamjournal.read.feed import Feeds
from streamjournal.read.filters import EVERYTHING, Filter
from streamjournal.read.unflushed import Numbered, Scan, StreamState, shards_of, start_in, stream_state
from streamjournal.store.history import read_history
from streamjournal.store.port import Body, Head, Store
from streamjournal.stream.port import Stream

_BLOCK = 500  # entries of the stream given out at once


class Missing(NamedTuple):
    """Something that a read could not include.

    Args:
        what: `stream` (not readable), `range` (trimmed before anyone read it), `journal` (it was
            begun anew since the cursor).
        why: for a person.
    """

    what: str
    why: str


class Access(NamedTuple):
    """What a read needs: the adapters, and the process's feeds."""

    stream: Stream
    store: Store
    leases: Leases
    feeds: Feeds
    clock: Clock


class Own(NamedTuple):
    """What this process knows of its own writing to a session.

    Args:
        at_least: where its last acknowledged entry is.
        pending: its lines that the stream may not have.
    """

    at_least: Position | None
    pending: list[bytes]


NOTHING_OWN = Own(None, [])


class MergedRead:
    """One merged read. Go through `blocks` once; `missing`, `head` and `cursor` are told meanwhile.

    Args:
        last: only the last so many entries that pass.
        resume: only what follows this cursor.
        journal_only: leave the stream out.
        own: asked after the stream was read.
    """

    def __init__(
        self,
        access: Access,
        session_id: str,
        passes: Filter = EVERYTHING,
        *,
        last: int | None = None,
        resume: Cursor | None = None,
        journal_only: bool = False,
        own: Callable[[], Own] = lambda: NOTHING_OWN,
    ) -> None:
        self._access = access
        self.session_id = session_id
        self._passes = passes
        self._last = last
        self._resume = resume
        self._journal_only = journal_only
        self._own = own
        self.missing: list[Missing] = []
        self.head: Head | None = None
        self.numbered = Numbered(None)
        self.state: StreamState | None = None
        self.places: dict[str, str] = {}
        self.finished = False
        self.block_start = 0  # offset from which on the lines of the block given out last can be found
        self._offset = 0
        self._last_id: str | None = None

    @property
    def complete(self) -> bool:
        """Whether everything that was to be read has been given out."""
        return self.finished and not self.missing

    @property
    def cursor(self) -> Cursor:
        """The place after what has been given out; unacknowledged entries of this process excepted."""
        meta = self.head.meta if self.head is not None else None
        generation = meta.generation if meta is not None else None
        return Cursor(self.session_id, generation, self._offset, self._last_id, dict(self.places))

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """The lines that pass, in order, in lists.

        Raises:
            StoreUnavailableError, NotConfiguredError: the journal cannot be read.
        """
        own = self._own()
        await self._look_at_stream()
        if self._last is not None and self._resume is None:
            yield await self._last_lines(own)
        elif self._last is not None:
            newest: deque[bytes] = deque(maxlen=self._last)
            async for block in self._everything(own):
                newest.extend(block)
            yield list(newest)
        else:
            async for block in self._everything(own):
                yield block
        pending = self._unacknowledged()
        if pending:
            yield pending
        self.finished = True

    async def _everything(self, own: Own) -> AsyncIterator[list[bytes]]:
        async for block in self._journal():
            yield block
        async for block in self._unflushed(own):
            yield block

    async def _look_at_stream(self) -> None:
        if self._journal_only:
            return
        try:
            self.state = await stream_state(self._access.stream, self._access.leases)
        except (UnavailableError, NotConfiguredError) as problem:
            self.missing.append(Missing("stream", str(problem)))

    async def _journal(self) -> AsyncIterator[list[bytes]]:
        start = self._resume.offset if self._resume is not None else 0
        async with self._access.store.open(self.session_id, start) as body:
            if body is None:
                return
            if not self._begun_anew(body.head):
                async for block in self._body(body):
                    yield block
                return
        self.missing.append(Missing("journal", "it was begun anew since the cursor; read from its start"))
        self._resume = None
        async with self._access.store.open(self.session_id) as body:
            if body is not None:
                async for block in self._body(body):
                    yield block

    def _begun_anew(self, head: Head) -> bool:
        cursor = self._resume
        if cursor is None or cursor.generation is None:
            return False
        return head.meta is None or head.meta.generation != cursor.generation

    async def _body(self, body: Body) -> AsyncIterator[list[bytes]]:
        await self._note(body.head)
        self._offset = body.start
        passes = self._passes
        async for lines in split_blocks(body.chunks):
            self.block_start = self._offset
            self._offset = min(self._offset + sum(map(len, lines)) + len(lines), body.head.size)
            fresh = lines if self._resume is None else self._after_cursor(lines)
            block = list(filter(None, fresh)) if passes.passes_all else [x for x in fresh if x and passes(x)]
            if block:
                yield block

    def _after_cursor(self, lines: list[bytes]) -> list[bytes]:
        """What of the journal the cursor's reader does not know.

        What he got from the stream may be in the journal by now, in the same order. So everything up
        to the entry that he got last is known to him, and all of it if that entry is not there yet.
        """
        assert self._resume is not None
        last_id = self._resume.last_id
        if last_id is None:
            return lines
        quoted = f'"{last_id}"'.encode()
        for i, line in enumerate(lines):
            if quoted in line and decode_envelope(line).id == last_id:
                self._resume = None  # all that follows is new, on the stream too
                return lines[i + 1 :]
        return []

    async def _note(self, head: Head) -> None:
        self.head = head
        self.numbered = Numbered(head.meta)
        if head.meta is None:
            numbers, _ = await read_history(self._access.store, self.session_id)
            self.numbered.learn(numbers)

    async def _resume_offset(self) -> int:
        """Where in the journal to go on after the cursor; 0 without one.

        What the cursor's reader got from the stream may be in the journal by now. It is there in the
        same order, so everything up to the entry that it got last is behind, or all of it if that
        entry is not there yet.
        """
        cursor = self._resume
        if cursor is None:
            return 0
        head = await self._access.store.head(self.session_id)
        generation = head.meta.generation if head is not None and head.meta is not None else None
        if head is None:
            return 0
        if cursor.generation not in (None, generation):
            self.missing.append(Missing("journal", "it was begun anew since the cursor; read from its start"))
            self._resume = None
            return 0
        if cursor.last_id is None:
            return cursor.offset
        found = await self._end_of(cursor.last_id, cursor.offset, head.size)
        if found is None:
            return head.size
        self._resume = None  # the stream's part is all new
        return found

    async def _end_of(self, entry_id: str, start: int, stop: int) -> int | None:
        """The offset after an entry's line; None if it is not in the journal."""
        quoted = f'"{entry_id}"'.encode()
        offset = start
        async with self._access.store.open(self.session_id, start, stop) as body:
            if body is None:
                return None
            async for lines in split_blocks(body.chunks):
                for line in lines:
                    offset += len(line) + 1
                    if quoted in line and decode_envelope(line).id == entry_id:
                        return min(offset, stop)
        return None

    async def _unflushed(self, own: Own) -> AsyncIterator[list[bytes]]:
        self.block_start = self._offset
        block: list[bytes] = []
        async for item in self._items(own):
            if self._passes(item.line):
                block.append(item.line)
            if len(block) >= _BLOCK:
                yield block
                block = []
        if block:
            yield block

    async def _items(self, own: Own) -> AsyncIterator[Item]:
        """New entries from the stream, after the cursor's last one if there is a cursor."""
        async for item in self._new_items(own):
            cursor = self._resume
            if cursor is not None and self._is_behind(item, cursor):
                if decode_envelope(item.line).id == cursor.last_id:
                    self._resume = None
                continue
            yield item

    def _is_behind(self, item: Item, cursor: Cursor) -> bool:
        place = cursor.shards.get(item.position.shard, TRIM_HORIZON)
        return place != TRIM_HORIZON and int(item.position.sequence) <= int(place)

    async def _new_items(self, own: Own) -> AsyncIterator[Item]:
        if self.state is None:
            return
        reached = self.head.meta.position if self.head is not None and self.head.meta is not None else None
        scan = Scan(self._access.feeds, self.state, self._access.clock, at_least=own.at_least)
        self.places = scan.places
        try:
            for shard in shards_of(self.state, self.session_id):
                place = start_in(self.state, shard, reached)
                if place is None:
                    continue
                async for item in scan.items(shard, place, self.session_id):
                    await self._know(item)
                    if self.numbered.is_new(item.writer, item.n):
                        self._last_id = decode_envelope(item.line).id
                        yield item
        except UnavailableError as problem:
            self.missing.append(Missing("stream", str(problem)))
        self.missing += [Missing("range", str(gap)) for gap in scan.trimmed]

    async def _know(self, item: Item) -> None:
        """Look into the body for a writer that the metadata had no room for."""
        if item.writer is not None and not self.numbered.knows(item.writer):
            numbers, _ = await read_history(self._access.store, self.session_id)
            self.numbered.learn(numbers)

    async def _last_lines(self, own: Own) -> list[bytes]:
        assert self._last is not None
        head = await self._access.store.head(self.session_id)
        if head is not None:
            await self._note(head)
            self._offset = head.size
        newest: deque[bytes] = deque(maxlen=self._last)
        async for item in self._items(own):
            if self._passes(item.line):
                newest.append(item.line)
        wanted = self._last - len(newest)
        if head is None or wanted <= 0:
            return list(newest)
        older, size = await last_lines(self._access.store, head, wanted, self._passes)
        self.block_start = head.size - size
        return older + list(newest)

    def _unacknowledged(self) -> list[bytes]:
        """Lines of this process that neither the journal nor the stream had."""
        lines: list[bytes] = []
        for line in self._own().pending:
            name = split_id(decode_envelope(line).id)
            if name is not None and self.numbered.is_new(*name) and self._passes(line):
                lines.append(line)
        return lines
