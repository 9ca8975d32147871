"""The Kinesis adapter against faults that no emulator makes, in front of one that answers."""

from __future__ import annotations

import socket

import anyio
import pytest
from botocore.exceptions import ReadTimeoutError

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError, StreamUnavailableError, ThrottledError
from streamjournal.core.position import ShardStart
from streamjournal.stream.kinesis import KinesisStream
from streamjournal.stream.port import Accepted, PutRecord, Refused
from tests.stream.rigs import kinesis_stream, read_all, records
from tests.stream.scripted import Faulty, answer_lost, error, fails, with_arguments

pytestmark = [pytest.mark.anyio, pytest.mark.aws]

OLDEST = ShardStart("TRIM_HORIZON")
TIMEOUT = ReadTimeoutError(endpoint_url="http://kinesis")
TOO_LARGE = PutRecord("s", bytes(2**20 + 1))
THROTTLE = error("ProvisionedThroughputExceededException", "Rate exceeded for shard")


@pytest.fixture
def name(aws_emulator, aws_stream):
    """A stream of two shards on moto."""
    return aws_stream(shards=2)


@pytest.fixture
def client(name):
    """A client that does as told."""
    return Faulty()


@pytest.fixture
async def stream(name, client):
    """The stream, through that client."""
    stream = KinesisStream(name, client=client, idle_seconds=0.02, reads_per_second=500)
    yield stream
    await stream.aclose()


async def put_one(stream, payload="x"):
    """Put one record that must be accepted."""
    (accepted,) = await stream.put(records("s", payload))
    assert isinstance(accepted, Accepted)
    return accepted


async def everything(stream):
    """All records' data as text, shard by shard."""
    found = []
    for shard in await stream.shards():
        found += await read_all(stream.reader(shard.id, OLDEST))
    return [record.data.decode() for record in found]


