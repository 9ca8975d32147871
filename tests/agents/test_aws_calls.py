"""AWS calls of boto3, botocore and aiobotocore as entries, with moto in this process or as a server."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber
from moto import mock_aws

from streamjournal import AsyncJournal, Entry, Journal
from streamjournal.agents.aws_calls import instrument_boto

SECRET = "a-bucket-nobody-need-know"


@pytest.fixture
def journal() -> Iterator[Journal]:
    """An embedded journal."""
    with Journal() as opened:
        yield opened


@pytest.fixture
def aws() -> Iterator[None]:
    """S3 and the rest, in this process."""
    with mock_aws():
        yield


def boto() -> boto3.Session:
    """A session of its own, as an agent's code would make it."""
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="eu-west-1")


def calls(journal: Journal, session_id: str = "s") -> list[Entry]:
    """The session's AWS_CALL entries."""
    return journal.read(session_id, event_types="AWS_CALL").all()


def made(client: Any) -> None:
    """A bucket, by a client."""
    client.create_bucket(Bucket=SECRET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_a_call_is_an_entry(journal: Journal, aws: None) -> None:
    """Service, operation, region, time, status, request id and sizes; nothing of what was sent or got."""
    session = boto()
    instrument_boto(session, journal)
    s3 = session.client("s3")
    with journal.session("s"):
        made(s3)
        s3.put_object(Bucket=SECRET, Key="a-key", Body=b"x" * 1000, Metadata={"who": "Ada"})
        file = io.BytesIO(b"-" * 10 + b"y" * 70)
        file.seek(10)
        s3.put_object(Bucket=SECRET, Key="file", Body=file)
        assert s3.get_object(Bucket=SECRET, Key="file")["Body"].read() == b"y" * 70
        assert len(s3.get_object(Bucket=SECRET, Key="a-key")["Body"].read()) == 1000
    _, put, put_file, _, get = calls(journal)
    assert (put.source, put.level, put.tool_name, put.span_id) == ("aws", "INFO", None, None)
    details = dict(put.details)
    assert details.pop("duration_ms") > 0
    assert details.pop("request_id")
    assert isinstance(details.pop("bytes_received", 0), int)
    assert details == {
        "service": "s3",
        "operation": "PutObject",
        "region": "eu-west-1",
        "retries": 0,
        "status": 200,
        "bytes_sent": 1000,
    }
    assert put_file.details["bytes_sent"] == 70
    assert (get.details["bytes_sent"], get.details["bytes_received"]) == (0, 1000)
    for entry in calls(journal):
        text = entry.line.decode()
        assert not any(word in text for word in (SECRET, "a-key", "Ada", "xxx"))


def test_the_older_protocols_have_a_size(journal: Journal, aws: None) -> None:
    """A body that the SDK encodes late, as STS has it, is counted as it will be sent."""
    session = boto()
    instrument_boto(session, journal, session_id="s")
    session.client("sts").get_caller_identity()
    (entry,) = calls(journal)
    assert entry.details["operation"] == "GetCallerIdentity"
    assert entry.details["bytes_sent"] == len("Action=GetCallerIdentity&Version=2011-06-15")


def test_a_call_belongs_to_its_tool(journal: Journal, aws: None) -> None:
    """Inside a tool's call an entry has its span, unless it is of another session."""
    session = boto()
    instrument_boto(session, journal)
    client = session.client("sqs")
    with journal.session("s") as opened, opened.tool("list") as span:
        client.list_queues()
    (entry,) = calls(journal)
    assert (entry.tool_name, entry.span_id) == ("list", span.id)

    instrument_boto(session, journal, session_id="all")
    with journal.session("s") as opened, opened.tool("list"):
        session.client("sqs").list_queues()
    (entry,) = calls(journal, "all")
    assert (entry.tool_name, entry.span_id) == (None, None)
    assert len(calls(journal)) == 1


def test_outside_of_every_session_nothing_is_written(journal: Journal, aws: None) -> None:
    """A call that no session is around is not journaled."""
    session = boto()
    instrument_boto(session, journal)
    session.client("sqs").list_queues()
    assert journal.delivery.pending + journal.delivery.acknowledged == 0


def test_a_refused_call(journal: Journal, aws: None) -> None:
    """An error of the service: its code and status as a warning; the caller gets the SDK's own exception."""
    session = boto()
    instrument_boto(session, journal, session_id="s")
    client = session.client("s3")
    with pytest.raises(client.exceptions.NoSuchBucket):
        client.get_object(Bucket=SECRET, Key="k")
    made(client)
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket=SECRET, Key="k")
    got, _, head = calls(journal)
    assert (got.level, got.details["status"], got.details["error_code"]) == ("WARNING", 404, "NoSuchBucket")
    assert (head.details["error_code"], head.details.get("bytes_received")) == ("404", None)
    assert SECRET not in got.line.decode()


