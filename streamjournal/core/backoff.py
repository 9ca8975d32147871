"""Waiting longer after each failure, with jitter from the injected clock.

Written here and not taken from a library because the waits belong to the simulated pipeline: they
must draw from the seeded clock and sleep on anyio's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from streamjournal.core.clock import Clock


@dataclass(slots=True)
class Backoff:
    """Exponential backoff: `first` seconds, doubling up to `longest`, each wait jittered."""

    clock: Clock
    first: float = 0.1
    longest: float = 10.0
    failures: int = field(default=0, init=False)

    def failed(self) -> float:
        """Count a failure and return the seconds to wait before the next try."""
        wait = min(self.longest, self.first * 2 ** min(self.failures, 30))
        self.failures += 1
        return self.clock.jitter(wait)

    def worked(self) -> None:
        """Start again from `first`."""
        self.failures = 0

    async def wait(self) -> None:
        """Count a failure and sleep for its wait."""
        await anyio.sleep(self.failed())
