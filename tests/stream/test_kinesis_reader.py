"""How a shard of Kinesis is read: how often, and what is known of records that are gone. Virtual time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import anyio
import pytest
import trio
import trio.testing

from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    NotConfiguredError,
    RecordsTrimmedError,
    StreamjournalError,
    ThrottledError,
)
from streamjournal.core.position import ShardStart
from streamjournal.stream.kinesis import KinesisStream
from streamjournal.stream.port import Refused
from tests.stream.rigs import records
from tests.stream.scripted import Scripted, error

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"
OLDEST = ShardStart("TRIM_HORIZON")
AFTER = ShardStart.after("41")
DAY_MS = 24 * 3_600_000
ITERATOR = {"ShardIterator": "i"}
EMPTY = {"Records": [], "NextShardIterator": "j", "MillisBehindLatest": 0}
SUMMARY = {
    "StreamDescriptionSummary": {
        "StreamARN": "arn:aws:kinesis:us-east-1:1:stream/agents",
        "StreamCreationTimestamp": datetime(2026, 11, 22, 13, 12, 1, tzinfo=UTC),
        "RetentionPeriodHours": 48,
    }
}


@pytest.fixture
def anyio_backend():
    """Virtual time: hours pass at once."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def one(sequence: str = "42", **more: object) -> dict:
    """An answer with one record."""
    record = {
        "SequenceNumber": sequence,
        "PartitionKey": "s",
        "Data": b"x",
        "ApproximateArrivalTimestamp": datetime(2026, 11, 22, tzinfo=UTC),
    }
    return {**EMPTY, "Records": [record], **more}


def scripted(**answers: object) -> tuple[KinesisStream, Scripted]:
    """A stream on a client that answers so."""
    client = Scripted(now=trio.current_time, get_shard_iterator=[ITERATOR], **answers)
    clock = Clock(time_ns=lambda: int(trio.current_time() * 1e9), monotonic=trio.current_time)
    return KinesisStream("agents", client=client, clock=clock), client


def read_times(client: Scripted) -> list[float]:
    """When GetRecords was called."""
    times = zip(client.calls, client.times, strict=True)
    return [at for (operation, _), at in times if operation == "get_records"]


async def test_idle_reader_asks_once_a_second():
    """While nothing comes, a waiting reader asks about once a second, however its waits are cut."""
    stream, client = scripted(get_records=[EMPTY])
    began = trio.current_time()
    reader = stream.reader(SHARD, OLDEST)
    for wait in (10, *[0.3] * 100):
        assert not (await reader.next(wait=wait)).records
    assert trio.current_time() - began == pytest.approx(40, abs=1)
    assert 38 <= len(read_times(client)) <= 42


async def test_busy_reader_asks_five_times_a_second():
    """However much there is, a shard is read five times a second, by all readers together."""
    stream, client = scripted(get_records=[one(MillisBehindLatest=5000)])

    async def read() -> None:
        reader = stream.reader(SHARD, OLDEST)
        while True:
            await reader.next(wait=1)

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
    times = read_times(client)
    assert 48 <= len(times) <= 52
    assert all(
        len([at for at in times if start <= at < start + 0.99]) <= 5
        for start in (i / 10 + 0.001 for i in range(90))
    )


async def test_other_shards_have_turns_of_their_own():
    """The limit is a shard's: readers of two shards do not wait for each other."""
    stream, client = scripted(get_records=[EMPTY])
    began = trio.current_time()
    for shard in (SHARD, "shardId-000000000001"):
        await stream.reader(shard, OLDEST).next()
    assert trio.current_time() == began
    assert len(read_times(client)) == 2


async def test_asking_without_waiting_is_answered_by_the_service():
    """next() without a wait always asks, so that "caught up" is never an old answer."""
    stream, client = scripted(get_records=[EMPTY])
    reader = stream.reader(SHARD, OLDEST)
    for _ in range(3):
        await reader.next()
    assert len(read_times(client)) == 3


