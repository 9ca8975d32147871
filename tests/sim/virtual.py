"""Virtual time and seeded scheduling: hours of faults in seconds, the same seed giving the same run.

trio's MockClock jumps to the next deadline whenever nothing can run. Trio shuffles each batch of tasks
that can; with its own switch for tests of determinism, that shuffle follows a seed too.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing

from streamjournal.core.clock import Clock

T = TypeVar("T")

_SPIN_STEPS = 50_000  # of tasks, at one moment

EPOCH_NS = 1_795_353_121_000_000_000  # 2026-11-22T13:12:01Z


def virtual_clock(seed: int = 0, *, skew: float = 0.0) -> Clock:
    """Time as the running trio loop has it, and seeded chance.

    Args:
        skew: seconds that its wall time is ahead of the others'.
    """
    return Clock(
        time_ns=lambda: EPOCH_NS + int((_now() + skew) * 1e9),
        monotonic=_now,
        rng=random.Random(seed),
    )


def _now() -> float:
    """Trio's virtual time; outside its loop time stands still."""
    return trio.current_time() if trio.lowlevel.in_trio_run() else 0.0


class _Spinning(trio.abc.Instrument):
    """Ends a run in which time stands still: tasks that only wake each other, or do not wait at all.

    A real clock would go on and hide it, at the cost of a core.
    """

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._steps = 0
        self._at = -1.0
        self.where = ""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if self._steps % 1_000:
            return
        now = trio.current_time()
        if now > self._at:
            self._at, self._steps = now, 0
        elif self._steps >= _SPIN_STEPS:
            self.where = f"{task.name} at {now:.3f}"
            self._scope.cancel()


def run_virtual(main: Callable[[], Awaitable[T]], *, seed: int = 0, limit: float = 1e6) -> T:
    """Run to the end in virtual time.

    Args:
        limit: virtual seconds after which it counts as stuck.

    Raises:
        TimeoutError: it is stuck: too much time has gone by, or none although tasks run and run.
    """
    core: Any = trio._core._run
    before = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r
    core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = True, random.Random(seed)

    async def bounded() -> T:
        with trio.fail_after(limit), trio.CancelScope() as scope:
            spinning = _Spinning(scope)
            trio.lowlevel.add_instrument(spinning)
            return await main()
        raise TimeoutError(f"time stands still while tasks run: {spinning.where}")

    try:
        return trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = before


async def until(condition: Callable[[], object], *, every: float = 0.05) -> None:
    """Wait, in virtual time, until something holds; `run_virtual`'s limit ends a wait that never does."""
    while not condition():  # noqa: ASYNC110 - what is waited for knows of no event
        await trio.sleep(every)
