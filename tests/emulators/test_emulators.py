"""The emulators lose nothing, tell the truth about a shard's end, and stop when their starter does."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session

from tests.emulators import processes
from tests.emulators.one_at_a_time import OneAtATime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.aws


def records_of(client: Any, stream: str, *, limit: int = 1_000) -> list[dict[str, Any]]:
    """Every record of a stream, shard by shard."""
    found = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = client.get_records(ShardIterator=iterator, Limit=limit)
            found += answer["Records"]
            at_the_end = not answer["MillisBehindLatest"]
            iterator = None if at_the_end else answer.get("NextShardIterator")
    return found


def test_concurrent_puts(aws_stream: Any, aws_client: Any, aws_emulator: str) -> None:
    """Of 200 PutRecords calls from 16 threads, every acknowledged record is in the stream once, at the
    place that was acknowledged.
    """
    client, stream = aws_client("kinesis", aws_emulator), aws_stream(shards=2)

    def put(n: int) -> list[tuple[str, str, bytes]]:
        texts = [f"{n}-{i}" for i in range(5)]
        records = [{"PartitionKey": text, "Data": text.encode()} for text in texts]
        answer = client.put_records(StreamName=stream, Records=records)
        return [
            (r["ShardId"], r["SequenceNumber"], text.encode())
            for r, text in zip(answer["Records"], texts, strict=True)
        ]

    with ThreadPoolExecutor(16) as pool:
        acknowledged = [place for places in pool.map(put, range(200)) for place in places]
    assert len({(shard, sequence) for shard, sequence, _ in acknowledged}) == 1_000
    found = {(r["SequenceNumber"], r["Data"]) for r in records_of(client, stream)}
    assert found == {(sequence, data) for _, sequence, data in acknowledged}


def test_one_conditional_write_wins(aws_bucket: Any, aws_client: Any, aws_emulator: str) -> None:
    """Of 16 writers with the same ETag, one succeeds and 15 are told so."""
    client, bucket = aws_client("s3", aws_emulator), aws_bucket()
    etag = client.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]

    def write(n: int) -> str:
        try:
            client.put_object(Bucket=bucket, Key="k", Body=b"%d" % n, IfMatch=etag)
        except client.exceptions.ClientError as problem:
            return str(problem.response["Error"]["Code"])
        return "written"

    with ThreadPoolExecutor(16) as pool:
        outcomes = sorted(pool.map(write, range(16)))
    assert outcomes == ["PreconditionFailed"] * 15 + ["written"]


def test_behind(aws_stream: Any, aws_client: Any, aws_emulator: str) -> None:
    """A read that stopped at its limit is behind, even if all records came in the same millisecond."""
    client, stream = aws_client("kinesis", aws_emulator), aws_stream()
    records = [{"PartitionKey": "k", "Data": b"%d" % n} for n in range(10)]
    client.put_records(StreamName=stream, Records=records)
    shard = client.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    iterator = client.get_shard_iterator(
        StreamName=stream,
        ShardId=shard,
        ShardIteratorType="AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber="2",
    )["ShardIterator"]
    first = client.get_records(ShardIterator=iterator, Limit=3)
    assert [r["Data"] for r in first["Records"]] == [b"2", b"3", b"4"]
    assert first["MillisBehindLatest"] > 0
    rest = client.get_records(ShardIterator=first["NextShardIterator"], Limit=10)
    assert [r["Data"] for r in rest["Records"]] == [b"5", b"6", b"7", b"8", b"9"]
    assert rest["MillisBehindLatest"] == 0
    nothing = client.get_records(ShardIterator=rest["NextShardIterator"])
    assert (nothing["Records"], nothing["MillisBehindLatest"]) == ([], 0)


def test_one_at_a_time() -> None:
    """No request starts before the body of the one before it has been produced."""
    inside: list[int] = []
    overlaps: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        inside.append(environ["n"])
        time.sleep(0.001)  # long enough for another thread to get here
        start_response("200 OK", [("X-N", str(environ["n"]))])
        yield b"half"
        overlaps.append(len(inside) - 1)
        inside.pop()

    server = OneAtATime(app)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: server.respond({"n": n}), range(40)))
    assert answers == [("200 OK", [("X-N", str(n))], b"half") for n in range(40)]
    assert overlaps == [0] * 40


@pytest.mark.anyio
async def test_aiobotocore(aws_emulator: str, aws_stream: Any, aws_bucket: Any, aws_table: Any) -> None:
    """The asynchronous client reaches all three services by the test's environment alone."""
    stream, bucket, table = aws_stream(), aws_bucket(), aws_table()
    session = get_session()
    async with session.create_client("kinesis") as kinesis:
        put = await kinesis.put_record(StreamName=stream, PartitionKey="k", Data=b"x")
        assert put["ShardId"] == "shardId-000000000000"
    async with session.create_client("s3") as s3:
        await s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        async with (await s3.get_object(Bucket=bucket, Key="k"))["Body"] as body:
            assert await body.read() == b"x"
    async with session.create_client("dynamodb") as dynamodb:
        await dynamodb.put_item(TableName=table, Item={"leaseKey": {"S": "shard"}})
        assert (await dynamodb.scan(TableName=table))["Count"] == 1


