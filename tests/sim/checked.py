"""The services, which look at every change whether the invariants hold. A lie in one of them would be a
lie in all that the simulation says, so they only look and never decide.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamjournal.core.clock import Clock
from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease
from streamjournal.store.memory import MemoryStore, Version
from streamjournal.store.names import session_of
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import Accepted, PutRecord, Record
from tests.sim.journals import Journals
from tests.sim.ledger import Ledger, Put
from tests.sim.trace import Trace


class CheckedStream(MemoryStream):
    """A stream that tells the ledger what it took and what it lost."""

    def __init__(
        self, ledger: Ledger, trace: Trace, journals: Journals, *, shards: int, clock: Clock, retention: float
    ) -> None:
        self._ledger = ledger
        self._trace = trace
        self._journals = journals
        super().__init__(shards=shards, clock=clock, retention_seconds=retention)
        ledger.digest = self._identity.digest

    def _add(self, parents: tuple[str, ...], first_hash: int, last_hash: int) -> str:
        name = super()._add(parents, first_hash, last_hash)
        self._ledger.parents[name] = parents
        return name

    def _append(self, record: PutRecord, arrival_ms: int) -> Accepted:
        accepted = super()._append(record, arrival_ms)
        self._ledger.put(
            Record(accepted.shard, accepted.sequence, record.partition_key, bytes(record.data), arrival_ms)
        )
        return accepted

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        """What workers ask for: it must never delete what no journal has."""
        count = await super().trim(checkpoints)
        self.note_trimmed()
        return count

    def note_trimmed(self) -> None:
        """Tell the ledger which records are gone; call it after whatever trims."""
        for shard_id, puts in self._ledger.puts.items():
            shard = self.find(shard_id)
            upto = float("inf") if shard is None else shard.trimmed_to
            for put in puts:
                if put.sequence > upto:
                    break
                if not put.trimmed:
                    put.trimmed = True
                    unread = [name for name in put.names if not self._journals.has(name)]
                    self._ledger.trimmed.update(unread)
                    if unread:
                        self._trace.strike("entries lost", f"{unread[0]} and {len(unread) - 1} more")


class CheckedStore(MemoryStore):
    """A store that has every version looked at."""

    def __init__(self, clock: Clock, journals: Journals) -> None:
        super().__init__(clock)
        self._journals = journals

    def _add(self, name: str, body: bytes, fields: dict[str, str] | None) -> Version:
        version = super()._add(name, body, fields)
        session = session_of(name)
        assert session is not None
        self._journals.committed(session, version)
        return version

    def delete_journal(self, session_id: str) -> None:
        """An operator's mistake."""
        super().delete_journal(session_id)
        self._journals.deleted(session_id)


class CheckedLeases(MemoryLeases):
    """Leases that look, at each checkpoint written, whether everything at and before it is durable."""

    def __init__(
        self, ledger: Ledger, trace: Trace, journals: Journals, store: CheckedStore, stream: CheckedStream
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._trace = trace
        self._journals = journals
        self._store = store
        self._stream = stream
        self._removed: set[str] = set()

    async def create(self, lease: Lease) -> bool:
        created = await super().create(lease)
        if created:
            self._check_checkpoint(lease.key, TRIM_HORIZON, lease.checkpoint)
        return created

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        before = self._rows.get(seen.key)
        row = await super().update(seen, changed)
        self._trace.note(f"row {row.key[-2:]} {row.counter}: owner {row.owner}, held by {row.holder}")
        if before is not None and row.checkpoint != before.checkpoint:
            self._check_checkpoint(row.key, before.checkpoint, row.checkpoint)
        return row

    async def delete(self, lease: Lease) -> None:
        """A worker may delete the row of a shard that is not listed any more, and no other."""
        await super().delete(lease)
        if self._stream.find(lease.key) is not None:
            self._trace.fail("checkpoint", f"a worker deleted the row of {lease.key}")

    def remove(self, key: str) -> bool:
        """An operator deletes a row. A row begun anew counts from 0 again, so a write that was on its way
        when that happened may find its condition true, and take the checkpoint back; to what is durable.
        """
        self._removed.add(key)
        return self._rows.pop(key, None) is not None

    def checkpoint_of(self, shard_id: str) -> str:
        """A shard's checkpoint."""
        row = self._rows.get(shard_id)
        return TRIM_HORIZON if row is None else row.checkpoint

    def table(self) -> list[Lease]:
        """Every row."""
        return list(self._rows.values())

    def _check_checkpoint(self, shard_id: str, old: str, new: str) -> None:
        low, high = rank(old), rank(new)
        self._trace.note(f"checkpoint {shard_id[-2:]} {old[-4:]} -> {new[-4:]}")
        if high < low and shard_id not in self._removed:
            self._trace.fail("checkpoint", f"{shard_id} went back from {old} to {new}")
        shard = self._stream.find(shard_id)
        if new == SHARD_END and shard is not None and not shard.closed:
            self._trace.fail("checkpoint", f"{shard_id} is open and has SHARD_END")
        for put in self._ledger.puts.get(shard_id, ()):
            if low < put.sequence <= high and (why := self.not_durable(put)):
                self._trace.fail("checkpoint", f"{new} of {shard_id} passed {put.sequence}: {why}")

    def not_durable(self, put: Put) -> str:
        """What of a record is neither in a journal nor excused; empty if nothing is."""
        ledger = self._ledger
        for name in put.names:
            lost = name in ledger.deleted or (put.trimmed and name in ledger.trimmed)
            if not lost and not self._journals.has(name):
                return f"{name.id} of {name.session} is in no journal"
        for key in put.letters:
            if key not in self._store.dead_letters and not put.trimmed:
                return f"{key} is no dead letter"
        return ""


def rank(checkpoint: str) -> float:
    """A checkpoint as a number that grows along a shard."""
    if checkpoint == TRIM_HORIZON:
        return -1
    return float("inf") if checkpoint == SHARD_END else int(checkpoint)
