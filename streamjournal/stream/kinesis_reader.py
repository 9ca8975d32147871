"""Reading one shard of a Kinesis stream: iterators, their renewal, and records that are gone.

What Kinesis does with a sequence number that is older than the retention is not documented. Seen are
an InvalidArgumentException, a silent start at the oldest record, and empty answers that stay as far
behind as the retention is long (harlow/kinesis-consumer, issue 125 and pull request 175). The reader
takes all three for what they are and raises RecordsTrimmedError: the third by comparing
MillisBehindLatest of the first answer with the stream's retention. A start at the oldest record that
is by then younger than that goes unseen here; the writers' numbers show it later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import anyio

from streamjournal.core.aws import error_code
from streamjournal.core.clock import Clock
from streamjournal.core.errors import RecordsTrimmedError, StreamjournalError, ThrottledError
from streamjournal.core.position import ShardStart
from streamjournal.stream.kinesis_calls import SDK_ERRORS, KinesisCalls, message_of
from streamjournal.stream.kinesis_pace import ShardPace
from streamjournal.stream.port import ReadBatch, Record

_MAX_RECORDS: Final = 10_000  # GetRecords' own bound
_SHORTEST_RETENTION_MS: Final = 24 * 3_600_000  # of any stream; below it nothing needs to be asked
# Texts of an InvalidArgumentException for a sequence number of another shard, or another stream
_FOREIGN: Final = ("it encodes", "did not come from this stream")


class KinesisReader:
    """Reads one shard onwards.

    Args:
        pace: shared with the other readers of the shard in this process.
        idle_seconds: between two reads while there is nothing new.
    """

    def __init__(
        self,
        calls: KinesisCalls,
        shard_id: str,
        start: ShardStart,
        pace: ShardPace,
        clock: Clock,
        idle_seconds: float,
    ) -> None:
        self._calls = calls
        self._shard_id = shard_id
        self._start = start
        self._pace = pace
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._iterator: str | None = None
        self._unproven = False  # whether the place that the iterator starts at may be trimmed away
        self._ended = False
        self._look_at = float("-inf")  # when it makes sense to look again

    async def next(self, *, wait: float = 0.0, max_records: int = _MAX_RECORDS) -> ReadBatch:
        """The records that follow. Asks at most five times a second, about once while idle.

        Raises:
            RecordsTrimmedError: records that follow are older than the retention, as far as that can
                be known; or the shard is not listed any more.
            StreamUnavailableError, ThrottledError: call again later; no record is skipped.
            NotConfiguredError: there is no such stream.
        """
        deadline = self._clock.monotonic() + wait
        while not self._ended:
            if wait > 0 and not await self._idle(deadline):
                return ReadBatch([], 0)
            await self._pace.turn()
            try:
                batch = await self._read(min(max_records, _MAX_RECORDS))
            except ThrottledError:
                self._pace.throttled()
                if self._pace.free_at > deadline:
                    raise
                continue
            self._pace.worked()
            if batch.records or batch.ended or self._clock.monotonic() >= deadline:
                return batch
        return ReadBatch([], 0, ended=True)

    async def aclose(self) -> None:
        """Nothing is held; an iterator expires by itself."""

    async def _idle(self, deadline: float) -> bool:
        """Wait until it makes sense to look again; False if the deadline comes first."""
        now = self._clock.monotonic()
        await anyio.sleep(max(0.0, min(self._look_at, deadline) - now))
        return self._look_at <= deadline

    async def _read(self, limit: int) -> ReadBatch:
        while True:
            try:
                if self._iterator is None:
                    await self._open()
                assert self._iterator is not None
                answer = await self._calls.get_records(self._iterator, limit)
            except SDK_ERRORS as problem:
                if error_code(problem) != "ExpiredIteratorException":
                    raise await self._meaning(problem) from problem
                self._iterator = None
                await self._pace.turn()  # five minutes went by, unless the service is confused
                continue
            if self._unproven:
                await self._prove(answer)
            return self._advance(answer)

    async def _open(self) -> None:
        """Get an iterator for where reading goes on."""
        start = self._start
        arguments: dict[str, Any] = {"ShardId": self._shard_id, "ShardIteratorType": start.kind}
        if start.sequence is not None:
            arguments["StartingSequenceNumber"] = start.sequence
        if start.timestamp is not None:
            arguments["Timestamp"] = datetime.fromtimestamp(start.timestamp, UTC)
        answer = await self._calls.call("get_shard_iterator", **arguments)
        self._iterator = answer["ShardIterator"]
        self._unproven = start.sequence is not None
        if start.kind == "LATEST":
            # LATEST asked again would skip what came meanwhile. The moment asked again does not; it
            # may show records of the same second again, since the header has no fractions.
            self._start = ShardStart("AT_TIMESTAMP", timestamp=self._moment_of(answer))

    def _moment_of(self, answer: Mapping[str, Any]) -> float:
        """When the service answered, by its own clock if it says so."""
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return parsedate_to_datetime(date).timestamp() if date else self._clock.time()

    def _advance(self, answer: Mapping[str, Any]) -> ReadBatch:
        """Move on past an answer. Nothing is awaited here: a cancelled read has moved nothing."""
        records = [self._record_of(entry) for entry in answer["Records"]]
        behind_ms = int(answer.get("MillisBehindLatest") or 0)
        self._iterator = answer.get("NextShardIterator")
        self._ended = self._iterator is None
        self._unproven = False
        if records:
            self._start = ShardStart.after(records[-1].sequence)
        idle = not records and not behind_ms
        self._look_at = self._clock.monotonic() + self._idle_seconds if idle else float("-inf")
        return ReadBatch(records, behind_ms, self._ended)

    async def _prove(self, answer: Mapping[str, Any]) -> None:
        """See whether the place that a sequence number named is still within the retention.

        Raises:
            RecordsTrimmedError: it is not.
        """
        behind_ms = int(answer.get("MillisBehindLatest") or 0)
        if behind_ms < _SHORTEST_RETENTION_MS:
            return
        hours = (await self._calls.describe())["RetentionPeriodHours"]
        if behind_ms >= hours * 3_600_000:
            raise self._trimmed()

    async def _meaning(self, problem: BaseException) -> StreamjournalError:
        """An SDK error as one of ours; of a shard or place that is gone, RecordsTrimmedError."""
        code = error_code(problem)
        if code == "ResourceNotFoundException":
            await self._calls.describe()  # raises if it is the stream that does not exist
            return self._trimmed()
        opening = self._iterator is None
        if code == "InvalidArgumentException" and opening and self._start.sequence is not None:
            text = message_of(problem).lower()
            if not any(foreign in text for foreign in _FOREIGN):
                return self._trimmed()
        return self._calls.explain(problem)

    def _trimmed(self) -> RecordsTrimmedError:
        return RecordsTrimmedError(self._shard_id, self._start.sequence)

    def _record_of(self, entry: Mapping[str, Any]) -> Record:
        arrival = entry.get("ApproximateArrivalTimestamp")
        return Record(
            self._shard_id,
            entry["SequenceNumber"],
            entry["PartitionKey"],
            entry["Data"],
            int(arrival.timestamp() * 1000) if arrival else 0,
        )