def test_keeps_connections(aws_emulator: str) -> None:
    """Two requests on one connection are both answered."""
    address = urlsplit(aws_emulator)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    with closing(connection):
        connection.connect()
        socket_before = connection.sock
        for _ in range(2):
            connection.request("GET", "/moto-api/config")
            assert connection.getresponse().read()
        assert connection.sock is socket_before


def test_stops() -> None:
    """After the with block nothing listens any more."""
    with processes.running_moto() as endpoint:
        address = urlsplit(endpoint)
        assert is_open(address.hostname, address.port)
    assert not is_open(address.hostname, address.port)


def test_stops_with_its_starter() -> None:
    """A server whose starter was killed with SIGKILL ends by itself."""
    script = (
        "from tests.emulators.processes import running_moto\n"
        "with running_moto() as endpoint:\n"
        "    print(endpoint, flush=True)\n"
        "    input()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=processes.ROOT,
        env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        address = urlsplit(starter.stdout.readline().strip())
        assert is_open(address.hostname, address.port)
        starter.kill()
    deadline = time.monotonic() + 5
    while is_open(address.hostname, address.port):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_open(host: str | None, port: int | None) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((host or "", port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_runs_a_command() -> None:
    """`python -m tests.emulators COMMAND` gives the command an AWS to talk to, and its exit code back."""
    script = "import boto3; boto3.client('s3').create_bucket(Bucket='made'); raise SystemExit(7)"
    command = [sys.executable, "-m", "tests.emulators", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_starts_loudly(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that cannot start is an error that names it; its own words are on stderr."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(processes.EmulatorError, match="moto did not start"), processes.running_moto():
        pass
    assert capfd.readouterr().err


def test_kinesis_local_reshards(kinesis_local: str, aws_stream: Any, aws_client: Any) -> None:
    """kinesis-local splits a shard: the parent is closed, its children take what follows, and sequence
    numbers are longer than a machine integer.
    """
    client, stream = aws_client("kinesis", kinesis_local), aws_stream(shards=1)
    before = client.put_record(StreamName=stream, PartitionKey="k", Data=b"before")
    parent = before["ShardId"]
    client.split_shard(StreamName=stream, ShardToSplit=parent, NewStartingHashKey=str(2**127))
    deadline = time.monotonic() + 5
    while len(shards := client.list_shards(StreamName=stream)["Shards"]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert [s.get("ParentShardId") for s in shards] == [None, parent, parent]
    after = client.put_record(StreamName=stream, PartitionKey="k", Data=b"after")
    assert after["ShardId"] in {s["ShardId"] for s in shards[1:]}
    assert int(after["SequenceNumber"]) > int(before["SequenceNumber"]) > 2**63
    assert [r["Data"] for r in records_of(client, stream)] == [b"before", b"after"]


def test_bind_to_one_address(kinesis_local: str, aws_emulator: str) -> None:
    """Neither is open on another address than 127.0.0.1: a server on all of them would answer here."""
    for endpoint in (kinesis_local, aws_emulator):
        assert urlsplit(endpoint).hostname == "127.0.0.1"
        assert not is_open("127.0.0.2", urlsplit(endpoint).port)
