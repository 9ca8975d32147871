"""The package, broken on purpose: each way of getting a promise wrong that its design rules out.

Each is a context manager that replaces a few lines of the package. A test turns it on and sees the
simulation fail, with the invariant that is meant to catch it; so a green simulation says something.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from streamjournal.core.errors import CommitConflictError, CommitUnknownError
from streamjournal.core.item import Item
from streamjournal.core.position import Lineage, Position, ShardStart
from streamjournal.emit import spool_folder
from streamjournal.emit.batch import Call, Lane, RecordDraft
from streamjournal.emit.sender import Sender
from streamjournal.ingest import shard_task
from streamjournal.ingest.journal_sink import JournalShard
from streamjournal.ingest.worker import Worker
from streamjournal.leases.memory import Change, MemoryLeases
from streamjournal.leases.port import Lease
from streamjournal.read.merged import MergedRead
from streamjournal.read.words import Block
from streamjournal.store.commit import Committed, Committer, History
from streamjournal.store.port import Head
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.port import PutRecord


@contextmanager
def no_position_check() -> Iterator[None]:
    """The committer does not ask whether the journal's position covers a record."""

    def covers(self: Lineage, reached: Position | None, record: Position) -> bool:
        return False

    with mock.patch.object(Lineage, "covers", covers):
        yield


@contextmanager
def position_of_an_ancestor() -> Iterator[None]:
    """A position in another shard says nothing, so an ancestor's replaces a descendant's."""

    def covers(self: Lineage, reached: Position | None, record: Position) -> bool:
        if reached is None or reached.stream != record.stream or reached.shard != record.shard:
            return False
        return int(record.sequence) <= int(reached.sequence)

    with mock.patch.object(Lineage, "covers", covers):
        yield


@contextmanager
def no_number_check() -> Iterator[None]:
    """The committer takes an entry whose number the journal has already."""

    async def missing(self: Committer, history: History, items: Sequence[Item]) -> list[Item]:
        lineage = await self._lineage_for(history.reached, items)
        fresh = [item for item in items if not lineage.covers(history.reached, item.position)]
        for item in fresh:
            if item.writer is not None:
                history.numbers.add(item.writer, item.n)
        return fresh

    with mock.patch.object(Committer, "_missing", missing):
        yield


@contextmanager
def two_records_of_a_session_in_a_call() -> Iterator[None]:
    """A backlog of a session goes as two records of one call, of which one may be refused alone."""
    whole_add, whole_acknowledge, whole_let_go = Call.add, Sender._acknowledge, Sender._let_go

    def add(self: Call, lane: Lane) -> bool:
        if not whole_add(self, lane):
            return False
        draft = self.drafts[-1]
        half = len(draft.items) // 2
        if half and not draft.shortens:
            self.drafts[-1:] = [_part(draft, 0, half), _part(draft, half, len(draft.items))]
        return True

    def acknowledge(self: Sender, draft: RecordDraft, position: Position) -> None:
        queue = draft.lane.outbox.items
        for item in draft.items:  # those of this record to the front, where the sender takes them from
            queue.remove(item)
        queue.extendleft(reversed(draft.items))
        whole_acknowledge(self, draft, position)

    def let_go(self: Sender, lane: Lane, *, due: float | None = None) -> None:
        if lane.outbox in self._lanes:  # the other record of this lane may have let it go
            whole_let_go(self, lane, due=due)

    with (
        mock.patch.object(Call, "add", add),
        mock.patch.object(Sender, "_acknowledge", acknowledge),
        mock.patch.object(Sender, "_let_go", let_go),
    ):
        yield


def _part(draft: RecordDraft, start: int, stop: int) -> RecordDraft:
    items = draft.items[start:stop]
    key = draft.lane.outbox.session_id
    data = aggregate(key, [item.line or b"" for item in items])
    return RecordDraft(draft.lane, items, PutRecord(key, data), len(data))


@contextmanager
def spool_liveness_by_pid() -> Iterator[None]:
    """A spool is an orphan when this machine knows no process of its writer's pid; a container knows none
    of another container's.
    """

    def try_lock(path: Path) -> int:
        return os.open(path / spool_folder.LOCK, os.O_RDWR)

    with mock.patch.object(spool_folder, "_try_lock", try_lock):
        yield


class _At(ShardStart):
    """A place to start whose `after` is at the checkpoint."""

    @classmethod
    def after(cls, checkpoint: str | None) -> ShardStart:
        start = ShardStart.after(checkpoint)
        return start if start.sequence is None else start._replace(kind="AT_SEQUENCE_NUMBER")


