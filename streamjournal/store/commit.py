"""The committer: makes a journal longer so that every entry is in it exactly once.

A store's `append` is tried once and may end without an answer. Everything that it can end with goes
to one loop here: look at the journal as it is now, drop what it already has (by position, by the
writers' numbers), and try again with the rest. Two things follow from that loop alone: a write that
worked although its answer was lost is not repeated, and a second worker that believes in the same
lease cannot double an entry, whoever comes first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    CommitConflictError,
    CommitUnknownError,
    JournalGoneError,
    StoreUnavailableError,
)
from streamjournal.core.item import Item
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Lineage, Position
from streamjournal.core.summary import Summary
from streamjournal.store.history import count_body
from streamjournal.store.meta import Meta
from streamjournal.store.notices import Deletion, with_notices
from streamjournal.store.port import Head, Store

_MAX_TRIES = 8  # conflicts in a row before the caller's own backoff takes over
_MAX_WRITERS = 4096  # that a head given back remembers beyond what its metadata has room for

_ONE_SHARD = Lineage({})

LineageSource = Callable[[Collection[str]], Awaitable[Lineage]]
"""Gives a lineage that was fetched late enough to list these shards, if they still exist."""


class Committed(NamedTuple):
    """What a commit did.

    Args:
        head: the journal now; None if there was nothing to write and there is no journal.
        written: entries that it wrote, notices included.
        duplicates: items that the journal had already.
        conflicts: tries that met another version, or no answer.
    """

    head: Head | None
    written: int
    duplicates: int
    conflicts: int


class History(NamedTuple):
    """What a journal has, when a commit begins.

    Args:
        numbers: without jumps, so that those of the commit are told from earlier ones.
        generation: None for a journal that is yet to be begun, or adopted.
        crc: of the body, as the lines are put after it; None if nobody knows.
    """

    reached: Position | None
    numbers: WriterNumbers
    summary: Summary
    generation: str | None
    crc: int | None


class Committer:
    """Commits items to journals, through any store.

    Args:
        lineage: gives the shards' lineage, fresh enough to know the shards that it is asked for.
    """

    def __init__(self, store: Store, clock: Clock, lineage: LineageSource) -> None:
        self._store = store
        self._clock = clock
        self._lineage = lineage

    async def commit(
        self,
        session_id: str,
        items: Sequence[Item],
        known: Head | None,
        still_ours: Callable[[], Awaitable[None]],
    ) -> Committed:
        """Bring the items that the journal does not have into it, in their order.

        Args:
            items: in stream order; all of this session, and of one shard.
            known: the head after the last commit, if the caller remembers it; otherwise it is asked for.
            still_ours: called before another try; raises LeaseLostError if the shard was lost.

        Raises:
            UnavailableError: nothing could be resolved for now; call again with the same items.
            CommitRefusedError: the store will never take this.
            LeaseLostError: from `still_ours`.
        """
        base = known if known is not None else await self._store.head(session_id)
        deleted = await self._found_deleted(session_id) if base is None and items else None
        conflicts = 0
        backoff = Backoff(self._clock, first=0.05, longest=2.0)
        while True:
            history = await self._history(session_id, base, items)
            fresh = await self._missing(history, items)
            if not fresh:
                return Committed(base, 0, len(items), conflicts)
            lines, meta = self._next_version(
                session_id, base, history, fresh, reached=items[-1].position, deleted=deleted
            )
            added = meta.summary.entries - history.summary.entries
            try:
                head = await self._store.append(session_id, base, lines, meta)
            except (CommitConflictError, CommitUnknownError, JournalGoneError) as problem:
                conflicts += 1
                if conflicts >= _MAX_TRIES:
                    raise StoreUnavailableError(
                        f"{conflicts} commits in a row failed: {problem}"
                    ) from problem
                await backoff.wait()
                before, base = base, await self._store.head(session_id)
                if base is not None and base.meta is not None and base.meta.commit == meta.commit:
                    return Committed(base, added, len(items) - len(fresh), conflicts)
                if base is not None:
                    deleted = None
                elif before is not None:
                    deleted = Deletion.SEEN
                await still_ours()
            else:
                head = _with_all_writers(head, meta.writers)
                return Committed(head, added, len(items) - len(fresh), conflicts)

    async def _found_deleted(self, session_id: str) -> Deletion | None:
        """A deletion that happened before this commit, while nobody remembered the journal: the numbers
        of a new writer begin at 1 and would not show it.
        """
        return Deletion.FOUND if await self._store.was_deleted(session_id) else None

    async def _history(self, session_id: str, base: Head | None, items: Sequence[Item]) -> History:
        """What the journal at `base` has; by its metadata, or by its lines where that does not say."""
        if base is None:
            return History(None, WriterNumbers(), Summary(), None, 0)
        if base.meta is None:  # an older tool's journal, or its metadata was removed by hand
            numbers, summary, crc = await count_body(self._store, session_id)
            return History(None, numbers.copy(), summary, None, crc)
        meta = base.meta
        numbers, known = meta.writers.copy(), meta.crc
        if any(not numbers.knows(item.writer) for item in items if item.writer is not None):
            found, _, crc = await count_body(self._store, session_id)
            for writer in numbers.writers():  # the map's own order says who was heard last
                found.touch(writer)
            numbers = found.copy()
            known = crc if known is None else known
        return History(meta.position, numbers, meta.summary, meta.generation, known)

    async def _missing(self, history: History, items: Sequence[Item]) -> list[Item]:
        """The items that the journal lacks; they are counted into the history's numbers."""
        lineage = await self._lineage_for(history.reached, items)
        add = history.numbers.add
        fresh: list[Item] = []
        record: Position | None = None
        behind = False
        for item in items:
            if item.position is not record:  # items of one record share it
                record = item.position
                behind = lineage.covers(history.reached, record)
            if not behind and (item.writer is None or add(item.writer, item.n)):
                fresh.append(item)
        return fresh

    async def _lineage_for(self, reached: Position | None, items: Sequence[Item]) -> Lineage:
        """What tells the items' positions from the one reached; nothing needs to be asked in one shard."""
        if reached is None or not items:
            return _ONE_SHARD
        here = items[0].position
        if here.stream != reached.stream or here.shard == reached.shard:
            return _ONE_SHARD
        return await self._lineage({here.shard, reached.shard})

    def _next_version(
        self,
        session_id: str,
        base: Head | None,
        history: History,
        fresh: list[Item],
        *,
        reached: Position,
        deleted: Deletion | None,
    ) -> tuple[bytes, Meta]:
        """The bytes to add, and the metadata of the journal once it has them."""
        added = with_notices(
            session_id,
            fresh,
            history.numbers.jumps,
            self._clock.time_ns(),
            new=base is None,
            deleted=deleted,
        )
        parts = [item.line for item in added]
        parts.append(b"")
        lines = b"\n".join(parts)
        meta = Meta(
            generation=history.generation or self._clock.draw_id(),
            commit=self._clock.draw_id(),
            position=reached,
            writers=history.numbers,
            summary=summarise(history.summary, added),
            crc=None if history.crc is None else crc32(lines, history.crc),
        )
        return lines, meta


def summarise(summary: Summary, items: Sequence[Item]) -> Summary:
    """The summary of a journal once `items` are in it."""
    first, last, errors, status = summary.first, summary.last, summary.errors, summary.status
    for item in items:
        errors += item.level == "ERROR"
        if item.status is not None:
            status = item.status
        if item.timestamp:
            first = first or item.timestamp
            last = item.timestamp
    return Summary(summary.entries + len(items), errors, first, last, status)


def _with_all_writers(head: Head, writers: WriterNumbers) -> Head:
    """The head with every writer that is known, so that the next commit need not read the body for
    those that the metadata had no room for.
    """
    if head.meta is None or len(writers) > _MAX_WRITERS:
        return head
    return msgspec.structs.replace(head, meta=msgspec.structs.replace(head.meta, writers=writers))
