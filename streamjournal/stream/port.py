"""What the pipeline needs of a stream. Adapters: `kinesis`, `sqlite` (embedded), `memory` (tests).

The words and the promises are Kinesis's: a record goes to the shard that its partition key hashes
to (MD5, 128 bits), gets a sequence number there that is higher than all before it, and stays until
the retention ends. Nothing is promised about order inside one `put`, or between two that overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from streamjournal.core.position import Lineage, ShardStart, StreamIdentity

MAX_PUT_RECORDS = 500  # PutRecords' own bounds
MAX_PUT_BYTES = 5 * 2**20
MAX_RECORD_BYTES = 2**20  # data and partition key together


class Shard(NamedTuple):
    """One shard as the stream lists it.

    Args:
        id: `shardId-000000000003`.
        parents: none, one (after a split), or two (after a merge); they may be unlisted by now.
        first_hash, last_hash: the range of MD5(partition key), both inclusive.
        closed: it takes no more records (it was split or merged).
    """

    id: str
    parents: tuple[str, ...] = ()
    first_hash: int = 0
    last_hash: int = 2**128 - 1
    closed: bool = False


class PutRecord(NamedTuple):
    """A record to put. `data` and `partition_key` together: at most 1 MiB."""

    partition_key: str
    data: bytes


class Accepted(NamedTuple):
    """The stream has the record, there."""

    shard: str
    sequence: str


class Refused(NamedTuple):
    """The stream has not taken the record.

    Args:
        code: the service's error code.
        message: its text.
        permanent: the same record will never be taken.
    """

    code: str
    message: str
    permanent: bool = False


class Record(NamedTuple):
    """A record as it is read.

    Args:
        arrival_ms: when the stream took it, milliseconds since 1970.
    """

    shard: str
    sequence: str
    partition_key: str
    data: bytes
    arrival_ms: int


class ReadBatch(NamedTuple):
    """What one read of a shard gave.

    Args:
        records: in the order of their sequence numbers; may be empty although more follow.
        behind_ms: how far behind the shard's newest record the reader is now; 0 = caught up.
        ended: the shard is closed and everything in it has been returned.
        fresh: the stream said so after the call that gave this began.
    """

    records: Sequence[Record]
    behind_ms: int
    ended: bool = False
    fresh: bool = True


class ShardReader(Protocol):
    """Reads one shard onwards from one place. Not to be shared between tasks."""

    async def next(self, *, wait: float = 0.0, max_records: int = 10_000) -> ReadBatch:
        """The records that follow.

        Args:
            wait: seconds to wait for a record, if there is none yet; a shard may answer later than
                that by the time between two reads that its service allows.
            max_records: at most so many.

        Raises:
            RecordsTrimmedError: the place to read from is older than the retention.
            StreamUnavailableError, ThrottledError: call again later; no record is skipped.
        """
        ...

    async def aclose(self) -> None:
        """Free what the reader holds."""
        ...


class Stream(Protocol):
    """A stream of records in shards."""

    async def identity(self) -> StreamIdentity:
        """Which stream this is; another one of the same name has another identity.

        Raises:
            NotConfiguredError: there is no such stream, or no credentials.
            StreamUnavailableError: it does not answer.
        """
        ...

    async def shards(self) -> list[Shard]:
        """Every shard that still holds records or takes them, parents before children."""
        ...

    async def retention(self) -> float:
        """How long the stream keeps a record, seconds. Costs a call now and then at most.

        Raises:
            NotConfiguredError, StreamUnavailableError: as for `identity`.
        """
        ...

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put records, and say of each what became of it, in the same order.

        The caller keeps within MAX_PUT_RECORDS, MAX_PUT_BYTES and MAX_RECORD_BYTES.

        Raises:
            StreamUnavailableError: no answer; any of the records may have been taken.
            ThrottledError, NotConfiguredError: none was taken.
        """
        ...

    def reader(self, shard_id: str, start: ShardStart) -> ShardReader:
        """A reader of one shard."""
        ...

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        """Delete what is older than the retention, where that is the caller's job (embedded).

        Args:
            checkpoints: shard -> sequence number up to which everything is durable. Nothing above
                it is deleted, nor anything of a shard that is not named.

        Returns:
            How many records were deleted.
        """
        ...

    async def aclose(self) -> None:
        """Free connections."""
        ...


def lineage_of(shards: Sequence[Shard]) -> Lineage:
    """The lineage of listed shards."""
    return Lineage({shard.id: shard.parents for shard in shards})