async def test_empty_answers_on_the_way_are_read_over():
    """Kinesis gives empty answers before it has caught up: a waiting reader goes on at full speed."""
    on_the_way = {**EMPTY, "MillisBehindLatest": 60_000}
    stream, _ = scripted(get_records=[on_the_way] * 4 + [one()])
    began = trio.current_time()
    batch = await stream.reader(SHARD, OLDEST).next(wait=30)
    assert [record.sequence for record in batch.records] == ["42"]
    assert trio.current_time() - began < 1
    stream, _client = scripted(get_records=[on_the_way])
    batch = await stream.reader(SHARD, OLDEST).next()
    assert (list(batch.records), batch.behind_ms) == ([], 60_000)


async def test_throttles_are_waited_out_longer_each_time():
    """Throttles space the reads out, up to 5 s, for every reader of the shard; success ends that."""
    throttle = error("ProvisionedThroughputExceededException")
    stream, client = scripted(get_records=[throttle] * 12 + [one()])
    assert (await stream.reader(SHARD, OLDEST).next(wait=600)).records
    times = read_times(client)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 0.5
    assert all(2.4 < gap <= 5 for gap in gaps[-5:])
    await stream.reader(SHARD, OLDEST).next()
    assert trio.current_time() - times[-1] < 0.3


async def test_throttle_without_a_wait_is_raised():
    """Who does not wait is told of the throttle at once, and the next call waits its turn."""
    stream, _client = scripted(get_records=[error("LimitExceededException"), one()])
    reader = stream.reader(SHARD, OLDEST)
    began = trio.current_time()
    with pytest.raises(ThrottledError):
        await reader.next()
    assert trio.current_time() == began
    assert (await reader.next()).records
    assert trio.current_time() - began >= 0.2


async def test_end_of_a_shard():
    """No next iterator means the end, which may come with the last records, and stays the end."""
    stream, client = scripted(get_records=[one(NextShardIterator=None)])
    reader = stream.reader(SHARD, OLDEST)
    batch = await reader.next()
    assert (len(batch.records), batch.ended) == (1, True)
    batch = await reader.next(wait=3600)
    assert (list(batch.records), batch.ended) == ([], True)
    assert len(read_times(client)) == 1


@pytest.mark.parametrize(
    ("start", "arguments"),
    [
        (OLDEST, {"ShardIteratorType": "TRIM_HORIZON"}),
        (ShardStart("LATEST"), {"ShardIteratorType": "LATEST"}),
        (AFTER, {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "41"}),
        (
            ShardStart("AT_SEQUENCE_NUMBER", sequence="41"),
            {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "41"},
        ),
        (
            ShardStart("AT_TIMESTAMP", timestamp=0.5),
            {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime(1970, 1, 1, 0, 0, 0, 500_000, UTC)},
        ),
    ],
)
async def test_starts(start, arguments):
    """Each start is asked for as the API wants it."""
    stream, client = scripted(get_records=[EMPTY])
    await stream.reader(SHARD, start).next(max_records=7)
    assert client.arguments("get_shard_iterator") == [{"StreamName": "agents", "ShardId": SHARD, **arguments}]
    assert client.arguments("get_records") == [{"ShardIterator": "i", "Limit": 7}]


async def test_newest_is_resumed_by_the_service_s_clock():
    """LATEST, asked again after an expiry, becomes the moment at which it was first asked."""
    stream, client = scripted(get_records=[error("ExpiredIteratorException"), EMPTY])
    headers = {"date": "Sun, 22 Nov 2026 13:12:01 GMT"}
    client._answers["get_shard_iterator"] = [{**ITERATOR, "ResponseMetadata": {"HTTPHeaders": headers}}]
    await stream.reader(SHARD, ShardStart("LATEST")).next()
    asked = client.arguments("get_shard_iterator")
    assert asked[1]["ShardIteratorType"] == "AT_TIMESTAMP"
    assert asked[1]["Timestamp"] == datetime(2026, 11, 22, 13, 12, 1, tzinfo=UTC)


async def test_iterators_that_always_expire_are_no_busy_loop():
    """A service that calls every iterator expired is asked at the shard's pace."""
    stream, client = scripted(get_records=[error("ExpiredIteratorException")])
    with anyio.move_on_after(10):
        await stream.reader(SHARD, OLDEST).next()
    assert len(read_times(client)) <= 51


