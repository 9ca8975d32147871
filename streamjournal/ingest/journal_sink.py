"""The journal sink: a shard's entries, split by session, committed to their journals when due.

A session is due at SESSION_END, at `session_bytes`, or when its oldest entry has waited for the
flush interval, which grows with the journal because S3 copies the journal with each commit. Once
`unflushed_bytes` wait on the shard, its oldest sessions are due until it is under, so that a merged
read never has to scan far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock
from streamjournal.core.errors import CommitRefusedError, NotConfiguredError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.settings import Settings
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
_MAX_HEADS = 20_000  # journals whose last known head is kept; a miss is one HEAD request


class Pending:
    """One session's entries that are not in its journal.

    Args:
        order: ordinal of the first record among all that the shard's sink took.
        before: sequence number of the record before that one; None if it was the first.
        since: monotonic seconds when the first was taken.
    """

    __slots__ = ("before", "ended", "items", "order", "since", "size")

    def __init__(self, order: int, before: str | None, since: float) -> None:
        self.order = order
        self.before = before
        self.since = since
        self.items: list[Item] = []
        self.size = 0
        self.ended = False


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
        self._sessions: dict[str, Pending] = {}  # in the order of their first pending record
        self._letters: list[DeadLetter] = []
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._taken = 0
        self._last: str | None = None  # sequence number of the last record taken
        self._size = 0
        self._backoff = Backoff(sink.clock, first=0.2, longest=30.0)
        self._not_before = 0.0

    def take(self, records: Sequence[Record]) -> None:
        """Take records: entries to their sessions, poison to the dead letters."""
        now = self._clock.monotonic()
        stats = self._sink.stats
        for record in records:
            parsed = parse_record(record, self._stream)
            for poison in parsed.poison:
                self._letters.append(self._letter(record, poison))
            for session_id, item in parsed.items:
                self._add(session_id, item, now)
            self._taken += 1
            self._last = record.sequence
            stats.records += 1
            stats.entries += len(parsed.items)

    def _letter(self, record: Record, poison: Poison) -> DeadLetter:
        index, data, reason = poison
        key, arrival = record.partition_key, record.arrival_ms
        return DeadLetter(self._stream, record.shard, record.sequence, index, key, reason, data, arrival)

    def _add(self, session_id: str, item: Item, now: float) -> None:
        pending = self._sessions.get(session_id)
        if pending is None:
            pending = self._sessions[session_id] = Pending(self._taken, self._last, now)
        pending.items.append(item)
        size = len(item.line)
        pending.size += size
        if item.status is not None:
            pending.ended = item.status != "running"
        self._hold(size)

    def _hold(self, size: int) -> None:
        self._size += size
        self._sink.budget.used += size
        self._sink.stats.buffered_bytes += size

    def durable(self) -> str | None:
        """Before the oldest pending record, or everything taken if nothing is pending."""
        if self._letters:
            return None
        if not self._sessions:
            return self._last
        return next(iter(self._sessions.values())).before

    @property
    def pending(self) -> bool:
        """Whether entries or dead letters are not durable."""
        return bool(self._sessions or self._letters)

    def pause(self) -> float | None:
        """Seconds until a session is due."""
        if not self.pending:
            return None
        now = self._clock.monotonic()
        if self._letters or self._sink.budget.full:
            return max(0.0, self._not_before - now)
        dues = (self._due_at(session_id, p) for session_id, p in self._sessions.items())
        return max(0.0, min(dues) - now, self._not_before - now)

    def _due_at(self, session_id: str, pending: Pending) -> float:
        if pending.ended or pending.size >= self._settings.session_bytes:
            return pending.since
        interval = self._settings.flush_seconds
        head = self._heads.get(session_id)
        if head is not None and self._sink.stretch:
            grown = interval + self._sink.stretch * head.size / _MIB
            interval = max(interval, min(grown, _LONGEST_INTERVAL))
        return pending.since + interval

    async def flush(self, *, everything: bool = False) -> None:
        """Commit what is due, oldest first, several sessions at once."""
        now = self._clock.monotonic()
        if now < self._not_before:
            return
        try:
            await self._put_letters()
            await self._commit(self._due(now, everything=everything or self._sink.budget.full))
        except (UnavailableError, NotConfiguredError) as problem:
            wait = self._backoff.failed()
            self._not_before = self._clock.monotonic() + wait
            self._sink.trouble.failed(f"store for {self._shard_id}", problem)
            _log.warning(
                "flush_failed", shard=self._shard_id, problem=str(problem), retry_in_s=round(wait, 1)
            )
        else:
            self._backoff.worked()
            self._sink.trouble.worked(f"store for {self._shard_id}")

    def _due(self, now: float, *, everything: bool) -> list[str]:
        if everything:
            return list(self._sessions)
        due: list[str] = []
        waiting = self._size
        for session_id, pending in self._sessions.items():
            if waiting > self._settings.unflushed_bytes or self._due_at(session_id, pending) <= now:
                due.append(session_id)
                waiting -= pending.size
        return due

    async def _put_letters(self) -> None:
        if not self._letters:
            return
        keys = await self._sink.store.put_dead_letters(self._letters)
        for letter, key in zip(self._letters, keys, strict=True):
            _log.error("dead_letter", key=key, reason=letter.reason, shard=letter.shard, at=letter.sequence)
        self._sink.stats.dead_letters += len(self._letters)
        self._letters = []

    async def _commit(self, due: list[str]) -> None:
        """Commit the sessions, `parallel` at once; the first failure ends it once the others are done."""
        failures: list[Exception] = []
        queue = iter(due)

        async def work() -> None:
            for session_id in queue:
                if failures:
                    return
                try:
                    await self._commit_one(session_id)
                except Exception as problem:  # noqa: BLE001  # told below, after the others are done
                    failures.append(problem)

        if len(due) == 1 or self._sink.parallel == 1:
            await work()
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._sink.parallel, len(due))):
                    tasks.start_soon(work)
        if failures:
            raise failures[0]

    async def _commit_one(self, session_id: str) -> None:
        pending = self._sessions[session_id]
        known = self._heads.get(session_id)
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
            if done.head is not None:
                self._remember(session_id, done.head)
        del self._sessions[session_id]
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
        self._sessions.clear()
        self._letters.clear()
