"""A process of the simulation: its own clocks, and whether it runs, stands still, or is dead."""

from __future__ import annotations

from random import Random

import trio

from streamjournal.core.clock import Clock
from tests.sim.virtual import EPOCH_NS


class Host:
    """One process, on a machine of its own.

    A process that stands still (SIGSTOP, a paused virtual machine) neither sends nor hears anything; its
    calls go on when it is thawed, however late that is. What it had sent may arrive meanwhile.

    Args:
        wall: seconds that its wall clock is ahead.
        monotonic: seconds that its monotonic clock began with; more than a run takes, since a clock that
            has finer steps than virtual time would have somebody wait for a step that cannot be made.
        drift: seconds that it gains in a second.
    """

    def __init__(
        self, name: str, rng: Random, *, wall: float = 0.0, monotonic: float = 0.0, drift: float = 0.0
    ) -> None:
        self.name = name
        self.wall = wall
        self._start = monotonic
        self._pace = 1.0 + drift
        self._thawed: trio.Event | None = None
        self.dead = False
        self.clock = Clock(time_ns=self._time_ns, monotonic=self._monotonic, rng=rng)

    def _time_ns(self) -> int:
        return EPOCH_NS + int((trio.current_time() + self.wall) * 1e9)

    def _monotonic(self) -> float:
        return self._start + trio.current_time() * self._pace

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall += seconds

    def freeze(self) -> None:
        """Stand still from now on."""
        if self._thawed is None:
            self._thawed = trio.Event()

    def thaw(self) -> None:
        """Go on."""
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._thawed is not None

    async def gate(self) -> None:
        """Where whatever it does with others passes: waits while it stands still."""
        if self.dead:  # what a killed process leaves to do in its `finally` blocks never happens
            await trio.sleep_forever()
        while self._thawed is not None:
            await self._thawed.wait()
