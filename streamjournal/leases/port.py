"""What workers need of a lease table. Adapters: `dynamodb`, `sqlite` (embedded), `memory` (tests).

The row is the Kinesis Client Library's, attribute for attribute where it has one, so that tools
made for KCL read it (https://github.com/awslabs/amazon-kinesis-client, `DynamoDBLeaseSerializer`).
Two attributes are ours: `streamIdentity` and `sink`.

Exclusion never rests on a lease (a paused worker may wake up long after it lost one); it rests on
the conditional commit of a journal. The lease keeps two workers from doing the same work twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from streamjournal.core.position import SHARD_END, TRIM_HORIZON


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of the lease table.

    Args:
        key: the shard's id (KCL: leaseKey).
        owner: the worker that holds it, None if nobody does (leaseOwner).
        counter: goes up with each write by its owner; who sees it stand still for the lease's
            duration, by his own monotonic clock, may take it (leaseCounter).
        checkpoint: a sequence number, TRIM_HORIZON or SHARD_END: everything at and before it is
            durable (checkpoint).
        parents: the shard's parents (parentShardId).
        owner_switches: how often it went from one owner to another since the checkpoint moved
            (ownerSwitchesSinceCheckpoint); taking one that nobody held is no switch, as in KCL.
        stream: the stream's identity as `arn created`; a row of another stream counts as absent.
        sink: what the records are read for; each sink has a table of its own.
        checkpoint_owner: while a lease changes hands, the worker that has it until it has flushed;
            `owner` is then the one that waits for it (checkpointOwner, from KCL 3 on).
        children: the shard's children, once it has ended and they are listed (childShardIds).
        hashes: the shard's range of MD5(partition key), both inclusive (startingHashKey,
            endingHashKey).
    """

    key: str
    owner: str | None = None
    counter: int = 0
    checkpoint: str = TRIM_HORIZON
    parents: tuple[str, ...] = ()
    owner_switches: int = 0
    stream: str = ""
    sink: str = "journal"
    checkpoint_owner: str | None = None
    children: tuple[str, ...] = ()
    hashes: tuple[int, int] | None = None

    @property
    def holder(self) -> str | None:
        """Who works on the shard now: a lease that was asked for is still with its last owner."""
        return self.checkpoint_owner or self.owner

    def taken_by(self, owner: str) -> Lease:
        """The row after `owner` took it, whoever had it."""
        switches = self.owner_switches + (self.owner not in (None, owner))
        return replace(
            self, owner=owner, checkpoint_owner=None, counter=self.counter + 1, owner_switches=switches
        )

    def asked_by(self, owner: str) -> Lease:
        """The row after `owner` asked its holder for it; it changes hands by `handed_over`."""
        return replace(
            self,
            owner=owner,
            checkpoint_owner=self.owner,
            counter=self.counter + 1,
            owner_switches=self.owner_switches + 1,
        )

    def handed_over(self) -> Lease:
        """The row after its last owner, asked for it, let it go to the one that asked."""
        return replace(self, checkpoint_owner=None, counter=self.counter + 1)

    def renewed(self) -> Lease:
        """The row after a sign of life."""
        return replace(self, counter=self.counter + 1)

    def left_by(self, worker: str) -> Lease:
        """The row after a worker went that holds it, or asked for it, or hands it over."""
        if self.owner == worker:
            owner = self.checkpoint_owner if self.checkpoint_owner != worker else None
            return replace(self, owner=owner, checkpoint_owner=None, counter=self.counter + 1)
        return self.handed_over() if self.checkpoint_owner == worker else self

    def released(self) -> Lease:
        """The row after its owner let it go, to whoever comes."""
        return replace(self, owner=None, checkpoint_owner=None, counter=self.counter + 1)

    def advanced(self, checkpoint: str) -> Lease:
        """The row with a later checkpoint.

        Raises:
            ValueError: the checkpoint would go back, which would read records twice.
        """
        if not _goes_on(self.checkpoint, checkpoint):
            raise ValueError(f"checkpoint of {self.key} would go back from {self.checkpoint} to {checkpoint}")
        return replace(self, checkpoint=checkpoint, counter=self.counter + 1, owner_switches=0)


def _goes_on(old: str, new: str) -> bool:
    if old == SHARD_END or new == SHARD_END:
        return new == SHARD_END
    if old == TRIM_HORIZON:
        return True
    return new != TRIM_HORIZON and int(new) >= int(old)


class Leases(Protocol):
    """A table of leases. Every change is conditional on the row being as the caller last saw it."""

    async def rows(self) -> list[Lease]:
        """Every row.

        Raises:
            LeasesUnavailableError: the table does not answer.
            NotConfiguredError: there is no such table, or there are no credentials.
            ForeignLeaseTableError: it is another application's.
        """
        ...

    async def create(self, lease: Lease) -> bool:
        """Add a row; False if there is one of that key already."""
        ...

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        """Replace row `seen` by `changed`, if its owner and counter are still those of `seen`.

        Returns:
            `changed`.

        Raises:
            LeaseLostError: the row is another by now, or is gone.
            LeasesUnavailableError: no answer; the row may have been changed.
        """
        ...

    async def delete(self, lease: Lease) -> None:
        """Remove a row, whoever holds it; nothing happens if it is gone."""
        ...

    async def aclose(self) -> None:
        """Free connections."""
        ...
