"""A lease that this worker holds: renewed by one task, moved on by another, written by one at a time."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from streamjournal.core.errors import LeaseLostError, UnavailableError
from streamjournal.leases.port import Lease, Leases


class HeldLease:
    """Serialises the changes of one row, and knows when it was lost.

    A change whose answer got lost makes the row another than the one at hand. So a lost lease is
    looked at once more: if the row still names this worker, it goes on from there.

    Args:
        lease: the row as this worker took it.
    """

    def __init__(self, leases: Leases, lease: Lease) -> None:
        self._leases = leases
        self._lease = lease
        self._writing = anyio.Lock()
        self._owner = lease.owner
        self.lost = anyio.Event()

    @property
    def row(self) -> Lease:
        """The row as last written or read."""
        return self._lease

    async def renew(self) -> None:
        """Give a sign of life. Raises what `_change` raises."""
        await self._change(Lease.renewed)

    async def checkpoint(self, sequence: str) -> None:
        """Move the checkpoint on; nothing is written if it is there already."""
        if sequence != self._lease.checkpoint:
            await self._change(lambda row: row.advanced(sequence))

    async def release(self) -> None:
        """Let the lease go, so that the next worker need not wait for it to expire."""
        await self._change(Lease.released)
        self.lost.set()

    async def still_ours(self) -> None:
        """Return if the row still names this worker.

        Raises:
            LeaseLostError: it does not.
            LeasesUnavailableError: it cannot be read.
        """
        async with self._writing:
            await self._reread()

    async def _change(self, change: Callable[[Lease], Lease]) -> None:
        """Write the row changed.

        Raises:
            LeaseLostError: the row is another worker's.
            UnavailableError: no answer; it may have been written.
        """
        async with self._writing:
            if self.lost.is_set():
                raise LeaseLostError(self._lease.key, None)
            try:
                self._lease = await self._leases.update(self._lease, change(self._lease))
            except LeaseLostError:
                await self._reread()
                self._lease = await self._leases.update(self._lease, change(self._lease))

    async def _reread(self) -> None:
        for row in await self._leases.rows():
            if row.key == self._lease.key:
                if row.owner == self._owner and row.stream == self._lease.stream:
                    self._lease = row
                    return
                self.lost.set()
                raise LeaseLostError(row.key, row.owner)
        self.lost.set()
        raise LeaseLostError(self._lease.key, None)

    async def keep(self, every: float) -> None:
        """Renew until the lease is lost or released; an unreachable table is tried again."""
        while not self.lost.is_set():
            with anyio.move_on_after(every):
                await self.lost.wait()
            if self.lost.is_set():
                return
            try:
                await self.renew()
            except LeaseLostError:
                return
            except UnavailableError:
                continue  # the row may expire; the conditional commit guards the journals all the same
