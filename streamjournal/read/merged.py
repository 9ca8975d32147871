"""The merged read: a session's journal, and everything of it that is on the stream and not in it yet.

The steps and their order are the correctness of it (DESIGN: checkpoint, journal, stream):

1. the shards' checkpoints, 2. the journal with its position and numbers, of one version, 3. the
stream after the further of the two, until caught up, 4. what the journal has is dropped by number,
5. this process's own entries that the stream has not acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial

from streamjournal.core.entry import envelope_of, split_id
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.lines import split_blocks
from streamjournal.read.backwards import last_lines
from streamjournal.read.cursor import Cursor
from streamjournal.read.filters import EVERYTHING, Filter
from streamjournal.read.unflushed import Numbered, Scan, StreamState, shards_of, start_in, stream_state
from streamjournal.read.words import NOTHING_OWN, Access, Block, Missing, Own
from streamjournal.store.history import read_history
from streamjournal.store.port import Body, Head
from streamjournal.stream.port import lineage_of

_BLOCK = 500  # entries of the stream given out at once
_LONGEST_BLOCK = 10_000  # entries looked at for that


class MergedRead:
    """One merged read. Go through `blocks` once; `missing`, `head` and `cursor` are told meanwhile.

    Args:
        last: only the last so many entries that pass.
        resume: only what follows this cursor.
        journal_only: leave the stream out.
        own: asked before anything is read, and again after the stream was.
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
        self._journal_only = journal_only
        self._own = own
        self.missing: list[Missing] = []
        self.head: Head | None = None
        self.numbered = Numbered(None)
        self.state: StreamState | None = None
        self.finished = False
        self.scanned = False  # whether the stream was read to its end
        self._resume = resume
        self._begin_at(resume if resume is not None else Cursor(session_id))

    def _begin_at(self, cursor: Cursor) -> None:
        self._cursor = cursor  # the place after what has been given out
        self._sought = cursor.last_id  # came from the stream; what follows it is new, wherever it is now
        self._behind = dict(cursor.shards)  # unless it was found: these records were given out

    @property
    def complete(self) -> bool:
        """Whether everything that was to be read has been given out."""
        return self.finished and not self.missing

    @property
    def cursor(self) -> Cursor:
        """The place after what has been given out; unacknowledged entries of this process excepted."""
        return self._cursor

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines that pass, in order.

        Raises:
            StoreUnavailableError, NotConfiguredError: the journal cannot be read.
        """
        own = self._own()  # before the stream: what it acknowledges from here on is still in this list
        await self._look_at_stream()
        if self._last is not None:
            yield await self._newest(self._last, own)
        else:
            async with aclosing(self._everything(own)) as blocks:
                async for block in blocks:
                    yield block
        self.finished = True

    async def _everything(self, own: Own) -> AsyncGenerator[Block, None]:
        for part in (self._journal(), self._after_journal(own)):
            async with aclosing(part) as blocks:
                async for block in blocks:
                    yield block

    async def _newest(self, count: int, own: Own) -> Block:
        """The last lines in one block; without a cursor the journal is read from its end."""
        found: deque[tuple[bytes, Callable[[], Cursor]]] = deque(maxlen=count)
        from_end = self._resume is None
        head = await self._access.store.head(self.session_id) if from_end else None
        if head is not None:
            self._note(head)
            self._cursor = self._cursor.at(generation=_generation(head), offset=head.size)
        async with aclosing(self._after_journal(own) if from_end else self._everything(own)) as blocks:
            async for block in blocks:
                found += [(line, partial(block.cursor_after, i)) for i, line in enumerate(block.lines)]
        if head is not None and len(found) < count:
            older = await last_lines(self._access.store, head, count - len(found), self._passes)
            if older is None:
                self.missing.append(Missing("journal", "it was deleted while it was read"))
            for line, end in reversed(older or ()):
                found.appendleft((line, partial(self._in_journal, end)))
        return Block([line for line, _ in found], lambda i: found[i][1]())

    def _in_journal(self, offset: int) -> Cursor:
        return Cursor(self.session_id, _generation(self.head), offset)

    async def _look_at_stream(self) -> None:
        if self._journal_only:
            return
        try:
            self.state = await stream_state(self._access.stream, self._access.leases)
        except (UnavailableError, NotConfiguredError) as problem:
            self.missing.append(Missing("stream", str(problem)))
            return
        if self._cursor.stream not in ("", self.state.digest):
            self._behind = {}  # another stream's sequence numbers say nothing of this one's
            self._cursor = self._cursor.at(shards={})
        self._cursor = self._cursor.at(stream=self.state.digest)

    # The journal

    async def _journal(self) -> AsyncGenerator[Block, None]:
        start = self._cursor
        async with aclosing(self._body_from(start.offset)) as blocks:
            async for block in blocks:
                yield block
        if self.head is None:
            if start.generation is not None:
                self.missing.append(Missing("journal", "it was deleted since the cursor"))
            self._cursor = self._cursor.at(generation=None, offset=0)
            return
        if self._is_anew(self.head, start):
            self.missing.append(Missing("journal", "it was begun anew since the cursor; read from its start"))
            self._begin_at(Cursor(self.session_id, stream=self._cursor.stream))
        elif self._sought is not None and self._is_past(self.head, start):
            why = f"entry {start.last_id} of the cursor did not get into it; some entries may come again"
            self.missing.append(Missing("journal", why))
            self._begin_at(Cursor(self.session_id, start.generation, start.offset, stream=start.stream))
        else:
            return
        async with aclosing(self._body_from(self._cursor.offset)) as blocks:
            async for block in blocks:
                yield block

    async def _body_from(self, start: int) -> AsyncGenerator[Block, None]:
        """The journal from an offset on, unless it is another than the cursor's."""
        async with self._access.store.open(self.session_id, start) as body:
            if body is None:
                return
            self._note(body.head)
            if self._is_anew(body.head, self._cursor):
                return
            async with aclosing(self._body(body)) as blocks:
                async for block in blocks:
                    yield block

    def _is_anew(self, head: Head, cursor: Cursor) -> bool:
        return cursor.generation is not None and _generation(head) != cursor.generation

    def _is_past(self, head: Head, cursor: Cursor) -> bool:
        """Whether the journal has got past the record that the cursor's last entry was in."""
        reached = head.meta.position if head.meta is not None else None
        if reached is None or reached.stream != cursor.stream or self.state is None:
            return False
        lineage = lineage_of(self.state.shards)
        listed = {shard: place for shard, place in cursor.shards.items() if lineage.knows(shard)}
        if cursor.shards and not listed:  # what is not listed any more is an ancestor that has expired
            return True
        for shard, place in listed.items():
            if any(shard in lineage.ancestors(other) for other in cursor.shards):
                continue  # the entry came from a descendant
            if shard == reached.shard:
                return place.isdigit() and int(reached.sequence) > int(place)
            if shard in lineage.ancestors(reached.shard):
                return True
        return False

    async def _body(self, body: Body) -> AsyncGenerator[Block, None]:
        generation, size, passes = _generation(body.head), body.head.size, self._passes
        self._cursor = self._cursor.at(generation=generation, offset=body.start)
        async for raw in split_blocks(body.chunks):
            start = self._cursor.offset
            end = min(start + sum(map(len, raw)) + len(raw), size)
            lines = raw if self._sought is None else self._after_sought(raw)
            if self._sought is None:
                lines = (
                    list(filter(None, lines)) if passes.passes_all else [x for x in lines if x and passes(x)]
                )
                if lines:
                    yield Block(
                        lines, partial(self._cursor_in, self._cursor.at(last_id=None), raw, lines, size)
                    )
            self._cursor = self._cursor.at(offset=end, last_id=self._sought)

    def _after_sought(self, raw: list[bytes]) -> list[bytes]:
        """What follows the cursor's last entry, if that is here; until then all is known to the reader.

        What he got from the stream comes into the journal in the same order, so what stands before
        that entry was given to him too.
        """
        quoted = f'"{self._sought}"'.encode()
        for i, line in enumerate(raw):
            if quoted in line and id_of(line) == self._sought:
                self._sought = None
                self._behind = {}
                return raw[i + 1 :]
        return []

    @staticmethod
    def _cursor_in(base: Cursor, raw: list[bytes], lines: list[bytes], size: int, index: int) -> Cursor:
        """The place after a line of the journal: `lines` are those of `raw` that were given out."""
        offset = base.offset
        given = 0
        for line in raw:
            offset += len(line) + 1
            if line is lines[given]:
                given += 1
                if given > index:
                    break
        return base.at(offset=min(offset, size))

    def _note(self, head: Head) -> None:
        self.head = head
        self.numbered = Numbered(head)

    # What is not in it yet

    async def _after_journal(self, own: Own) -> AsyncGenerator[Block, None]:
        async with aclosing(self._unflushed(own)) as blocks:
            async for block in blocks:
                yield block
        pending = await self._unacknowledged(own)
        if pending:
            yield Block(pending, lambda _: self.cursor)

    async def _unflushed(self, own: Own) -> AsyncGenerator[Block, None]:
        lines: list[bytes] = []
        places: list[int] = []  # of each line among the entries seen
        seen: list[Item] = []
        async with aclosing(self._items(own)) as items:
            async for item in items:
                seen.append(item)
                if self._passes(item.line):
                    lines.append(item.line)
                    places.append(len(seen))
                if len(lines) >= _BLOCK or len(seen) >= _LONGEST_BLOCK:
                    if lines:
                        yield Block(lines, partial(_cursor_on_stream, self._cursor, seen, places))
                    self._cursor = _cursor_on_stream(self._cursor, seen, [len(seen)], 0)
                    lines, places, seen = [], [], []
        if lines:
            yield Block(lines, partial(_cursor_on_stream, self._cursor, seen, places))
        if seen:
            self._cursor = _cursor_on_stream(self._cursor, seen, [len(seen)], 0)
        self._cursor = self._cursor.at(shards=further(self._cursor.shards, self._scanned))

    async def _items(self, own: Own) -> AsyncGenerator[Item, None]:
        """New entries from the stream, after the cursor's last one if there is a cursor."""
        async with aclosing(self._new_items(own)) as items:
            async for item in items:
                place = self._behind.get(item.position.shard, "")
                if place.isdigit() and int(item.position.sequence) <= int(place):
                    if self._sought is not None and id_of(item.line) == self._sought:
                        self._sought = None
                        self._behind = {}  # what follows it in its own record is new
                    continue
                yield item

    async def _new_items(self, own: Own) -> AsyncGenerator[Item, None]:
        self._scanned: dict[str, str] = {}
        if self.state is None:
            return
        reached = self.head.meta.position if self.head is not None and self.head.meta is not None else None
        scan = Scan(self._access.feeds, self.state, self._access.clock, at_least=own.at_least)
        try:
            for shard in shards_of(self.state, self.session_id):
                place = start_in(self.state, shard, reached)
                if place is None:
                    continue
                async with aclosing(scan.items(shard, place, self.session_id)) as items:
                    async for item in items:
                        if await self._is_new(item.writer, item.n):
                            yield item
            self.scanned = True
        except UnavailableError as problem:
            self.missing.append(Missing("stream", str(problem)))
        if scan.overdue:
            self.missing.append(Missing("stream", "it does not show yet what this process sent to it"))
        self.missing += [Missing("range", str(gap)) for gap in scan.trimmed]
        self._scanned = {shard: place for shard, place in scan.places.items() if place.isdigit()}

    async def _is_new(self, writer: str | None, n: int) -> bool:
        """Looks into the body for a writer that the metadata had no room for."""
        if writer is not None and not self.numbered.knows(writer):
            await self.learn_numbers()
        return self.numbered.is_new(writer, n)

    async def learn_numbers(self) -> None:
        """Have every writer's numbers, of the version that was given out, from the journal's lines."""
        if self.head is not None and not self.numbered.complete:
            numbers, _ = await read_history(self._access.store, self.session_id, upto=self.head)
            self.numbered.learn(numbers)

    async def _unacknowledged(self, own: Own) -> list[bytes]:
        """Lines of this process that neither the journal nor the stream had."""
        lines: list[bytes] = []
        for line in own.pending + self._own().pending:
            name = split_id(id_of(line) or "")
            if name is not None and await self._is_new(*name) and self._passes(line):
                lines.append(line)
        return lines


def _cursor_on_stream(base: Cursor, seen: list[Item], places: list[int], index: int) -> Cursor:
    """The place after an entry of the stream: after the first so many of those seen."""
    upto = seen[: places[index]]
    shards = base.shards | {item.position.shard: item.position.sequence for item in upto}
    return base.at(shards=shards, last_id=id_of(upto[-1].line))


def further(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    """The further place in each shard: a scan that broke off does not take a cursor back."""
    return {**a, **{s: max(place, a.get(s, place), key=int) for s, place in b.items()}}


def id_of(line: bytes) -> str | None:
    """An entry's id; None for a line without one."""
    envelope = envelope_of(line)
    return envelope.id or None if envelope is not None else None


def _generation(head: Head | None) -> str | None:
    return head.meta.generation if head is not None and head.meta is not None else None