def test_nobody_answers(journal: Journal, free_port: int) -> None:
    """Without an answer: the kind of the error, the retries, level ERROR; not the URL with the key."""
    session = boto()
    instrument_boto(session, journal, session_id="s")
    config = Config(retries={"total_max_attempts": 2, "mode": "standard"}, connect_timeout=1)
    client = session.client("s3", endpoint_url=f"http://127.0.0.1:{free_port}", config=config)
    with pytest.raises(EndpointConnectionError):
        client.get_object(Bucket=SECRET, Key="k")
    (entry,) = calls(journal)
    assert (entry.level, entry.details["error_code"]) == ("ERROR", "EndpointConnectionError")
    assert entry.details["retries"] == 1
    assert "status" not in entry.details
    assert SECRET not in entry.line.decode()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_stubbed_clients(journal: Journal) -> None:
    """A client whose answers are a Stubber's is journaled, errors with their code and status."""
    session = boto()
    instrument_boto(session, journal, session_id="s")
    client = session.client("sagemaker")
    with Stubber(client) as stub:
        stub.add_response("describe_training_job", _job("InProgress"), {"TrainingJobName": "xgb"})
        stub.add_client_error("describe_training_job", "ThrottlingException", http_status_code=400)
        stub.add_client_error("describe_training_job", "InternalFailure", http_status_code=500)
        client.describe_training_job(TrainingJobName="xgb")
        for _ in range(2):
            with pytest.raises(ClientError):
                client.describe_training_job(TrainingJobName="xgb")
    told = [(e.level, e.details["status"], e.details.get("error_code")) for e in calls(journal)]
    assert told == [
        ("INFO", 200, None),
        ("WARNING", 400, "ThrottlingException"),
        ("ERROR", 500, "InternalFailure"),
    ]


def _job(status: str) -> dict[str, Any]:
    return {
        "TrainingJobName": "xgb",
        "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/xgb",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "TrainingJobStatus": status,
        "SecondaryStatus": "Starting",
        "StoppingCondition": {},
        "CreationTime": 0,
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"VolumeSizeInGB": 1},
    }


