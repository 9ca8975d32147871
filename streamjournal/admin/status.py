"""How the workers stand, seen from outside: stream, shards, who holds them, whether they move, lag.

Everything comes from the stream and the lease table, so it needs no worker's help, and works when all of
them are dead. A row says who took a lease, not whether he lives. So it is looked at again until each holder
has given a sign of life, or a lease's duration has passed: by then a living one would have, and a worker
that stands by would have taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal

import anyio
import msgspec

from streamjournal import wiring
from streamjournal.admin.waiting import Waiting, find_waiting
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import StreamUnavailableError
from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.core.settings import Settings
from streamjournal.leases.port import Lease, Leases
from streamjournal.stream.port import Shard, Stream

_TELL_AFTER: Final = 0.4  # of a lease's duration: a holder that lives has renewed its lease by then
_LOOK_EVERY: Final = 0.25
_ANSWER_SECONDS: Final = 15.0  # for stream and lease table to answer
_LONGEST_FLUSH: Final = 300.0  # seconds that an entry may wait for its flush, where writes are paid for
_SLACK: Final = 30.0  # seconds on top of that, for the write itself and for clocks that differ

State = Literal["idle", "waiting", "moving", "stands still", "unheld", "parents first", "ended", "unknown"]


class ShardStatus(msgspec.Struct, frozen=True):
    """One shard.

    Args:
        state: `idle`: everything is in its journal. `waiting`: records wait, for no longer than a flush
            may take. `moving`: records wait, and its checkpoint moved. `stands still`: they wait for
            longer, and it did not. `unheld`: records wait, and nobody has the lease. `parents first`: it
            is read after its parents. `ended`: it is closed and drained. `unknown`: it could not be read.
        worker: who holds the lease.
        asked_by: who waits for it to be handed over.
        lag_ms: age of the oldest record that is in no journal yet, milliseconds; 0 if there is none.
        retention_share: the part of the stream's retention that this age is.
        trimmed: the stream has deleted records that no worker has read.
    """

    shard: str
    state: State
    worker: str | None
    asked_by: str | None
    checkpoint: str
    lag_ms: int | None
    retention_share: float | None
    trimmed: bool = False


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker, by the name in its leases.

    Args:
        shards: how many leases it holds.
        alive: whether it gave a sign of life while it was looked at.
    """

    worker: str
    shards: int
    alive: bool


class Totals(msgspec.Struct, frozen=True):
    """Everything together.

    Args:
        shards: listed and not ended.
        lag_ms: the largest one; None if none is known.
    """

    shards: int
    held: int
    with_records_waiting: int
    lag_ms: int | None


class Status(msgspec.Struct, frozen=True):
    """The answer.

    Args:
        stream: its ARN or URN; None if nothing has been emitted on this machine yet.
        created: when it was created.
        backend: `aws` or `embedded`.
        place: the region's stream name, or the home folder.
        retention_seconds: how long the stream keeps a record.
        looked_seconds: between the first and the last look at the lease table.
        problems: what is wrong, for a person; empty if all is well.
    """

    stream: str | None
    created: str | None
    backend: str
    place: str
    retention_seconds: float | None
    looked_seconds: float
    workers: list[WorkerStatus]
    shards: list[ShardStatus]
    totals: Totals
    problems: list[str]


async def survey(
    settings: Settings, clock: Clock = SYSTEM, *, on_wait: Callable[[float], None] = lambda _: None
) -> Status:
    """Look at everything. Takes a third of a lease's duration, or all of it if somebody may be dead.

    Args:
        on_wait: called with the seconds at most, before a long look.

    Raises:
        UnavailableError, NotConfiguredError: stream or lease table do not answer, or do not exist.
    """
    if settings.embedded and not await anyio.Path(settings.home_path / "stream.db").exists():
        nothing = Totals(0, 0, 0, None)
        return Status(None, None, "embedded", str(settings.home_path), None, 0.0, [], [], nothing, [])
    async with AsyncExitStack() as opened:
        stream = wiring.open_stream(settings, clock)
        opened.push_async_callback(stream.aclose)
        leases = wiring.open_leases(settings)
        opened.push_async_callback(leases.aclose)
        return await Survey(stream, leases, settings, clock, on_wait).run()


