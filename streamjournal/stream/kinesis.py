"""The stream on Kinesis Data Streams.

PutRecords is called once for each put, and the SDK retries nothing: what was refused, and what an
unanswered call may have done, is for the sender to judge, which alone knows the order that a
session's entries must keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from streamjournal.core.aws import AwsClient, error_code
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import NotConfiguredError, ThrottledError
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.stream.kinesis_calls import (
    INVALID,
    SDK_ERRORS,
    Client,
    KinesisCalls,
    message_of,
    spoils_call,
)
from streamjournal.stream.kinesis_pace import ShardPace
from streamjournal.stream.kinesis_reader import KinesisReader
from streamjournal.stream.port import Accepted, PutRecord, Refused, Shard

_RETENTION_SECONDS: Final = 600.0  # that a retention once learnt is taken for true
_TOKEN_EXPIRED: Final = "ExpiredNextTokenException"  # noqa: S105 - an error code


class KinesisStream:
    """A Kinesis stream.

    Args:
        name_or_arn: the stream; an ARN is used as such in every call.
        client: opened at first use, closed by `aclose`.
        idle_seconds: between two reads of a shard that has nothing new, while a reader waits. All
            readers of a shard, in every process, share the service's five reads a second.
        reads_per_second: what this process takes of them at most, for each shard.
    """

    def __init__(
        self,
        name_or_arn: str,
        *,
        client: Client | None = None,
        clock: Clock = SYSTEM,
        idle_seconds: float = 1.0,
        reads_per_second: float = 5.0,
    ) -> None:
        self._calls = KinesisCalls(name_or_arn, client or AwsClient("kinesis"))
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._read_seconds = 1 / reads_per_second
        self._paces: dict[str, ShardPace] = {}
        self._retention: float | None = None
        self._retention_at = 0.0

    async def identity(self) -> StreamIdentity:
        """Which stream this is: its ARN, and when it was created."""
        summary = await self._calls.describe()
        self._learn(summary)
        created = summary["StreamCreationTimestamp"].astimezone(UTC)
        return StreamIdentity(summary["StreamARN"], created.isoformat().replace("+00:00", "Z"))

    async def retention(self) -> float:
        """How long the stream keeps a record, seconds, as it was at most ten minutes ago.

        `identity` learns it on the way, so this seldom makes a call of its own. It may be
        changed while a worker runs.
        """
        age = self._clock.monotonic() - self._retention_at
        if self._retention is None or age > _RETENTION_SECONDS:
            return self._learn(await self._calls.describe())
        return self._retention

    async def shards(self) -> list[Shard]:
        """Every shard that the stream lists, parents before children.

        Raises:
            StreamUnavailableError, ThrottledError, NotConfiguredError: as for `identity`.
        """
        try:
            listed = await self._list_shards()
        except SDK_ERRORS as problem:
            raise self._calls.explain(problem) from problem
        # A shard's number is higher than its parents', since they existed before it.
        return sorted((_shard_of(entry) for entry in listed), key=lambda shard: shard.id)

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """One PutRecords; a second and further ones only to find the record that spoils a call.

        Raises:
            StreamUnavailableError: no answer, in time or at all; any of the records may have been
                taken.
            ThrottledError, NotConfiguredError: none was taken.
        """
        if not records:
            return []
        entries = [{"PartitionKey": record.partition_key, "Data": record.data} for record in records]
        try:
            answer = await self._calls.call("put_records", Records=entries)
        except SDK_ERRORS as problem:
            if not spoils_call(problem):
                raise self._calls.explain(problem) from problem
            if len(records) == 1:
                return [Refused(error_code(problem) or "Invalid", message_of(problem), permanent=True)]
            return await self._put_halves(records)
        return [_outcome_of(entry) for entry in answer["Records"]]

    def reader(self, shard_id: str, start: ShardStart) -> KinesisReader:
        """A reader of one shard."""
        pace = self._paces.get(shard_id)
        if pace is None:
            pace = self._paces[shard_id] = ShardPace(self._clock, self._read_seconds)
        return KinesisReader(self._calls, shard_id, start, pace, self._clock, self._idle_seconds)

    async def trim(self, checkpoints: Mapping[str, str]) -> int:  # noqa: ARG002 - the port's
        """Nothing: Kinesis deletes by itself what is older than the stream's retention."""
        return 0

    async def aclose(self) -> None:
        """Close the client."""
        await self._calls.aclose()

    def _learn(self, summary: Mapping[str, Any]) -> float:
        """Keep, and give, the retention that a description of the stream tells."""
        self._retention = summary["RetentionPeriodHours"] * 3600.0
        self._retention_at = self._clock.monotonic()
        return self._retention

    async def _list_shards(self) -> list[dict[str, Any]]:
        """Every page; from the start again if its token, good for 5 minutes, expired on the way."""
        while True:
            answer = await self._calls.call("list_shards")
            found: list[dict[str, Any]] = list(answer["Shards"])
            try:
                while token := answer.get("NextToken"):
                    answer = await self._calls.list_more_shards(token)
                    found += answer["Shards"]
            except SDK_ERRORS as problem:
                if error_code(problem) != _TOKEN_EXPIRED:
                    raise
                continue
            return found

    async def _put_halves(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put again, in two calls, what was refused as a whole: one bad record must not stop the others."""
        middle = len(records) // 2
        outcomes = await self.put(records[:middle])
        try:
            return outcomes + await self.put(records[middle:])
        except (ThrottledError, NotConfiguredError) as problem:
            # "none was taken" is true of this half only, so it cannot be raised
            refused = Refused(type(problem).__name__, str(problem))
            return outcomes + [refused] * (len(records) - middle)


def _shard_of(entry: Mapping[str, Any]) -> Shard:
    parents = (entry.get("ParentShardId"), entry.get("AdjacentParentShardId"))
    return Shard(
        id=entry["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        first_hash=int(entry["HashKeyRange"]["StartingHashKey"]),
        last_hash=int(entry["HashKeyRange"]["EndingHashKey"]),
        closed=bool(entry["SequenceNumberRange"].get("EndingSequenceNumber")),
    )


def _outcome_of(entry: Mapping[str, Any]) -> Accepted | Refused:
    """What became of a record. The API reference knows two refusals of single records, for a throttle
    and for a fault of the service's own; both pass. What finds the record itself at fault does not.
    """
    if code := entry.get("ErrorCode"):
        return Refused(code, entry.get("ErrorMessage") or "", permanent=code in INVALID)
    return Accepted(entry["ShardId"], entry["SequenceNumber"])