async def test_partial_failure(stream, client):
    """Records that the service refuses in passing are told apart from the accepted, in order."""

    async def refuse_two(call, arguments):
        entries = arguments["Records"]
        answer = await call(**{**arguments, "Records": [entries[0], entries[3]]})
        failed = [
            {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"},
            {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."},
        ]
        first, last = answer["Records"]
        return {"FailedRecordCount": 2, "Records": [first, *failed, last]}

    client.faults["put_records"] = [refuse_two]
    first, throttled, failed, last = await stream.put(records("s", "a", "b", "c", "d"))
    assert isinstance(first, Accepted)
    assert throttled == Refused("ProvisionedThroughputExceededException", "Rate exceeded")
    assert failed == Refused("InternalFailure", "Internal service failure.")
    assert isinstance(last, Accepted)
    assert not (throttled.permanent)
    assert not (failed.permanent)
    assert await everything(stream) == ["a", "d"]


async def test_lost_answer(stream, client):
    """A timeout is "unknown", never "no": here the records were taken, and one call was made."""
    client.faults["put_records"] = [answer_lost(TIMEOUT)]
    with pytest.raises(StreamUnavailableError):
        await stream.put(records("s", "a", "b"))
    assert len(client.arguments("put_records")) == 1
    assert await everything(stream) == ["a", "b"]


async def test_server_fault(stream, client):
    """A 500 of the service is unavailability."""
    client.faults["put_records"] = [fails(error("InternalFailure", status=500))]
    with pytest.raises(StreamUnavailableError):
        await put_one(stream)


async def test_throttled_call(stream, client):
    """A throttled PutRecords took nothing, and says that it was a throttle."""
    client.faults["put_records"] = [fails(THROTTLE)]
    with pytest.raises(ThrottledError):
        await put_one(stream)
    assert await everything(stream) == []


async def test_spoilt_call(stream, client):
    """One record that spoils a call is found and refused; every other of the call is accepted once."""
    sent = [PutRecord("s", str(i).encode()) for i in range(20)]
    sent[7] = TOO_LARGE
    outcomes = await stream.put(sent)
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == [7]
    assert outcomes[7].permanent
    assert sorted(await everything(stream), key=int) == [str(i) for i in range(20) if i != 7]


async def test_throttle_while_a_spoilt_call_is_taken_apart(stream, client):
    """What is refused in passing then is told of those records only: the others are accepted."""

    async def real(call, arguments):
        return await call(**arguments)

    client.faults["put_records"] = [real, real, fails(THROTTLE)]
    first, second, *others = await stream.put([*records("s", "a", "b"), TOO_LARGE, *records("s", "d")])
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert [other.permanent for other in others] == [False, False]
    assert await everything(stream) == ["a", "b"]


async def test_expired_iterator(stream, client):
    """An expired iterator is renewed after the last record that was given: none is lost or doubled."""
    shard = (await put_one(stream, "a")).shard
    reader = stream.reader(shard, OLDEST)
    assert [record.data for record in (await reader.next()).records] == [b"a"]
    await put_one(stream, "b")
    client.faults["get_records"] = [fails(error("ExpiredIteratorException"))]
    assert [record.data for record in (await reader.next()).records] == [b"b"]
    assert len(client.arguments("get_shard_iterator")) == 2


async def test_expired_before_the_first_record(stream, client):
    """An iterator that expires before it gave anything is renewed at the place asked for."""
    shard = (await put_one(stream, "a")).shard
    reader = stream.reader(shard, OLDEST)
    client.faults["get_records"] = [fails(error("ExpiredIteratorException"))]
    assert [record.data for record in (await reader.next()).records] == [b"a"]


async def test_newest_survives_expiry(stream, client):
    """A reader of what is newest does not lose what came while its iterator expired."""
    shard = (await put_one(stream, "before")).shard
    reader = stream.reader(shard, ShardStart("LATEST"))
    assert not (await reader.next()).records
    await put_one(stream, "meanwhile")
    client.faults["get_records"] = [fails(error("ExpiredIteratorException"))]
    # "before" may come too: the service's clock, by which it is resumed, tells whole seconds
    assert [record.data for record in (await reader.next()).records][-1] == b"meanwhile"


async def test_throttled_read(stream, client):
    """A throttled read is tried again within the wait, and then raises without losing its place."""
    shard = (await put_one(stream, "a")).shard
    reader = stream.reader(shard, OLDEST)
    client.faults["get_records"] = [fails(THROTTLE), fails(THROTTLE)]
    with anyio.fail_after(10):
        assert len((await reader.next(wait=60)).records) == 1
    await put_one(stream, "b")
    client.faults["get_records"] = [fails(THROTTLE)]
    with pytest.raises(ThrottledError):
        await reader.next()
    assert [record.data for record in (await reader.next()).records] == [b"b"]


async def test_lost_read(stream, client):
    """A read whose answer is lost is simply read again."""
    shard = (await put_one(stream, "a")).shard
    reader = stream.reader(shard, OLDEST)
    client.faults["get_records"] = [answer_lost(TIMEOUT)]
    with pytest.raises(StreamUnavailableError):
        await reader.next()
    assert len((await reader.next()).records) == 1


async def test_pages_of_shards(kinesis_local, aws_stream):
    """Shards come in pages, each asked for by its token alone, as the API wants it."""
    client = Faulty()
    stream = KinesisStream(aws_stream(shards=5), client=client)
    client.faults["list_shards"] = [with_arguments(MaxResults=2)]
    listed = await stream.shards()
    assert [shard.id for shard in listed] == [f"shardId-{i:012d}" for i in range(5)]
    first, *more = client.arguments("list_shards")
    assert set(first) == {"StreamName"}
    assert [set(arguments) for arguments in more] == [{"NextToken"}] * len(more)
    assert more
    await stream.aclose()


async def test_expired_page_token(kinesis_local, aws_stream):
    """A page's token that expired makes the list start again, and no shard comes twice."""
    client = Faulty()
    stream = KinesisStream(aws_stream(shards=3), client=client)
    client.faults["list_shards"] = [
        with_arguments(MaxResults=2),
        fails(error("ExpiredNextTokenException")),
    ]
    assert [shard.id for shard in await stream.shards()] == [f"shardId-{i:012d}" for i in range(3)]
    assert client.faults["list_shards"] == []
    await stream.aclose()


async def test_by_arn(stream, client):
    """A stream given by its ARN is called by it everywhere."""
    arn = (await stream.identity()).arn
    other = Faulty()
    by_arn = KinesisStream(arn, client=other, reads_per_second=500)
    await put_one(by_arn, "a")
    assert await everything(by_arn) == ["a"]
    assert await by_arn.identity() == await stream.identity()
    assert {name for name, _ in other.calls} == {
        "put_records",
        "list_shards",
        "get_shard_iterator",
        "get_records",
        "describe_stream_summary",
    }
    for _, arguments in other.calls:
        assert arguments["StreamARN"] == arn
        assert "StreamName" not in arguments
    await by_arn.aclose()


async def test_no_such_stream(aws_emulator):
    """A stream that does not exist is one clear line that names the command which makes it."""
    stream = kinesis_stream("nowhere")
    for attempt in (
        stream.identity,
        stream.shards,
        lambda: stream.put(records("s", "x")),
        stream.reader("shardId-000000000000", OLDEST).next,
    ):
        with pytest.raises(NotConfiguredError, match=r"nowhere.*streamjournal init"):
            await attempt()
    await stream.aclose()


async def test_nobody_answers(aws_emulator, monkeypatch):
    """A service that cannot be reached is unavailable, for every call."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        stream = kinesis_stream("agents")
        for attempt in (
            stream.identity,
            stream.shards,
            lambda: stream.put(records("s", "x")),
            stream.reader("shardId-000000000000", OLDEST).next,
        ):
            with pytest.raises(StreamUnavailableError, match="agents"):
                await attempt()
        await stream.aclose()


async def test_no_credentials(aws_emulator, monkeypatch):
    """Missing credentials are one clear line that names the variables."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    stream = kinesis_stream("agents")
    with pytest.raises(NotConfiguredError, match="AWS_PROFILE"):
        await stream.identity()
    await stream.aclose()


async def test_no_region(aws_emulator, monkeypatch):
    """A missing region is one clear line that names the variable."""
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    stream = kinesis_stream("agents")
    with pytest.raises(NotConfiguredError, match="AWS_REGION"):
        await stream.put(records("s", "x"))
    await stream.aclose()


async def test_the_retention_costs_no_call_of_its_own(name, client):
    """Asking who the stream is tells it; it is asked for again only when that is ten minutes ago."""
    now = [0.0]
    stream = KinesisStream(name, client=client, clock=Clock(monotonic=lambda: now[0]))
    await stream.identity()
    for now[0] in (0.0, 300.0, 600.0):
        assert await stream.retention() == 86_400
    assert [call for call, _ in client.calls] == ["describe_stream_summary"]
    await client.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    now[0] = 601.0
    assert await stream.retention() == 172_800
    await stream.aclose()


async def test_trim_is_kinesis_s_own(stream, client):
    """Kinesis deletes by itself; trim asks it for nothing."""
    assert await stream.trim({"shardId-000000000000": "SHARD_END"}) == 0
    assert client.calls == []