class Survey:
    """The looking itself, once.

    Args:
        on_wait: as for `survey`.
    """

    def __init__(
        self,
        stream: Stream,
        leases: Leases,
        settings: Settings,
        clock: Clock,
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._stream = stream
        self._leases = leases
        self._settings = settings
        self._clock = clock
        self._on_wait = on_wait
        self._named = ""  # the stream, as rows name it
        self._alive: set[str] = set()
        self._moved: set[str] = set()  # shards whose checkpoint moved
        self._waiting: dict[str, Waiting] = {}

    async def run(self) -> Status:
        """Look. Raises what `survey` raises."""
        with anyio.move_on_after(_ANSWER_SECONDS) as scope:
            identity = await self._stream.identity()
            retention = await self._stream.retention()
            shards = await self._stream.shards()
            self._named = identity.named
            first = await self._rows()
        if scope.cancelled_caught:
            raise StreamUnavailableError(
                f"the stream or its lease table did not answer within {_ANSWER_SECONDS:.0f} s; try again"
            )
        began = self._clock.monotonic()
        checkpoints = {shard.id: _checkpoint_of(first.get(shard.id)) for shard in shards}
        self._waiting = await find_waiting(self._stream, checkpoints, self._clock)
        last = await self._look_again(first, began)
        found = [self._status_of(shard, last, retention) for shard in shards]
        return Status(
            identity.arn,
            identity.created,
            "embedded" if self._settings.embedded else "aws",
            str(self._settings.home_path) if self._settings.embedded else self._settings.stream_name,
            retention,
            round(self._clock.monotonic() - began, 2),
            self._workers(last),
            found,
            _totals(found),
            self._problems(found),
        )

    async def _rows(self) -> dict[str, Lease]:
        return {row.key: row for row in await self._leases.rows() if row.stream == self._named}

    # Who lives

    async def _look_again(self, first: Mapping[str, Lease], began: float) -> dict[str, Lease]:
        """Look at the rows until every holder has given a sign of life, or has had the time to."""
        rows = dict(first)
        told = False
        patience = self._settings.lease_seconds + 1
        while True:
            passed = self._clock.monotonic() - began
            if passed >= patience or not self._is_undecided(rows):
                return rows
            if passed >= _TELL_AFTER * self._settings.lease_seconds and not told:
                told = True
                self._on_wait(patience - passed)
            await anyio.sleep(_LOOK_EVERY)
            rows = await self._rows()
            self._note_changes(first, rows)

    def _note_changes(self, first: Mapping[str, Lease], rows: Mapping[str, Lease]) -> None:
        for key, row in rows.items():
            before = first.get(key)
            if before is None or before.counter != row.counter:
                self._alive |= {name for name in (row.holder, row.owner) if name is not None}
            if before is not None and before.checkpoint != row.checkpoint:
                self._moved.add(key)

    def _is_undecided(self, rows: Mapping[str, Lease]) -> bool:
        """Whether there is a held shard that a further look may say more of."""
        held = [key for key, row in rows.items() if row.holder is not None and key in self._waiting]
        return any(
            rows[key].holder not in self._alive or (self._is_late(key) and key not in self._moved)
            for key in held
        )

    def _is_late(self, shard_id: str) -> bool:
        """Whether records wait for longer than any flush may take."""
        settings = self._settings
        longest = max(settings.flush_seconds, 0.0 if settings.embedded else _LONGEST_FLUSH)
        return (self._waiting[shard_id].lag_ms or 0) > (longest + _SLACK) * 1000

    # What it means

    def _status_of(self, shard: Shard, rows: Mapping[str, Lease], retention: float) -> ShardStatus:
        row = rows.get(shard.id) or Lease(shard.id)
        waiting = self._waiting.get(shard.id, Waiting())
        share = None if waiting.lag_ms is None else waiting.lag_ms / 1000 / retention
        return ShardStatus(
            shard.id,
            self._state_of(shard, row, waiting, rows),
            row.holder,
            row.owner if row.owner != row.holder else None,
            row.checkpoint,
            waiting.lag_ms,
            None if share is None else round(share, 6),
            waiting.trimmed,
        )

    def _state_of(self, shard: Shard, row: Lease, waiting: Waiting, rows: Mapping[str, Lease]) -> State:
        if row.checkpoint == SHARD_END:
            return "ended"
        if waiting.lag_ms is None:
            return "unknown"
        if not waiting.lag_ms:
            return "idle"
        parents = [rows.get(parent) for parent in shard.parents if parent in self._waiting]
        if any(parent is None or parent.checkpoint != SHARD_END for parent in parents):
            return "parents first"
        if row.holder is None:
            return "unheld"
        if shard.id in self._moved:
            return "moving"
        if row.holder not in self._alive or self._is_late(shard.id):
            return "stands still"
        return "waiting"

    def _workers(self, rows: Mapping[str, Lease]) -> list[WorkerStatus]:
        held: dict[str, int] = {}
        for row in rows.values():
            if row.holder is not None:
                held[row.holder] = held.get(row.holder, 0) + 1
        return [WorkerStatus(name, count, name in self._alive) for name, count in sorted(held.items())]

    def _problems(self, shards: Sequence[ShardStatus]) -> list[str]:
        """A line for each thing that is wrong, with what to do."""
        found = []
        unheld = [one.shard for one in shards if one.state == "unheld"]
        if unheld:
            found.append(
                f"nobody holds {_listed(unheld)}, where records wait: start a worker "
                "(`streamjournal worker`, or `streamjournal up`)"
            )
        for one in shards:
            if one.state == "stands still" and one.worker not in self._alive:
                found.append(
                    f"{one.shard} stands still: {one.worker} gives no sign of life; {self._successor()}"
                )
            elif one.state == "stands still":
                found.append(
                    f"{one.shard} stands still: {one.worker} renews its lease, and its checkpoint does not "
                    "move; see that worker's log (just after its start: look again)"
                )
            elif one.state == "unknown":
                found.append(f"{one.shard} cannot be read: {self._waiting[one.shard].problem}")
            if one.trimmed:
                found.append(f"{one.shard}: the stream has deleted records after its checkpoint, unread")
        silent: dict[str, list[str]] = {}
        for one in shards:
            if one.state in ("idle", "parents first") and one.worker not in (None, *self._alive):
                silent.setdefault(one.worker or "", []).append(one.shard)
        for worker, names in silent.items():
            found.append(
                f"{_listed(names)}: held by {worker}, a worker that gives no sign of life, so what "
                f"comes would wait; {self._successor()}"
            )
        return found

    def _successor(self) -> str:
        """Who goes on for a dead worker. One that stood by would have taken over during the look."""
        if self._alive:
            return f"another worker takes over within {self._settings.lease_seconds:.0f} s"
        return "start a worker: `streamjournal worker`"


def _checkpoint_of(row: Lease | None) -> str:
    return TRIM_HORIZON if row is None else row.checkpoint


def _totals(shards: Sequence[ShardStatus]) -> Totals:
    open_ones = [one for one in shards if one.state != "ended"]
    lags = [one.lag_ms for one in open_ones if one.lag_ms is not None]
    return Totals(
        len(open_ones),
        sum(one.worker is not None for one in open_ones),
        sum(bool(lag) for lag in lags),
        max(lags, default=None),
    )


def _listed(names: Sequence[str]) -> str:
    """Some of many names."""
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more shards"
