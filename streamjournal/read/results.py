"""What a read and a tail give to those who asked: iterables of entries, for async and for sync code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Self

from streamjournal.core.entry import Entry
from streamjournal.core.errors import InvalidEntryError
from streamjournal.core.loop_thread import LoopThread
from streamjournal.read.blobs import decode_with_blob
from streamjournal.read.merged import Access, MergedRead, Missing
from streamjournal.read.tail import Tail


class AsyncRead:
    """Entries of a session, as an async iterable; go through it once.

    Afterwards `complete` says whether that was everything, `missing` what was not there and why, and
    `cursor` where to go on.
    """

    def __init__(self, merged: MergedRead, access: Access, prepare: Callable[[], Awaitable[None]]) -> None:
        self._merged = merged
        self._access = access
        self._prepare = prepare

    async def blocks(self) -> AsyncGenerator[list[Entry], None]:
        """The entries in lists, as they were read: fewer async steps for many entries."""
        await self._prepare()
        store, session_id, missing = self._access.store, self._merged.session_id, self._merged.missing
        async for lines in self._merged.blocks():
            block = []
            for line in lines:
                try:
                    block.append(await decode_with_blob(store, line, session_id, missing))
                except InvalidEntryError as problem:
                    missing.append(Missing("line", f"{line[:60]!r} {problem}"))
            yield block

    async def __aiter__(self) -> AsyncIterator[Entry]:
        async for block in self.blocks():
            for entry in block:
                yield entry

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
        """Where to go on, as `after=` of a later read or tail."""
        return str(self._merged.cursor)


class AsyncTail:
    """Entries as they come; an async iterable inside `async with journal.tail(…)`."""

    def __init__(self, tail: Tail, access: Access) -> None:
        self._tail = tail
        self._access = access

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        while True:
            line = await anext(self._tail)
            try:
                return await decode_with_blob(
                    self._access.store, line, self._tail.session_id or "", self._tail.missing
                )
            except InvalidEntryError as problem:
                self._tail.missing.append(Missing("line", f"{line[:60]!r} {problem}"))

    @property
    def missing(self) -> list[Missing]:
        """What could not be read so far, and why."""
        return self._tail.missing

    @property
    def cursor(self) -> str:
        """Where to go on after the last entry, as `after=` of a later read or tail."""
        return str(self._tail.cursor)


class Read:
    """Entries of a session, as an iterable; go through it once. See `AsyncRead`."""

    def __init__(self, read: AsyncRead, loop: LoopThread) -> None:
        self._read = read
        self._loop = loop

    def blocks(self) -> Iterator[list[Entry]]:
        """The entries in lists, as they were read."""
        blocks = self._read.blocks()

        async def step() -> list[Entry] | None:
            return await anext(blocks, None)

        try:
            while (block := self._loop.call(step)) is not None:
                yield block
        finally:  # also when left half-way
            if self._loop.running and not self._loop.is_current:  # the garbage collector may run us there
                self._loop.call(blocks.aclose)

    def __iter__(self) -> Iterator[Entry]:
        for block in self.blocks():
            yield from block

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