def test_retries_are_one_call(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the SDK repeats is one entry, with the number of repetitions."""
    from botocore.awsrequest import AWSResponse

    monkeypatch.setattr("time.sleep", lambda _: None)
    session = boto()
    instrument_boto(session, journal, session_id="s")
    client = session.client("sqs", config=Config(retries={"total_max_attempts": 5, "mode": "standard"}))
    statuses = [500, 503, 200]

    class Raw:
        """A response's body."""

        def stream(self, **_: Any) -> Iterator[bytes]:
            yield b"{}"

    def answer(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, statuses.pop(0), {"Content-Length": "2"}, Raw())

    client.meta.events.register_first("before-send", answer)
    client.list_queues()
    (entry,) = calls(journal)
    assert (entry.level, entry.details["retries"], entry.details["status"]) == ("INFO", 2, 200)


def test_sampling_keeps_errors(journal: Journal, aws: None) -> None:
    """With sample=0 only failed calls are written; the share stands in those that are sampled."""
    session = boto()
    instrument_boto(session, journal, session_id="s", sample=0.0)
    client = session.client("s3")
    client.list_buckets()
    with pytest.raises(ClientError):
        client.list_objects_v2(Bucket=SECRET)
    (entry,) = calls(journal)
    assert entry.details["error_code"] == "NoSuchBucket"
    assert "sample" not in entry.details

    instrument_boto(session, journal, session_id="half", sample=0.5)
    client = session.client("s3")
    for _ in range(60):
        client.list_buckets()
    found = calls(journal, "half")
    assert 5 < len(found) < 55
    assert {entry.details["sample"] for entry in found} == {0.5}


@pytest.mark.parametrize("ignore", [("s3.ListBuckets", "sts"), ("s3.list_buckets", "STS")])
def test_ignored_calls(journal: Journal, aws: None, ignore: tuple[str, ...]) -> None:
    """A service, or an operation of one, can be left out, errors included, whatever way it is written."""
    session = boto()
    instrument_boto(session, journal, session_id="s", ignore=ignore)
    client = session.client("s3")
    client.list_buckets()
    session.client("sts").get_caller_identity()
    made(client)
    assert [entry.details["operation"] for entry in calls(journal)] == ["CreateBucket"]


def test_a_single_ignored_name(journal: Journal, aws: None) -> None:
    """A text is one name, not one for each letter."""
    session = boto()
    instrument_boto(session, journal, session_id="s", ignore="s3")
    session.client("s3").list_buckets()
    session.client("sqs").list_queues()
    assert [entry.details["service"] for entry in calls(journal)] == ["sqs"]


def test_it_can_be_undone(journal: Journal, aws: None) -> None:
    """After that nothing is written, by clients that were made meanwhile either; twice does no harm."""
    session = boto()
    undo = instrument_boto(session, journal, session_id="s")
    client = session.client("sqs")
    client.list_queues()
    undo()
    undo()
    client.list_queues()
    session.client("sqs").list_queues()
    assert len(calls(journal)) == 1


def test_it_can_be_undone_meanwhile(journal: Journal, aws: None) -> None:
    """A call that is under way then is not written, since the journal may be closed next."""
    session = boto()
    undo = instrument_boto(session, journal, session_id="s")
    client = session.client("sqs")
    client.meta.events.register_first("before-send", lambda **_: undo())
    client.list_queues()
    assert calls(journal) == []


def test_clients_made_before(journal: Journal, aws: None) -> None:
    """A client that was there first is not reached by its session, and can be instrumented itself."""
    session = boto()
    before, resource = session.client("sqs"), session.resource("s3")
    instrument_boto(session, journal, session_id="s")
    before.list_queues()
    assert calls(journal) == []
    instrument_boto(before, journal, session_id="s")
    before.list_queues()
    instrument_boto(resource, journal, session_id="s")
    list(resource.buckets.all())
    assert [entry.details["operation"] for entry in calls(journal)] == ["ListQueues", "ListBuckets"]


def test_twice_is_once(journal: Journal, aws: None) -> None:
    """A session that is instrumented again, as in a function that is called again, writes each call once."""
    session = boto()
    instrument_boto(session, journal, session_id="first")
    older = session.client("sqs")
    instrument_boto(session, journal, session_id="s")
    client = session.client("sqs")
    client.list_queues()
    older.list_queues()
    instrument_boto(client, journal, session_id="s")
    client.list_queues()
    assert (len(calls(journal)), len(calls(journal, "first"))) == (2, 1)


def test_the_agent_never_sees_our_errors(
    journal: Journal, aws: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that is closed does not fail the call; the log says so once."""
    session = boto()
    instrument_boto(session, journal, session_id="s")
    client = session.client("sqs")
    journal.close()
    with caplog.at_level(logging.WARNING, "streamjournal.agents"):
        assert client.list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
        client.list_queues()
        with pytest.raises(ClientError):
            client.get_queue_url(QueueName="none")
    (record,) = caplog.records
    assert "not in the journal: ClosedJournalError: this journal is closed" in record.message


def test_botocore_sessions(journal: Journal, aws: None) -> None:
    """A plain botocore session works alike."""
    session = botocore.session.get_session()
    session.set_credentials("test", "test")
    instrument_boto(session, journal, session_id="s")
    session.create_client("sqs", region_name="eu-west-1").list_queues()
    assert len(calls(journal)) == 1


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_wrong_share(journal: Journal, wrong: float) -> None:
    """A share is between 0 and 1."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        instrument_boto(boto(), journal, sample=wrong)


def test_what_cannot_be_instrumented(journal: Journal) -> None:
    """Anything but a session or a client is refused, and a session id that cannot be one."""
    with pytest.raises(TypeError, match="str is no session"):
        instrument_boto("s3", journal)
    with pytest.raises(ValueError, match="session_id"):
        instrument_boto(boto(), journal, session_id="")


@pytest.mark.aws
@pytest.mark.anyio
async def test_aiobotocore(aws_emulator: str, aws_bucket: Any, aws_stream: Any) -> None:
    """Async clients too, without reading a body that streams; the journal's own calls are not there."""
    bucket, stream = aws_bucket(), aws_stream()
    session = get_session()
    async with AsyncJournal(stream=stream, bucket=bucket) as journal:
        instrument_boto(session, journal)
        async with session.create_client("s3") as s3, journal.session("s") as opened:
            async with opened.tool("store") as span:
                await s3.put_object(Bucket=bucket, Key="mine/k", Body=b"x" * 100)
            answer = await s3.get_object(Bucket=bucket, Key="mine/k")
            async with answer["Body"] as body:
                assert await body.read() == b"x" * 100
            with pytest.raises(ClientError):
                await s3.get_object(Bucket=bucket, Key="none")
        found = await journal.read("s", event_types="AWS_CALL").all()
    told = [(e.details["operation"], e.details["status"], e.level) for e in found]
    assert told == [("PutObject", 200, "INFO"), ("GetObject", 200, "INFO"), ("GetObject", 404, "WARNING")]
    assert (found[0].tool_name, found[0].span_id, found[1].span_id) == ("store", span.id, None)
    assert found[1].details["bytes_received"] == 100
    assert found[2].details["error_code"] == "NoSuchKey"


def test_it_imports_no_sdk() -> None:
    """Who only imports it does not pay for the SDK."""
    code = "import sys, streamjournal.agents.aws_calls; assert not {'boto3', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
