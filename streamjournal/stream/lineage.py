"""The shards' lineage, kept and fetched anew only when it does not know a shard."""

from __future__ import annotations

from collections.abc import Collection

from streamjournal.core.clock import Clock
from streamjournal.core.position import Lineage
from streamjournal.stream.port import Stream, lineage_of

_FRESH_SECONDS = 60.0  # ListShards allows 1,000 calls a second; an expired shard must not cost one a commit


class LineageCache:
    """Gives a lineage that was fetched late enough to list the shards asked for, if they still exist.

    A shard that a fresh list does not have is an expired ancestor. It is remembered as such for a
    minute, since new shards never take an old shard's id.
    """

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._lineage = Lineage({})
        self._fetched = -_FRESH_SECONDS
        self._expired: set[str] = set()

    async def __call__(self, shards: Collection[str]) -> Lineage:
        """The lineage.

        Raises:
            StreamUnavailableError: the list is needed and cannot be had.
        """
        missing = {s for s in shards if not self._lineage.knows(s)} - self._expired
        stale = self._clock.monotonic() - self._fetched > _FRESH_SECONDS
        if missing or (stale and self._expired.intersection(shards)):
            await self.refresh()
            self._expired |= {s for s in shards if not self._lineage.knows(s)}
        return self._lineage

    async def refresh(self) -> Lineage:
        """Fetch the list now."""
        now = self._clock.monotonic()
        self._lineage = lineage_of(await self._stream.shards())
        self._fetched = now
        self._expired.clear()
        return self._lineage
