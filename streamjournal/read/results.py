"""What a read and a tail give to those who asked: iterables of entries, for async and for sync code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Self, TypeVar

from streamjournal.core.backoff import Backoff
from streamjournal.core.entry import Entry, decode_entry
from streamjournal.core.errors import InvalidEntryError, UnavailableError
from streamjournal.core.loop_thread import LoopThread
from streamjournal.read.blobs import decode_with_blob, may_have_blob
from streamjournal.read.cursor import Cursor
from streamjournal.read.merged import MergedRead
from streamjournal.read.tail import Tail
from streamjournal.read.words import Access, Block, Missing

T = TypeVar("T")


class AsyncRead:
    """Entries of a session, as an async iterable; go through it once.

    Afterwards `complete` says whether that was everything, and `missing` what was not there and why;
    `cursor` says where to go on, meanwhile too.
    """

    def __init__(self, merged: MergedRead, access: Access, prepare: Callable[[], Awaitable[None]]) -> None:
        self._merged = merged
        self._access = access
        self._prepare = prepare
        self._cursor: Callable[[], Cursor] | None = None

    async def blocks(self) -> AsyncGenerator[list[Entry], None]:
        """The entries in lists, as they were read: fewer async steps for many entries."""
        async with aclosing(self.decoded()) as blocks:
            async for block, found in blocks:
                if found:
                    self.give(block, found[-1][1])
                yield [entry for entry, _ in found]

    async def __aiter__(self) -> AsyncGenerator[Entry, None]:
        async with aclosing(self.decoded()) as blocks:
            async for block, found in blocks:
                for entry, index in found:
                    self.give(block, index)
                    yield entry

    def give(self, block: Block, index: int) -> None:
        """Move the cursor past an entry that is given out now."""
        self._cursor = partial(block.cursor_after, index)

    async def decoded(self) -> AsyncGenerator[tuple[Block, list[tuple[Entry, int]]], None]:
        """Each block with its entries, and the index of each one's line; `give` moves the cursor."""
        await self._prepare()
        async with aclosing(self._merged.blocks()) as blocks:
            async for block in blocks:
                yield block, await self._decode(block.lines)
        self._cursor = None

    async def _decode(self, lines: list[bytes]) -> list[tuple[Entry, int]]:
        found: list[tuple[Entry, int]] = []
        session_id, missing = self._merged.session_id, self._merged.missing
        for index, line in enumerate(lines):
            try:
                if may_have_blob(line):
                    entry = await decode_with_blob(self._access.store, line, session_id, missing)
                else:
                    entry = decode_entry(line, session_id=session_id)
            except InvalidEntryError as problem:
                missing.append(Missing("line", f"{line[:60]!r} {problem}"))
            else:
                found.append((entry, index))
        return found

    async def all(self) -> list[Entry]:
        """Every entry in one list."""
        return [entry async for entry in self]

    @property
    def complete(self) -> bool:
        """Whether everything has been given out, with nothing missing."""
        return self._merged.complete

    @property
    def missing(self) -> list[Missing]:
        """What could not be read, and why."""
        return self._merged.missing

    @property
    def cursor(self) -> str:
        """Where to go on after the last entry given out, as `after=` of a later read or tail."""
        return str(self._merged.cursor if self._cursor is None else self._cursor())


class AsyncTail:
    """Entries as they come; an async iterable inside `async with journal.tail(…)`.

    Whoever gives up waiting (a timeout around `anext`) loses nothing: the next call, or a tail that is
    resumed by the cursor, gives the same entry.
    """

    def __init__(self, tail: Tail, access: Access) -> None:
        self._tail = tail
        self._access = access
        self._line: bytes | None = None  # the next one, taken from the tail and not given out

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        while True:
            if self._line is None:
                self._line = await anext(self._tail)
            entry = await self._decode(self._line)
            self._line = None
            if entry is not None:
                return entry

    async def _decode(self, line: bytes) -> Entry | None:
        """The entry of a line; a store that does not answer for its blob is waited for, as the stream is."""
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        session_id, missing = self._tail.session_id or "", self._tail.missing
        while True:
            try:
                return await decode_with_blob(self._access.store, line, session_id, missing)
            except InvalidEntryError as problem:
                missing.append(Missing("line", f"{line[:60]!r} {problem}"))
                return None
            except UnavailableError as problem:
                if not self._tail.follow:
                    raise
                if not backoff.failures:
                    missing.append(Missing("store", str(problem)))
                await backoff.wait()

    @property
    def missing(self) -> list[Missing]:
        """What could not be read so far, and why."""
        return self._tail.missing

    @property
    def cursor(self) -> str:
        """Where to go on after the last entry, as `after=` of a later read or tail."""
        return str(self._tail.cursor if self._line is None else self._tail.cursor_before)


class Read:
    """Entries of a session, as an iterable; go through it once. See `AsyncRead`."""

    def __init__(self, read: AsyncRead, loop: LoopThread) -> None:
        self._read = read
        self._loop = loop

    def blocks(self) -> Iterator[list[Entry]]:
        """The entries in lists, as they were read."""
        return self._step_through(self._read.blocks())

    def __iter__(self) -> Iterator[Entry]:
        for block, found in self._step_through(self._read.decoded()):
            for entry, index in found:  # who leaves here goes on after this entry, not after its block
                self._read.give(block, index)
                yield entry

    def _step_through(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Each item, by one call into the loop."""

        async def step() -> T | None:
            return await anext(items, None)

        try:
            while (item := self._loop.call(step)) is not None:
                yield item
        finally:  # also when left half-way
            if self._loop.running and not self._loop.is_current:  # the garbage collector may run us there
                self._loop.call(items.aclose)

    def all(self) -> list[Entry]:
        """Every entry in one list."""
        return list(self)

    @property
    def complete(self) -> bool:
        """Whether everything has been given out, with nothing missing."""
        return self._read.complete

    @property
    def missing(self) -> list[Missing]:
        """What could not be read, and why."""
        return self._read.missing

    @property
    def cursor(self) -> str:
        """Where to go on, as `after=` of a later read or tail."""
        return self._read.cursor


class SyncTail:
    """Entries as they come; an iterable inside `with journal.tail(…)`."""

    def __init__(self, tail: AsyncTail, loop: LoopThread) -> None:
        self._tail = tail
        self._loop = loop

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        entry = self._loop.call(self._step)
        if entry is None:
            raise StopIteration
        return entry

    async def _step(self) -> Entry | None:
        return await anext(self._tail, None)

    @property
    def missing(self) -> list[Missing]:
        """What could not be read so far, and why."""
        return self._tail.missing

    @property
    def cursor(self) -> str:
        """Where to go on after the last entry, as `after=` of a later read or tail."""
        return self._tail.cursor
