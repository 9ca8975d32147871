"""How often a shard may be read: five times a second by everybody together, less after a throttle.

Source: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
"""

from __future__ import annotations

import anyio

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock


class ShardPace:
    """Hands out turns to read one shard, to all of its readers in this process.

    Args:
        read_seconds: between two turns.
    """

    def __init__(self, clock: Clock, read_seconds: float) -> None:
        self._clock = clock
        self._read_seconds = read_seconds
        self._backoff = Backoff(clock, first=2 * read_seconds, longest=5.0)
        self._free_at = float("-inf")

    @property
    def free_at(self) -> float:
        """When the next turn is, by the clock's monotonic time."""
        return self._free_at

    async def turn(self) -> None:
        """Wait until the shard may be read; the turn is taken at once, so nobody gets the same."""
        now = self._clock.monotonic()
        turn = max(now, self._free_at)
        self._free_at = turn + self._read_seconds
        if turn > now:
            await anyio.sleep(turn - now)

    def throttled(self) -> None:
        """The service said no: everybody in this process waits, longer each time."""
        self._free_at = max(self._free_at, self._clock.monotonic() + self._backoff.failed())

    def worked(self) -> None:
        """The service answered."""
        self._backoff.worked()