async def test_place_older_than_the_retention():
    """A place as far behind as the retention is long is told of, also when nothing but emptiness came."""
    for behind, answer in [(2 * DAY_MS, EMPTY), (2 * DAY_MS + 5, one())]:
        stream, _ = scripted(
            get_records=[{**answer, "MillisBehindLatest": behind}], describe_stream_summary=[SUMMARY]
        )
        reader = stream.reader(SHARD, AFTER)
        for _ in range(2):
            with pytest.raises(RecordsTrimmedError) as caught:
                await reader.next()
            assert (caught.value.shard_id, caught.value.sequence) == (SHARD, "41")


async def test_place_within_the_retention():
    """A place far behind, yet within the stream's own retention, is read on from."""
    stream, client = scripted(
        get_records=[one(MillisBehindLatest=DAY_MS + 1), one("43", MillisBehindLatest=2 * DAY_MS)],
        describe_stream_summary=[SUMMARY],
    )
    reader = stream.reader(SHARD, AFTER)
    assert (await reader.next()).records
    assert (await reader.next()).records, "the place was proven once"
    assert len(client.arguments("describe_stream_summary")) == 1


async def test_start_at_the_oldest_is_never_too_old():
    """Who asks for the oldest record there is cannot be too late for it."""
    stream, client = scripted(get_records=[one(MillisBehindLatest=9 * DAY_MS)])
    assert (await stream.reader(SHARD, OLDEST).next()).records
    assert not client.arguments("describe_stream_summary")


async def test_refused_place():
    """A sequence number that the shard does not take any more is one whose record is gone."""
    stream, client = scripted(get_records=[EMPTY])
    client._answers["get_shard_iterator"] = [
        error("InvalidArgumentException", "StartingSequenceNumber 41 is no longer available")
    ]
    with pytest.raises(RecordsTrimmedError):
        await stream.reader(SHARD, AFTER).next()


@pytest.mark.parametrize(
    "text",
    [
        "Invalid StartingSequenceNumber. It encodes shardId-000000000007, while it was used in a call",
        "StartingSequenceNumber 41 is invalid because it did not come from this stream.",
    ],
)
async def test_foreign_place(text):
    """Another shard's, or another stream's, sequence number is a mistake, not a gap."""
    stream, client = scripted(get_records=[EMPTY])
    client._answers["get_shard_iterator"] = [error("InvalidArgumentException", text)]
    with pytest.raises(StreamjournalError) as caught:
        await stream.reader(SHARD, AFTER).next()
    assert not isinstance(caught.value, RecordsTrimmedError)


async def test_vanished_shard():
    """A shard that is not found on a stream that is there has expired, with all that was in it."""
    gone = error("ResourceNotFoundException", "Shard shardId-000000000000 does not exist")
    stream, client = scripted(get_records=[EMPTY], describe_stream_summary=[SUMMARY])
    client._answers["get_shard_iterator"] = [gone]
    with pytest.raises(RecordsTrimmedError):
        await stream.reader(SHARD, OLDEST).next()
    client._answers["describe_stream_summary"] = [gone]
    with pytest.raises(NotConfiguredError):
        await stream.reader(SHARD, OLDEST).next()


async def test_bad_stream_name_spoils_no_record():
    """What is wrong with the stream's name turns no entry into a dead letter."""
    text = "1 validation error detected: Value 'a b' at 'streamName' failed to satisfy constraint"
    stream, client = scripted(put_records=[error("ValidationException", text)])
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_STREAM"):
        await stream.put(records("s", "a", "b"))
    assert len(client.calls) == 1


async def test_record_found_at_fault():
    """A single record that is found at fault is refused for good."""
    failed = {"ErrorCode": "InvalidArgumentException", "ErrorMessage": "Record data size exceeds"}
    stream, _ = scripted(put_records=[{"FailedRecordCount": 1, "Records": [failed]}])
    assert await stream.put(records("s", "a")) == [
        Refused("InvalidArgumentException", "Record data size exceeds", permanent=True)
    ]


async def test_identity_is_arn_and_creation():
    """The identity is what the service itself says, in one form."""
    stream, _ = scripted(describe_stream_summary=[SUMMARY])
    assert await stream.identity() == (
        "arn:aws:kinesis:us-east-1:1:stream/agents",
        "2026-11-22T13:12:01Z",
    )
