"""A lease that this worker holds: renewed by one task, moved on by another, written by one at a time."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from streamjournal.core.errors import LeaseLostError, NotConfiguredError, UnavailableError
from streamjournal.core.position import SHARD_END
from streamjournal.leases.port import Lease, Leases


class HeldLease:
    """Serialises the changes of one row, and knows when it was lost, or asked for.

    A change whose answer got lost makes the row another than the one at hand, and so does a worker
    that asks for the lease. So a lost lease is looked at once more: if this worker still holds it, it
    goes on from there.

    Args:
        lease: the row as this worker took it.

    Attributes:
        lost: set when the row is another worker's.
        asked: set when another worker waits for it; flush, checkpoint, and `release`.
    """

    def __init__(self, leases: Leases, lease: Lease) -> None:
        self._leases = leases
        self._lease = lease
        self._writing = anyio.Lock()
        self._unsure = False  # an answer was lost: the row may be another than the one at hand
        self._me = lease.owner
        self._written = anyio.current_time()
        self.lost = anyio.Event()
        self.asked = anyio.Event()

    @property
    def row(self) -> Lease:
        """The row as last written or read."""
        return self._lease

    def saw(self, row: Lease) -> None:
        """Look at the row as somebody else has just read it: whether the lease is asked for."""
        if row.checkpoint_owner == self._me:
            self.asked.set()

    async def renew(self) -> None:
        """Give a sign of life. Raises what `_change` raises."""
        await self._change(Lease.renewed)

    async def checkpoint(self, sequence: str) -> None:
        """Move the checkpoint on; nothing is written if it is there already, or beyond."""
        if not _reaches(self._lease.checkpoint, sequence):
            await self._change(
                lambda row: row if _reaches(row.checkpoint, sequence) else row.advanced(sequence)
            )

    async def release(self) -> None:
        """Let the lease go, to who asked for it or to anybody, so that nobody waits for it to expire."""
        await self._change(lambda row: row.released() if row.owner == self._me else row.handed_over())
        self.lost.set()

    async def still_ours(self) -> None:
        """Return if the row still names this worker as its holder.

        Raises:
            LeaseLostError: it does not.
            LeasesUnavailableError: it cannot be read.
        """
        async with self._writing:
            await self._reread()

    async def _change(self, change: Callable[[Lease], Lease]) -> None:
        """Write the row changed, unless `change` gives the same row back.

        Raises:
            LeaseLostError: the row is another worker's.
            UnavailableError: no answer; it may have been written.
        """
        async with self._writing:
            if self.lost.is_set():
                raise LeaseLostError(self._lease.key, None)
            if self._unsure:  # a table takes another change to a row that it changed for a repetition
                await self._reread()
            try:
                await self._write(change)
            except LeaseLostError:
                await self._reread()
                await self._write(change, last=True)

    async def _write(self, change: Callable[[Lease], Lease], *, last: bool = False) -> None:
        changed = change(self._lease)
        if changed is self._lease:
            return
        self._unsure = True
        try:
            self._lease = await self._leases.update(self._lease, changed)
        except LeaseLostError:
            if last:
                self.lost.set()
            raise
        self._unsure = False
        self._written = anyio.current_time()

    async def _reread(self) -> None:
        for row in await self._leases.rows():
            if row.key == self._lease.key:
                if row.holder == self._me and row.stream == self._lease.stream:
                    self._lease = row
                    self._unsure = False
                    self.saw(row)
                    return
                self.lost.set()
                raise LeaseLostError(row.key, row.owner)
        self.lost.set()
        raise LeaseLostError(self._lease.key, None)

    async def keep(self, every: float) -> None:
        """Renew until the lease is lost or released; an unreachable table is tried again soon.

        Args:
            every: seconds; the checkpoint's writes count as signs of life too.
        """
        failed = -every
        while not self.lost.is_set():
            due = max(self._written + every, failed + every / 3)
            with anyio.move_on_after(due - anyio.current_time()):
                await self.lost.wait()
            if self.lost.is_set() or self._written + every > anyio.current_time():
                continue
            try:
                await self.renew()
            except LeaseLostError:
                return
            except (UnavailableError, NotConfiguredError):
                # The row may expire; the conditional commit guards the journals all the same.
                failed = anyio.current_time()


def _reaches(checkpoint: str, sequence: str) -> bool:
    """Whether a checkpoint is at a sequence number (or SHARD_END), or beyond it."""
    if checkpoint in (sequence, SHARD_END):
        return True
    return checkpoint.isdigit() and sequence.isdigit() and int(sequence) <= int(checkpoint)
