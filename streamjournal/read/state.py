"""A session's entries folded into one value, which is brought up to date by what came since.

Each entry is folded in once, in the journal's order. What this process has emitted and the stream has
not acknowledged is left out until it is: its place among the others' is not known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, TypeVar

import anyio

from streamjournal.core.entry import Entry
from streamjournal.core.loop_thread import LoopThread
from streamjournal.read.results import AsyncRead
from streamjournal.read.words import Missing

T = TypeVar("T")


class AsyncState(Generic[T]):
    """A value folded from a session's entries.

    Args:
        read: begins a read after a cursor (None: from the start), without what is not acknowledged.
        reducer: gives the next value, from the value so far and an entry.
        initial: makes the value before the first entry.
    """

    def __init__(
        self,
        read: Callable[[str | None], AsyncRead],
        reducer: Callable[[T, Entry], T],
        initial: Callable[[], T],
    ) -> None:
        self._read = read
        self._reducer = reducer
        self._initial = initial
        self._updating = anyio.Lock()
        self.missing: list[Missing] = []
        self._begin()

    def _begin(self) -> None:
        self._cursor: str | None = None
        self.value = self._initial()

    async def update(self) -> T:
        """Fold in what came since, and give the value.

        A journal that was begun anew is folded from its start. `missing` says what could not be read
        this time.

        Raises:
            StoreUnavailableError, NotConfiguredError: the journal cannot be read; the value is as it was.
            Exception: the reducer's own; the next update begins from the start.
        """
        async with self._updating:
            read = self._read(self._cursor)
            await self._fold(read)
            if any(gap.what == "journal" for gap in read.missing):
                self._begin()
                read = self._read(None)
                await self._fold(read)
            self.missing = read.missing
            return self.value

    async def _fold(self, read: AsyncRead) -> None:
        async with aclosing(read.blocks()) as blocks:
            async for block in blocks:
                if any(gap.what == "journal" for gap in read.missing):
                    return  # these are its entries from the start
                try:
                    for entry in block:
                        self.value = self._reducer(self.value, entry)
                except BaseException:
                    self._begin()  # a value that was changed half-way is of no use
                    raise
                self._cursor = read.cursor
        self._cursor = read.cursor


class State(Generic[T]):
    """A value folded from a session's entries, for sync code. See `AsyncState`."""

    def __init__(self, state: AsyncState[T], loop: LoopThread) -> None:
        self._state = state
        self._loop = loop

    @property
    def value(self) -> T:
        """As of the last update."""
        return self._state.value

    @property
    def missing(self) -> list[Missing]:
        """What could not be read at the last update, and why."""
        return self._state.missing

    def update(self) -> T:
        """Fold in what came since, and give the value; see `AsyncState.update`."""
        return self._loop.call(self._state.update)
