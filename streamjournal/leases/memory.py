"""Leases in memory, for tests and for the simulation: no threads, no time, and a history to look at."""

from __future__ import annotations

from typing import Literal, NamedTuple

import anyio.lowlevel

from streamjournal.core.errors import LeaseLostError
from streamjournal.leases.port import Lease


class Change(NamedTuple):
    """One change of the table, as it happened.

    Args:
        kind: what was asked.
        before: the row until then; None for `created`.
        after: the row from then on; None for `deleted`.
    """

    kind: Literal["created", "updated", "deleted"]
    before: Lease | None
    after: Lease | None


class MemoryLeases:
    """A table of leases in this process's memory.

    Every method yields to the scheduler once and then acts without a further await, so that a call
    is atomic, and one that was cancelled has changed nothing.

    `history` holds every change in order; a call that was refused leaves nothing in it.
    """

    def __init__(self) -> None:
        self.history: list[Change] = []
        self._rows: dict[str, Lease] = {}

    async def rows(self) -> list[Lease]:
        """Every row."""
        await anyio.lowlevel.checkpoint()
        return list(self._rows.values())

    async def create(self, lease: Lease) -> bool:
        """Add a row; False if there is one of that key already."""
        await anyio.lowlevel.checkpoint()
        if lease.key in self._rows:
            return False
        self._rows[lease.key] = lease
        self.history.append(Change("created", None, lease))
        return True

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        """Replace row `seen` by `changed`, if its owner and counter are still those of `seen`.

        Raises:
            LeaseLostError: the row is another by now, or is gone.
        """
        await anyio.lowlevel.checkpoint()
        row = self._rows.get(seen.key)
        if row is None or (row.owner, row.counter) != (seen.owner, seen.counter):
            raise LeaseLostError(seen.key, row.owner if row else None)
        self._rows[seen.key] = changed
        self.history.append(Change("updated", row, changed))
        return changed

    async def delete(self, lease: Lease) -> None:
        """Remove a row, whoever holds it; nothing happens if it is gone."""
        await anyio.lowlevel.checkpoint()
        row = self._rows.pop(lease.key, None)
        if row is not None:
            self.history.append(Change("deleted", row, None))

    async def aclose(self) -> None:
        """Nothing to free."""
