"""The watchdog: sees a worker that holds a shard and does not move, or falls behind the retention.

A lease that is renewed says that its worker lives, not that it works: a store or a stream that never
answers leaves the lease where it is and the records where they are, in silence, until the stream
deletes them. So a task of its own looks once a second at the plain numbers that the pipeline leaves
behind, and says what it sees when that changes, and again at a limited rate while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio
import structlog

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.ingest.stats import ShardStats, Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.stream.port import Stream

_log = structlog.get_logger("streamjournal.ingest")

STILL_SECONDS: Final = 30.0  # without progress, while there is something to do
WARN_SHARE: Final = 0.25  # of the retention
ERROR_SHARE: Final = 0.5
_LOOK_SECONDS: Final = 1.0
_DEAF_SECONDS: Final = 10.0  # without a look, after which the event loop counts as blocked
_REMIND_SECONDS: Final = 300.0
_CALM: Final = 0.9  # a lag that was said is over below this part of its bound, so that it does not flicker
_LEARN_SECONDS: Final = 600.0  # between two questions for the retention
_LEARN_AGAIN_SECONDS: Final = 30.0  # after one that was not answered

Why = str


class Judgement(NamedTuple):
    """What is wrong at one moment, per shard.

    Args:
        still: shards that do not move, and why one thinks so.
        late: shards whose lag is beyond a quarter of the retention, with their share of it.
    """

    still: dict[str, Why]
    late: dict[str, float]


def judge(stats: Stats, now: float, now_ms: int) -> Judgement:
    """Look at a worker's numbers.

    Args:
        now: monotonic seconds.
        now_ms: wall time, milliseconds since 1970.
    """
    still: dict[str, Why] = {}
    late: dict[str, float] = {}
    for shard_id, shard in stats.held.items():
        why = _stands_still(shard, now)
        if why is not None:
            still[shard_id] = why
        share = retention_share(stats, shard, now, now_ms)
        if share is not None and share > WARN_SHARE * _CALM:
            late[shard_id] = share
    return Judgement(still, late)


def retention_share(stats: Stats, shard: ShardStats, now: float, now_ms: int) -> float | None:
    """The part of the retention that a shard's oldest record that is not durable has used up.

    It may wait on the stream, or in this worker, which may die with it: the older of the two counts.
    None while the retention is not known.
    """
    if not stats.retention_seconds:
        return None
    lag_ms = max(shard.lag_ms(now), shard.unwritten_ms(now_ms))
    return lag_ms / 1000 / stats.retention_seconds


def _stands_still(shard: ShardStats, now: float) -> Why | None:
    """Why a shard counts as standing still; None if it moves, or has nothing to do.

    Nothing is late before it is due: with a flush interval of minutes, minutes without a write are right.
    """
    if shard.due_since is not None:
        waited = now - max(shard.due_since, shard.written_at)
        if waited >= STILL_SECONDS:
            return f"entries that are due have not been written for {waited:.0f} s"
    waited = now - max(shard.read_at, shard.written_at)
    if waited >= STILL_SECONDS:
        return f"nothing has been read or written for {waited:.0f} s"
    return None


class Watchdog:
    """Looks at one worker again and again.

    `reasons` and `deaf` may be asked from another thread.

    Args:
        stream: asked for its retention now and then.
    """

    def __init__(self, stats: Stats, trouble: Trouble, stream: Stream, clock: Clock) -> None:
        self.stats = stats
        self.probed = False
        self.stopping = False
        self._trouble = trouble
        self._stream = stream
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._still = _Condition("shards_stand_still", "shards_move_again", _log.error)
        self._late = _Condition("lag_beyond_quarter_of_retention", "lag_is_normal_again", _log.warning)
        self._too_late = _Condition("lag_beyond_half_of_retention", "lag_is_below_half_again", _log.error)
        self._failing: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._learn_retention, name="retention of the stream")
            while True:
                self.look()
                await anyio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Look once, and say what has changed."""
        now, now_ms = self._clock.monotonic(), self._clock.time_ns() // 1_000_000
        deaf, self._looked_at = self.deaf, now
        if deaf is not None:  # stopped as a whole, or blocked: the shards have had no chance to move
            _log.warning("event_loop_blocked", seconds=round(deaf, 1))
            return
        found = judge(self.stats, now, now_ms)
        self._still.update(found.still, now)
        self._late.update(_over(found.late, WARN_SHARE, self._late.shards), now)
        self._too_late.update(_over(found.late, ERROR_SHARE, self._too_late.shards), now)
        failures = self._trouble.failures(STILL_SECONDS)
        self._failing = tuple(f"{one.what} fails: {one.problem}" for one in failures)

    @property
    def deaf(self) -> float | None:
        """For how many seconds the event loop has not come to this task, None if it does."""
        since = self._clock.monotonic() - self._looked_at
        return since if since > _DEAF_SECONDS else None

    @property
    def standing_still(self) -> frozenset[str]:
        """The held shards that do not move."""
        return frozenset(self._still.shards)

    def reasons(self) -> list[str]:
        """Why this worker is not ready, for a person; empty if it is."""
        reasons = []
        if self.stopping:
            reasons.append("it is stopping")
        elif not self.probed:
            reasons.append("the store has not shown yet that it refuses a write with a wrong version")
        if (deaf := self.deaf) is not None:
            reasons.append(f"its event loop has not answered for {deaf:.0f} s")
        for shard, why in self._still.shards.items():
            reasons.append(f"{shard} stands still: {why}")
        for shard, why in self._too_late.shards.items():
            reasons.append(f"{shard} is late: {why}")
        return [*reasons, *self._failing]

    async def _learn_retention(self) -> None:
        """Ask for the retention, which may change while a worker runs. Apart: it may never be answered."""
        while True:
            wait = _LEARN_SECONDS
            try:
                self.stats.retention_seconds = await self._stream.retention()
            except (UnavailableError, NotConfiguredError) as problem:  # said by who reads from it, too
                _log.debug("retention_unknown", problem=str(problem), retry_in_s=_LEARN_AGAIN_SECONDS)
                wait = _LEARN_AGAIN_SECONDS
            await anyio.sleep(wait)


