"""Who takes which shard: each worker decides for itself, from the lease table alone.

There is no leader. Every worker computes the same fair share from the same rows; where two want the
same lease, the conditional write decides. So that workers that start together do not all grasp at a
share computed without the others, one that holds nothing asks for a single lease first: by that row
the others see it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from streamjournal.core.clock import Clock
from streamjournal.leases.port import Lease

_EXPIRES: Final = 0.8  # of `lease_seconds`; the rest is for noticing (see `Sightings`)
_PATIENCE: Final = 0.5  # of `lease_seconds`, that a free lease is left to those whose share it is


class Sighting(NamedTuple):
    """A row's owner and counter, and since when they have stood still, by this worker's own clock."""

    owner: str | None
    counter: int
    since: float


class Sightings:
    """What this worker has seen of the rows; leases expire by its own monotonic clock alone.

    A dead worker's shards are to be taken within `lease_seconds` of its last sign of life. A look may
    come a round after that sign, and the taking a round after the expiry. So a lease expires after
    four fifths of the time, which leaves a tenth for each.

    Args:
        lease_seconds: the setting.
    """

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._seen: dict[str, Sighting] = {}

    def look(self, rows: Collection[Lease]) -> None:
        """Take in what the table holds now."""
        now = self._clock.monotonic()
        before, self._seen = self._seen, {}
        for row in rows:
            seen = before.get(row.key)
            if seen is None or (seen.owner, seen.counter) != (row.owner, row.counter):
                seen = Sighting(row.owner, row.counter, now)
            self._seen[row.key] = seen

    def expired(self, row: Lease) -> bool:
        """Whether the row's owner has given no sign of life for too long."""
        return self._age(row) >= _EXPIRES * self._lease_seconds

    def overdue(self, row: Lease) -> bool:
        """Whether a lease that is free has been left lying by those whose share it is."""
        age = self._age(row)
        return age >= (_PATIENCE + (0.0 if row.owner is None else _EXPIRES)) * self._lease_seconds

    def _age(self, row: Lease) -> float:
        return self._clock.monotonic() - self._seen[row.key].since


class Division(NamedTuple):
    """What one worker is to do now.

    Args:
        take: leases that nobody holds.
        ask: leases of workers that hold more than it.
    """

    take: list[Lease]
    ask: list[Lease]


def divide(
    rows: Sequence[Lease],
    me: str,
    free: Collection[str],
    overdue: Collection[str],
    shuffle: Callable[[list[Lease]], None],
) -> Division:
    """One worker's part in making the number of leases of any two workers differ by at most one.

    Args:
        rows: the leases of all shards that can be worked on.
        me: this worker's name.
        free: keys of those that nobody holds (any more).
        overdue: keys of those among them to take whatever the share is.
        shuffle: so that workers that look at the same rows begin at different ones.
    """
    held: dict[str, list[Lease]] = {me: []}
    for row in rows:
        if row.key not in free and row.owner is not None:
            held.setdefault(row.owner, []).append(row)
    share = -(-len(rows) // len(held))
    mine = len(held.pop(me))
    unheld = [row for row in rows if row.key in free]
    shuffle(unheld)
    unheld.sort(key=lambda row: row.key not in overdue)  # stable: what waits too long comes first
    take = unheld[: max(share - mine, len([row for row in unheld if row.key in overdue]))]
    if len(take) < len(unheld):
        return Division(take, [])
    most = share if mine + len(take) else 1
    return Division(take, _ask(held, mine + len(take), most, shuffle))


def _ask(
    held: dict[str, list[Lease]], mine: int, most: int, shuffle: Callable[[list[Lease]], None]
) -> list[Lease]:
    """Leases to ask for, one at a time of whoever holds the most, as long as that evens it out."""
    asked: list[Lease] = []
    while mine + len(asked) < most:
        richest = max(held.values(), key=len, default=[])
        if len(richest) - mine - len(asked) < 2:
            break
        offered = [row for row in richest if row.checkpoint_owner is None]
        if not offered:
            break
        shuffle(offered)
        richest.remove(offered[0])
        asked.append(offered[0])
    return asked
