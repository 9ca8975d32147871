"""The sender: from outboxes to the stream, in order per session, until everything is acknowledged.

An async function that the client runs on a thread of its own and the simulation in its task group.
Whatever a call ends with, its entries stay in their outboxes until the stream has said that it has
them; so a retry is nothing but sending again under the same ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
from anyio.abc import TaskGroup

from streamjournal.core.clock import Clock
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.position import Position
from streamjournal.core.settings import Settings
from streamjournal.emit.batch import Call, Lane, RecordDraft, fits_a_record
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.flushes import Flushes
from streamjournal.emit.misfits import park, shorten
from streamjournal.emit.outbox import Outbox
from streamjournal.emit.wakeup import Wakeup
from streamjournal.store.port import Store
from streamjournal.stream.port import Accepted, Refused, Stream

_log = logging.getLogger("streamjournal.emit")
_MAX_CALLS = 4  # under way at once; more would only queue up at the shards
_MANY = 64  # entries of a session that are not worth lingering for more
_SAY_EVERY = 30.0  # seconds between two log lines on the same trouble


class Sender:
    """Sends what emitters accepted and what recovery found.

    Args:
        emitter: whose outboxes to watch; None when only recovered ones are sent (`add`).
        store: takes the details that are too large for a record, and dead letters.
        wakeup: what emit sets; also set from in here when a call is over.
    """

    def __init__(
        self,
        emitter: Emitter | None,
        stream: Stream,
        store: Store,
        settings: Settings,
        clock: Clock,
        wakeup: Wakeup,
    ) -> None:
        self._emitter = emitter
        self._stream = stream
        self._store = store
        self._linger = settings.linger
        self.clock = clock
        self._wakeup = wakeup
        self._lanes: dict[Outbox, Lane] = {}
        self._sessions_in_flight: set[str] = set()
        self._calls = 0
        self._digest = ""
        self._linger_until: float | None = None
        self._hurried = False
        self._stopping = False
        self._all_due = False
        self._flushes = Flushes()
        self._said_at: float | None = None

    def hurry(self) -> None:
        """Send what there is without waiting for more. From any thread."""
        if not self._hurried:
            self._hurried = True
            self._wakeup.set()

    def stop(self) -> None:
        """Send everything, then return from `run`. From any thread."""
        self._all_due = True  # one more try at once, however long a failure made us wait
        self._stopping = True
        self._wakeup.set()

    def flush(self, serial: int, done: Callable[[], None]) -> None:
        """Have `done` called once every entry up to the emitter's `serial` is settled. From any thread."""
        self._flushes.add(serial, done)
        self._wakeup.set()

    def give_up(self) -> None:
        """After `run`: call whoever still waits for a flush. What is pending stays pending."""
        self._flushes.give_up()

    def add(self, outbox: Outbox) -> None:
        """Send an outbox that no emitter fills (a recovered one). From the sender's own loop."""
        outbox.ready = True
        self._lanes[outbox] = Lane(outbox, self.clock)
        self._wakeup.set()

    def withdraw(self, outboxes: Iterable[Outbox]) -> None:
        """Send no more of outboxes that were added. A call under way is ignored when it ends."""
        for outbox in outboxes:
            lane = self._lanes.pop(outbox, None)
            if lane is not None:
                lane.withdrawn = True
        self._wakeup.set()

    async def run(self) -> None:
        """Send until told to stop and nothing is left; cancel it to stop at once."""
        self._wakeup.bind()
        async with anyio.create_task_group() as calls:
            while not (self._stopping and self._idle()):
                await self._wakeup.wait(self._pause())
                urgent = self._urgent()
                self._collect(urgent=urgent)
                self._dispatch(calls, urgent=urgent)
                self._finish_flushes()
                if self._emitter is not None and not self._stopping:
                    self._emitter.tell_all_dropped()

    def _urgent(self) -> bool:
        """Whether to send without lingering."""
        hurried = self._hurried
        if hurried:  # else a hurry that comes at this moment would be lost
            self._hurried = False
        if self._all_due:
            self._all_due = False
            for lane in self._lanes.values():
                lane.due = self.clock.monotonic()
        return hurried or self._stopping or bool(self._flushes)

    def _idle(self) -> bool:
        return not self._lanes and (self._emitter is None or not self._emitter.ready)

    def _pause(self) -> float | None:
        """Seconds until something is due; None if only a wakeup can bring news."""
        now = self.clock.monotonic()
        dues = [lane.due for lane in self._lanes.values() if self._may_go(lane)]
        if self._calls >= _MAX_CALLS:
            dues = []  # a call's end sets the wakeup
        if self._linger_until is not None:
            dues.append(self._linger_until)
        return max(0.0, min(dues) - now) if dues else None

    def _collect(self, *, urgent: bool) -> None:
        """Take the outboxes that emit has made ready, once they have lingered."""
        emitter = self._emitter
        if emitter is None or not emitter.ready:
            return
        now = self.clock.monotonic()
        if self._linger_until is None:
            self._linger_until = now + self._linger
        if not urgent and now < self._linger_until:
            return
        self._linger_until = None
        emitter.awake = False  # before looking: what comes after this line wakes us again
        while emitter.ready:
            outbox = emitter.ready.popleft()
            if outbox not in self._lanes:  # it may be here still, see _let_go
                self._lanes[outbox] = lane = Lane(outbox, self.clock)
                self._let_go(lane, due=0.0)  # it may be empty: sent from the lane it had before

    def _may_go(self, lane: Lane) -> bool:
        """Whether nothing of the session is under way, or has to go before."""
        outbox = lane.outbox
        return outbox.session_id not in self._sessions_in_flight and not outbox.must_wait()

    def _dispatch(self, calls: TaskGroup, *, urgent: bool) -> None:
        """Start calls for the lanes that are due, as many as may be under way."""
        now = self.clock.monotonic()
        due = [
            lane
            for lane in self._lanes.values()
            if self._may_go(lane) and (lane.due <= now or (urgent and not lane.backoff.failures))
        ]
        while due and self._calls < _MAX_CALLS:
            call, due = self._build(due)
            if not call.drafts:
                return
            self._calls += 1
            calls.start_soon(self._send, call, name=f"put {len(call.drafts)} records")

    def _build(self, due: list[Lane]) -> tuple[Call, list[Lane]]:
        """One call from the lanes, and the lanes that are left."""
        call = Call()
        for i, lane in enumerate(due):
            if not self._may_go(lane):
                continue
            if not call.add(lane) and not self._oversize(lane, call):
                return call, due[i:]
            self._sessions_in_flight.add(lane.outbox.session_id)
            if call.drafts[-1].shortens:
                return call, due[i + 1 :]
        return call, []

    def _oversize(self, lane: Lane, call: Call) -> bool:
        """Give an entry that is over the record limit a call of its own, whose first step shortens it."""
        first = lane.outbox.items[0]
        if call.drafts or first.line is None or fits_a_record(lane.outbox.session_id, first.line):
            return False
        call.drafts.append(RecordDraft.shortening(lane, first))
        return True

    async def _send(self, call: Call) -> None:
        """One call from start to end; its entries are settled or due again afterwards."""
        try:
            await self._put(call)
        except StreamjournalError as problem:
            # Also what no retry is known to help against (a disabled key, say): that is the stream's
            # trouble, for a person to end, and no reason to park every entry as a dead letter.
            self._failed(call, problem)
        except Exception as problem:  # noqa: BLE001  # a bug here must not end the agent's journal
            self._failed(call, problem)
        finally:
            self._calls -= 1
            for draft in call.drafts:
                self._sessions_in_flight.discard(draft.lane.outbox.session_id)
                if not draft.lane.withdrawn:
                    self._let_go(draft.lane)
            if self._emitter is not None and self._emitter.spool is not None:
                self._emitter.spool.reclaim()
            self._wakeup.set()

    async def _put(self, call: Call) -> None:
        if not self._digest:
            self._digest = (await self._stream.identity()).digest
        if call.drafts[0].shortens:
            await self._shorten(call.drafts[0])
            return
        results = await self._stream.put([draft.record for draft in call.drafts])
        refused: list[tuple[RecordDraft, str]] = []
        for draft, result in zip(call.drafts, results, strict=True):
            if draft.lane.withdrawn:
                continue
            match result:
                case Accepted(shard, sequence):
                    self._acknowledge(draft, Position(self._digest, shard, sequence))
                case Refused(code, message, permanent=True):
                    refused.append((draft, f"{code}: {message}"))
                case Refused():
                    self._postpone(draft.lane)
        for draft, reason in refused:
            await self._refused(draft, reason)

    def _acknowledge(self, draft: RecordDraft, position: Position) -> None:
        outbox = draft.lane.outbox
        outbox.position = position  # first, so that a reader who misses an entry here looks for it there
        taken = outbox.items.popleft
        released = 0
        for item in draft.items:
            released += len(item.line or b"")
            if item.segment is not None:
                item.segment.acknowledge(item.offset)
            item.settle(position)  # before it leaves: emit may look for it, to see whether it was queued
            taken()
        outbox.account.settled += len(draft.items)
        self._release(outbox, released)
        draft.lane.worked()

    def _release(self, outbox: Outbox, size: int) -> None:
        outbox.account.released_bytes += size
        if self._emitter is not None:
            self._emitter.room.made()

    async def _shorten(self, draft: RecordDraft) -> None:
        """Bring an entry's details to the store, and a pointer to them into its line."""
        lane, item = draft.lane, draft.items[0]
        assert item.line is not None
        line = await shorten(self._store, item, item.line)
        if lane.withdrawn:
            return
        if not fits_a_record(lane.outbox.session_id, line):
            await self._park(lane, "the entry is over the record limit even without its details")
            return
        self._release(lane.outbox, len(item.line) - len(line))
        item.line = line

    def _failed(self, call: Call, problem: Exception) -> None:
        """Nothing is known to have been taken: everything stays, and is due again later."""
        for draft in call.drafts:
            self._postpone(draft.lane)
        self._say(problem)

    def _say(self, problem: Exception) -> None:
        """Log why entries wait, but not with every try."""
        now = self.clock.monotonic()
        if self._said_at is not None and now - self._said_at < _SAY_EVERY:
            return
        self._said_at = now
        waiting = sum(len(lane.outbox.items) for lane in self._lanes.values())
        bug = None if isinstance(problem, StreamjournalError) else problem
        _log.warning("%s; %d entries wait, trying again", problem or type(problem), waiting, exc_info=bug)

    def _postpone(self, lane: Lane) -> None:
        lane.due = self.clock.monotonic() + lane.backoff.failed()

    async def _refused(self, draft: RecordDraft, reason: str) -> None:
        """An entry in the record will never be taken: halve the record until it is alone, and park it."""
        if len(draft.items) > 1:
            draft.lane.limit = len(draft.items) // 2
            return
        try:
            await self._park(draft.lane, reason)
        except StreamjournalError as problem:  # the store is away too: the entry waits, in its place
            self._postpone(draft.lane)
            self._say(problem)

    async def _park(self, lane: Lane, reason: str) -> None:
        """Keep a lane's first entry as a dead letter; it will never be in the stream."""
        outbox = lane.outbox
        item = outbox.items[0]
        assert item.line is not None
        error = await park(self._store, self._digest, item, item.line, reason)
        if lane.withdrawn:
            return
        if item.segment is not None:
            item.segment.acknowledge(item.offset)
        size = len(item.line)
        item.settle(None, error)
        outbox.items.popleft()
        outbox.account.settled += 1
        outbox.account.refused += 1
        self._release(outbox, size)
        lane.worked()

    def _let_go(self, lane: Lane, *, due: float | None = None) -> None:
        """Keep the lane if it has more to send, else give the outbox back to emit.

        Args:
            due: when to send what it has; None after a call, to linger.
        """
        outbox = lane.outbox
        if not outbox.items:
            outbox.ready = False  # before looking once more: emit appends first and looks at this second
            if not outbox.items:
                del self._lanes[outbox]
                if outbox.on_empty is not None:
                    outbox.on_empty()
                return
            outbox.ready = True
        if due is not None:
            lane.due = due
        elif not lane.backoff.failures:
            wait = 0.0 if len(outbox.items) >= _MANY or lane.limit < _MANY else self._linger
            lane.due = self.clock.monotonic() + wait

    def _finish_flushes(self) -> None:
        if not self._flushes:
            return
        pending = [lane.outbox.items[0].serial for lane in self._lanes.values() if lane.outbox.items]
        if self._emitter is not None:
            pending += [outbox.items[0].serial for outbox in self._emitter.ready.copy() if outbox.items]
        self._flushes.finish(min(pending, default=None))
