"""The journal sink: a shard's entries, split by session, committed to their journals when due.

A session is due at SESSION_END, at `session_bytes`, or when its oldest entry has waited for the
flush interval, which grows with the journal because S3 copies the journal with each commit. Once
`unflushed_bytes` wait on the shard, its oldest sessions are due until it is under, so that a merged
read never has to scan far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import itemgetter

import anyio
import structlog

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import CommitRefusedError, LeaseLostError, StreamjournalError
from streamjournal.core.item import Item
from streamjournal.core.settings import Settings
from streamjournal.ingest.backlog import Backlog, Pending
from streamjournal.ingest.sink import Budget
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.store.commit import Committer
from streamjournal.store.port import DeadLetter, Head, Store
from streamjournal.stream.port import Record
from streamjournal.stream.records import Poison, parse_record

_log = structlog.get_logger("streamjournal.ingest")
_MIB = 2**20
_LONGEST_INTERVAL = 300.0
_ENOUGH_FAILURES = 4  # in one flush, to take the store for away
_ENDS = frozenset(("ended", "failed"))
_MAX_HEADS = 20_000  # journals whose last known head is kept; a miss is one HEAD request


class JournalSink:
    """Makes the sink of each shard; what they share is here.

    Args:
        parallel: commits of one shard under way at once.
        stretch: seconds that the flush interval grows by per MiB of journal; 0 where a commit costs
            the same whatever the journal's size (files).
    """

    name = "journal"

    def __init__(
        self,
        store: Store,
        committer: Committer,
        settings: Settings,
        clock: Clock,
        budget: Budget,
        stats: Stats,
        trouble: Trouble,
        *,
        parallel: int = 16,
        stretch: float = 1.0,
    ) -> None:
        self.store = store
        self.committer = committer
        self.settings = settings
        self.clock = clock
        self.budget = budget
        self.stats = stats
        self.trouble = trouble
        self.parallel = parallel
        self.stretch = stretch

    def open(self, shard_id: str, stream: str, still_ours: Callable[[], Awaitable[None]]) -> JournalShard:
        """The sink of one shard."""
        return JournalShard(self, shard_id, stream, still_ours)


class JournalShard:
    """The journal sink on one shard."""

    def __init__(
        self, sink: JournalSink, shard_id: str, stream: str, still_ours: Callable[[], Awaitable[None]]
    ) -> None:
        self._sink = sink
        self._clock = sink.clock
        self._settings = sink.settings
        self._shard_id = shard_id
        self._stream = stream
        self._still_ours = still_ours
        self._backlog = Backlog()
        self._letters: list[DeadLetter] = []
        self._letters_size = 0
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._last: str | None = None  # sequence number of the last record taken
        self._size = 0  # bytes of entries and letters
        self._backoff = Backoff(sink.clock, first=0.2, longest=30.0)
        self._not_before = 0.0
        self._seen = sink.stats.shard(shard_id, sink.clock.monotonic())

    def take(self, records: Sequence[Record]) -> None:
        """Take records: entries to their sessions, poison to the dead letters."""
        now = self._clock.monotonic()
        entries = 0
        for record in records:
            items, poison = parse_record(record, self._stream)
            if poison:
                self._add_letters(record, poison)
            self._add(items, now, record.arrival_ms)
            self._last = record.sequence
            entries += len(items)
        self._sink.stats.records += len(records)
        self._sink.stats.entries += entries
        self._note_oldest()

    def _add_letters(self, record: Record, poison: Sequence[Poison]) -> None:
        key, arrival = record.partition_key, record.arrival_ms
        for index, data, reason in poison:
            self._letters.append(
                DeadLetter(self._stream, record.shard, record.sequence, index, key, reason, data, arrival)
            )
            self._letters_size += len(data)
            self._hold(len(data))

    def _add(self, items: Sequence[tuple[str, Item]], now: float, arrival_ms: int) -> None:
        """Add a record's entries; nearly always they are all of one session."""
        for session_id, group in groupby(items, key=itemgetter(0)):
            pending = self._backlog.sessions.get(session_id)
            if pending is None:
                due = now + self._interval(session_id)
                pending = self._backlog.begin(
                    session_id, before=self._last, now=now, due=due, arrival_ms=arrival_ms
                )
            added = [item for _, item in group]
            pending.items += added
            size = sum([len(item.line) for item in added])
            pending.size += size
            if not _ENDS.isdisjoint([item.status for item in added]):
                self._backlog.hurry(session_id)
            if pending.size >= self._settings.session_bytes:
                self._backlog.hurry(session_id)
            self._hold(size)

    def _interval(self, session_id: str) -> float:
        """Seconds until a session is flushed, by the size of its journal."""
        interval = self._settings.flush_seconds
        head = self._heads.get(session_id)
        if head is None or not self._sink.stretch:
            return interval
        grown = interval + self._sink.stretch * head.size / _MIB
        return max(interval, min(grown, _LONGEST_INTERVAL))

    def _hold(self, size: int) -> None:
        self._size += size
        self._sink.budget.used += size
        self._sink.stats.buffered_bytes += size

    def durable(self) -> str | None:
        """Before the oldest pending record, or everything taken if nothing is pending."""
        if self._letters:
            return None
        oldest = self._backlog.oldest()
        return self._last if oldest is None else oldest.before

    @property
    def pending(self) -> bool:
        """Whether entries or dead letters are not durable."""
        return bool(self._backlog.sessions or self._letters)

    def pause(self) -> float | None:
        """Seconds until a session is due."""
        if not self.pending:
            return None
        now = self._clock.monotonic()
        due = now if self._letters or self._sink.budget.full else self._backlog.next_due()
        return max(0.0, (now if due is None else due) - now, self._not_before - now)

    async def flush(self, *, everything: bool = False) -> None:
        """Commit what is due, oldest first, several sessions at once.

        What fails is tried again after a wait that grows; what waits stays within the worker's memory
        bound, since a full budget stops the reading.
        """
        now = self._clock.monotonic()
        if now < self._not_before or not self.pending:
            return
        due = self._due(now, everything=everything or self._sink.budget.full)
        if (due or self._letters) and self._seen.due_since is None:
            self._seen.due_since = now  # until all of it is written: also seen while a store never answers
        try:
            await self._put_letters()
            await self._commit(due)
        except LeaseLostError:
            raise
        except StreamjournalError as problem:
            wait = self._backoff.failed()
            self._sink.stats.flush_failures += 1
            self._not_before = self._clock.monotonic() + wait
            self._sink.trouble.failed(f"store for {self._shard_id}", problem)
            _log.warning(
                "flush_failed", shard=self._shard_id, problem=str(problem), retry_in_s=round(wait, 1)
            )
        else:
            self._backoff.worked()
            self._sink.trouble.worked(f"store for {self._shard_id}")
            self._seen.due_since = None
        self._note_oldest()

    def _note_oldest(self) -> None:
        """Say how old the oldest record is that is not durable."""
        oldest = self._backlog.oldest()
        arrivals = [letter.arrival_ms for letter in self._letters[:1]]
        if oldest is not None:
            arrivals.append(oldest.arrival_ms)
        self._seen.oldest_ms = min(arrivals, default=None)

    def _due(self, now: float, *, everything: bool) -> list[str]:
        if everything:
            return list(self._backlog.sessions)
        return self._backlog.due(now, over=self._size - self._settings.unflushed_bytes)

    async def _put_letters(self) -> None:
        if not self._letters:
            return
        keys = await self._sink.store.put_dead_letters(self._letters)
        first = self._letters[0]
        _log.error(
            "dead_letters",
            shard=self._shard_id,
            count=len(keys),
            first=keys[0],
            reason=first.reason,
            note="`streamjournal dead-letters` shows and replays them",
        )
        self._seen.wrote(self._clock.monotonic())
        self._sink.stats.dead_letters += len(self._letters)
        self._hold(-self._letters_size)
        self._letters, self._letters_size = [], 0

    async def _commit(self, due: list[str]) -> None:
        """Commit the sessions, `parallel` at once.

        One that fails by itself does not hold up the others; a few failures mean that the store is away.

        Raises:
            LeaseLostError: before any other failure.
            StreamjournalError: the first failure.
        """
        failures: list[StreamjournalError] = []
        queue = iter(due)

        async def work() -> None:
            for session_id in queue:
                try:
                    await self._commit_one(session_id)
                except LeaseLostError as problem:
                    failures[:0] = [problem] * _ENOUGH_FAILURES
                except StreamjournalError as problem:
                    failures.append(problem)
                if len(failures) >= _ENOUGH_FAILURES:
                    return

        if len(due) == 1 or self._sink.parallel == 1:
            await work()
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._sink.parallel, len(due))):
                    tasks.start_soon(work)
        if failures:
            raise failures[0]

    async def _commit_one(self, session_id: str) -> None:
        pending = self._backlog.sessions[session_id]
        known = self._heads.get(session_id)
        began = self._clock.monotonic()
        try:
            done = await self._sink.committer.commit(session_id, pending.items, known, self._still_ours)
        except CommitRefusedError as problem:
            await self._park(session_id, pending, str(problem))
        else:
            stats = self._sink.stats
            stats.commits += done.written > 0
            stats.conflicts += done.conflicts
            stats.duplicates += done.duplicates
            stats.bytes += pending.size
            stats.flushes.add(self._clock.monotonic() - began)
            if done.head is not None:
                self._remember(session_id, done.head)
        self._seen.wrote(self._clock.monotonic())
        self._backlog.end(session_id)
        self._hold(-pending.size)

    async def _park(self, session_id: str, pending: Pending, reason: str) -> None:
        """A session that can never be committed must not hold up the others on its shard."""
        letters = [
            DeadLetter(
                item.position.stream,
                item.position.shard,
                item.position.sequence,
                item.place,
                session_id,
                f"its journal cannot be committed: {reason}",
                item.line,
            )
            for item in pending.items
        ]
        await self._sink.store.put_dead_letters(letters)
        self._heads.pop(session_id, None)
        self._sink.stats.dead_letters += len(letters)
        _log.error("session_parked", session=session_id, entries=len(letters), reason=reason)

    def _remember(self, session_id: str, head: Head) -> None:
        self._heads[session_id] = head
        self._heads.move_to_end(session_id)
        if len(self._heads) > _MAX_HEADS:
            self._heads.popitem(last=False)

    def discard(self) -> None:
        """Forget everything pending."""
        self._hold(-self._size)
        self._backlog.clear()
        self._letters, self._letters_size = [], 0
        self._note_oldest()