class _Condition:
    """Something that is wrong with some shards: said when it begins, seldom while it lasts, when it ends.

    Args:
        begins, ends: the events' names.
        say: logs the first.
    """

    def __init__(self, begins: str, ends: str, say: Callable[..., Any]) -> None:
        self._begins = begins
        self._ends = ends
        self._say = say
        self._remind_at = 0.0
        self.shards: Mapping[str, Why] = {}

    def update(self, shards: Mapping[str, Why], now: float) -> None:
        """Take what holds now."""
        before, self.shards = self.shards, shards
        begun = {shard: why for shard, why in shards.items() if shard not in before}
        if begun:
            self._tell(begun)
            self._remind_at = now + _REMIND_SECONDS
        elif shards and now >= self._remind_at:
            self._tell(shards)
            self._remind_at = now + _REMIND_SECONDS
        ended = sorted(before.keys() - shards.keys())
        if ended:
            _log.info(self._ends, shards=ended, still=len(shards))

    def _tell(self, shards: Mapping[str, Why]) -> None:
        """One line, however many shards: a stream that is away stops them all at once."""
        self._say(self._begins, shards=sorted(shards), why=shards[min(shards)])


def _over(late: Mapping[str, float], bound: float, before: Mapping[str, Why]) -> dict[str, Why]:
    """The shards beyond a share of the retention; those that were stay until they are clearly below."""
    return {
        shard: f"its lag has used up {share:.0%} of the stream's retention"
        for shard, share in late.items()
        if share > (bound * _CALM if shard in before else bound)
    }