@contextmanager
def resume_at_the_checkpoint() -> Iterator[None]:
    """A worker goes on at the checkpoint's own record instead of after it, and does not ask for positions.

    By itself it is harmless: the record is in the journals that it belongs to, and the journals' positions
    cover it. So this breaks both, for a world in which only this makes a worker read anything twice.
    """
    with no_position_check(), mock.patch.object(shard_task, "ShardStart", _At):
        yield


@contextmanager
def checkpoint_before_commit() -> Iterator[None]:
    """The checkpoint goes up to what was read, not to what was written."""
    with mock.patch.object(JournalShard, "durable", lambda self: self._last):
        yield


@contextmanager
def child_before_parent() -> Iterator[None]:
    """A child shard is read as soon as it is listed."""

    def is_ready(self: Worker, shard: Any, rows: dict[str, Lease]) -> bool:
        return rows[shard.id].checkpoint != "SHARD_END"

    with mock.patch.object(Worker, "_is_ready", is_ready):
        yield


@contextmanager
def retry_on_the_committing_call() -> Iterator[None]:
    """A commit that fails is sent again, against whatever version there is by then, as it is.

    An SDK's own retry, of the same bytes under the same condition, is harmless here: whatever became of
    the first try, the condition refuses the second one, and the resolver finds the commit's id. So this
    breaks both: the retry, and the look at what the journal has before it.
    """

    async def commit(
        self: Committer,
        session_id: str,
        items: Sequence[Item],
        known: Head | None,
        still_ours: Callable[[], Awaitable[None]],
    ) -> Committed:
        base = known if known is not None else await self._store.head(session_id)
        history = await self._history(session_id, base, items)
        fresh = await self._missing(history, items)
        if not fresh:
            return Committed(base, 0, len(items), 0)
        while True:
            history = await self._history(session_id, base, items)
            for item in fresh:
                if item.writer is not None:
                    history.numbers.add(item.writer, item.n)
            lines, meta = self._next_version(
                session_id, base, history, fresh, reached=items[-1].position, deleted=False
            )
            try:
                head = await self._store.append(session_id, base, lines, meta)
            except (CommitConflictError, CommitUnknownError):
                base = await self._store.head(session_id)
            else:
                return Committed(head, len(fresh), 0, 0)

    with mock.patch.object(Committer, "commit", commit):
        yield


@contextmanager
def metadata_only_commit() -> Iterator[None]:
    """A batch that is all duplicates still moves the position on, by a version with the same body."""
    commit = Committer.commit

    async def and_metadata(
        self: Committer,
        session_id: str,
        items: Sequence[Item],
        known: Head | None,
        still_ours: Callable[[], Awaitable[None]],
    ) -> Committed:
        done = await commit(self, session_id, items, known, still_ours)
        if done.written or done.head is None:
            return done
        history = await self._history(session_id, done.head, items)
        _, meta = self._next_version(
            session_id, done.head, history, list(items), reached=items[-1].position, deleted=False
        )
        head = await self._store.append(session_id, done.head, b"", meta)
        return done._replace(head=head)

    with mock.patch.object(Committer, "commit", and_metadata):
        yield


@contextmanager
def reorder_after_partial_failure() -> Iterator[None]:
    """What a call refused is queued again behind what came meanwhile."""
    postpone = Sender._postpone

    def behind(self: Sender, lane: Lane) -> None:
        lane.outbox.items.rotate(-1)
        postpone(self, lane)

    with mock.patch.object(Sender, "_postpone", behind):
        yield


@contextmanager
def lease_without_condition() -> Iterator[None]:
    """A row of the lease table is written over, whatever it is by now."""

    async def update(self: MemoryLeases, seen: Lease, changed: Lease) -> Lease:
        before = self._rows.get(seen.key)
        self._rows[seen.key] = changed
        self.history.append(Change("updated", before, changed))
        return changed

    with mock.patch.object(MemoryLeases, "update", update):
        yield


@contextmanager
def journal_before_checkpoint() -> Iterator[None]:
    """A merged read reads the journal first, and asks for the checkpoints when it has it."""

    async def blocks(self: MergedRead) -> AsyncGenerator[Block, None]:
        own = self._own()
        async with aclosing(self._journal()) as journal:
            async for block in journal:
                yield block
        await self._look_at_stream()
        async with aclosing(self._after_journal(own)) as rest:
            async for block in rest:
                yield block
        self.finished = True

    with mock.patch.object(MergedRead, "blocks", blocks):
        yield


@contextmanager
def spool_truncated_before_acknowledgement() -> Iterator[None]:
    """A frame counts as done when its record is sent, not when the stream has it."""
    put = Sender._put

    async def put_and_forget(self: Sender, call: Call) -> None:
        for draft in call.drafts:
            for item in draft.items:
                if item.segment is not None:
                    item.segment.map[item.offset + 8] = 1
        await put(self, call)

    with mock.patch.object(Sender, "_put", put_and_forget):
        yield
