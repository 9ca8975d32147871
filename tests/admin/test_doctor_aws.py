"""The doctor on AWS: each permission by its name, what is missing, broken stores, dead networks, clocks."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from streamjournal.admin.doctor import Check, Diagnosis, diagnose
from streamjournal.admin.doctor import aws as doctor_aws
from streamjournal.admin.doctor.check import Checks
from streamjournal.admin.doctor.kinesis import check_stream
from streamjournal.admin.init import initialise
from streamjournal.core.aws import AwsClient
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.position import ShardStart
from streamjournal.core.settings import Settings, load
from streamjournal.store.names import SCRATCH
from streamjournal.stream.port import PutRecord
from streamjournal.wiring import open_stream
from tests.admin.account import Account, fields, override
from tests.emulators import processes

pytestmark = pytest.mark.anyio
aws = pytest.mark.aws

Call = Callable[..., Awaitable[Any]]


_made: dict[str, Settings] = {}  # for each emulator, since making them takes longer than most tests


@pytest.fixture
async def ready(account: Account, settings: Settings, aws_emulator: str) -> Settings:
    """A stream, bucket and table as `init` makes them, for tests that only look."""
    if aws_emulator not in _made:
        await initialise(settings, shards=2)
        _made[aws_emulator] = settings
    return _made[aws_emulator]


@pytest.fixture
async def own(account: Account, settings: Settings) -> Settings:
    """The same for one test alone."""
    await initialise(settings, shards=1)
    return settings


async def visit(settings: Settings, **arguments: Any) -> Diagnosis:
    """A visit, patient with a machine that has other things to do."""
    return await diagnose(settings, environ=os.environ, **{"timeout": 30.0} | arguments)


def results(found: Diagnosis, *wanted: str) -> dict[str, str]:
    """Name -> result, of some results or all."""
    every = {check.name: check.result for check in found.checks}
    assert len(every) == len(found.checks)
    return {name: result for name, result in every.items() if not wanted or result in wanted}


def named(found: Diagnosis, name: str) -> Check:
    (check,) = (check for check in found.checks if check.name == name)
    return check


def answer(code: str, message: str = "as told", status: int = 400, **headers: str) -> ClientError:
    """An error answer of the service."""
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta}, "Call")


def raising(problem: Exception) -> Callable[[Any], Call]:
    """Something between the doctor and an operation: it fails."""

    def wrap(_: Any) -> Call:
        async def call(**_: Any) -> Any:
            raise problem

        return call

    return wrap


PERMISSIONS = [
    ("kinesis", "describe_stream_summary", "kinesis:DescribeStreamSummary"),
    ("kinesis", "list_shards", "kinesis:ListShards"),
    ("kinesis", "get_shard_iterator", "kinesis:GetShardIterator"),
    ("kinesis", "get_records", "kinesis:GetRecords"),
    ("kinesis", "put_records", "kinesis:PutRecords"),
    ("s3", "list_objects_v2", "s3:ListBucket"),
    ("s3", "put_object", "s3:PutObject"),
    ("s3", "get_object", "s3:GetObject"),
    ("s3", "abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("dynamodb", "scan", "dynamodb:Scan"),
    ("dynamodb", "get_item", "dynamodb:GetItem"),
    ("dynamodb", "put_item", "dynamodb:PutItem"),
    ("dynamodb", "update_item", "dynamodb:UpdateItem"),
    ("dynamodb", "delete_item", "dynamodb:DeleteItem"),
]


@aws
async def test_a_whole_account_is_well_and_nothing_of_it_changes(account: Account, ready: Settings) -> None:
    """Each permission that our code needs is tried; no record, no row and no object is left."""
    found = await visit(ready)
    assert found.healthy
    assert found.reached
    told = results(found)
    assert {action for *_, action in PERMISSIONS} <= {name for name, result in told.items() if result == "ok"}
    assert set(results(found, "warning", "failed")) == set()
    for name in ("conditional writes", "bucket versioning", "bucket lifecycle", "dead letters", "identity"):
        assert told[name] == "ok", name
    assert [name for name in told if name.startswith("lag ")] == [
        "lag shardId-000000000000",
        "lag shardId-000000000001",
    ]
    for shard in account.kinesis.list_shards(StreamName=ready.stream)["Shards"]:
        opened = account.kinesis.get_shard_iterator(
            StreamName=ready.stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        assert account.kinesis.get_records(ShardIterator=opened["ShardIterator"])["Records"] == []
    assert account.dynamodb.scan(TableName=ready.lease_table)["Items"] == []
    assert "Contents" not in account.s3.list_objects_v2(Bucket=ready.bucket)
    assert "Uploads" not in account.s3.list_multipart_uploads(Bucket=ready.bucket)
    written = account.s3.list_object_versions(Bucket=ready.bucket)["Versions"]
    assert all(version["Key"].startswith(SCRATCH) for version in written)


@aws
@pytest.mark.parametrize("turn", range(5))
async def test_a_permission_that_is_missing_is_named(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """By its IAM action, with who needs it; the others are tried all the same. One of each service a turn."""
    denied = [[it for it in PERMISSIONS if it[0] == service] for service in ("kinesis", "s3", "dynamodb")]
    missing = {of_one[turn][2] for of_one in denied if turn < len(of_one)}
    for of_one in denied:
        for service, operation, _ in of_one[turn : turn + 1]:
            code = "AccessDenied" if service == "s3" else "AccessDeniedException"
            override(monkeypatch, service, **{operation: raising(answer(code, status=403))})
    found = await visit(ready)
    assert (found.healthy, found.reached) == (False, True)
    for action in missing:
        check = named(found, action)
        assert check.result == "failed"
        assert check.facts == {"missing": action}
        assert check.remedy.startswith(f"allow {action} on ")
        assert " need it" in check.remedy
    assert {action for *_, action in PERMISSIONS} & set(results(found, "failed")) == missing
    assert not [it.found for it in found.checks if "unexpected" in it.remedy]


@aws
async def test_the_action_that_the_service_names_counts(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one on the key that the stream is encrypted with."""
    text = (
        "User: arn:aws:sts::1:assumed-role/agent/i is not authorized to perform: kms:GenerateDataKey "
        "on resource: arn:aws:kms:us-east-1:1:key/k because no identity-based policy allows it"
    )
    override(monkeypatch, "kinesis", put_records=raising(answer("KMSAccessDeniedException", text)))
    check = named(await visit(ready), "kinesis:PutRecords")
    assert check.facts == {"missing": "kms:GenerateDataKey"}
    assert "allow kms:GenerateDataKey on arn:aws:kms:us-east-1:1:key/k" in check.remedy


@aws
async def test_what_a_worker_can_do_without_fails_nothing(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To tidy up is a warning; what only `init` needs to see is skipped; both name the action."""
    denied = raising(answer("AccessDenied", status=403))
    override(monkeypatch, "s3", get_bucket_lifecycle_configuration=denied, delete_object=denied)
    override(monkeypatch, "dynamodb", describe_table=raising(answer("AccessDeniedException")))
    found = await visit(ready)
    assert found.healthy
    assert set(results(found, "warning")) == {"s3:DeleteObject"}
    assert named(found, "bucket lifecycle").result == "skipped"
    assert "s3:GetLifecycleConfiguration" in named(found, "bucket lifecycle").found
    assert "dynamodb:DescribeTable" in named(found, "lease table configuration").found
    assert named(found, "bucket versioning").result == "ok"


@aws
async def test_what_init_would_set_otherwise_is_a_warning(account: Account, own: Settings) -> None:
    """Versioning switched off, rules removed, a shorter retention than wanted."""
    suspended = {"Status": "Suspended"}
    account.s3.put_bucket_versioning(Bucket=own.bucket, VersioningConfiguration=suspended)
    account.s3.delete_bucket_lifecycle(Bucket=own.bucket)
    found = await visit(load({}, **(fields(own) | {"retention_hours": 48})))
    assert found.healthy
    assert set(results(found, "warning")) == {"bucket versioning", "bucket lifecycle", "stream configuration"}
    assert "48 hours (was 24)" in named(found, "stream configuration").found
    assert account.s3.get_bucket_versioning(Bucket=own.bucket)["Status"] == "Suspended"


@aws
async def test_an_empty_account_says_what_to_make(account: Account, settings: Settings) -> None:
    """Three lines, and none for what depends on them; the services did answer."""
    found = await visit(settings)
    assert (found.healthy, found.reached) == (False, True)
    failed = results(found, "failed")
    assert set(failed) == {
        f"stream {settings.stream}",
        f"bucket {settings.bucket}",
        f"lease table {settings.lease_table}",
    }
    assert all("streamjournal init" in named(found, name).remedy for name in failed)


@aws
async def test_a_lease_table_of_a_kinesis_application_is_found(account: Account, own: Settings) -> None:
    """Its rows have no stream and no sink of ours."""
    account.dynamodb.put_item(
        TableName=own.lease_table,
        Item={"leaseKey": {"S": "shardId-000000000000"}, "checkpoint": {"S": "TRIM_HORIZON"}},
    )
    found = await visit(own)
    assert not found.healthy
    assert named(found, "leases").result == "failed"
    assert "STREAMJOURNAL_LEASE_TABLE" in named(found, "leases").remedy


@aws
async def test_a_table_with_another_key_is_found(
    ready: Settings, aws_table: Callable[..., str], account: Account
) -> None:
    """Its permissions are not what is wrong with it."""
    found = await visit(load({}, **(fields(ready) | {"lease_table": aws_table(key="id")})))
    assert not found.healthy
    assert named(found, "lease table configuration").result == "failed"
    assert "dynamodb:PutItem" not in results(found, "failed")


@aws
async def test_lag_on_kinesis(own: Settings) -> None:
    """What is on the stream and in no journal, by shard."""
    stream = open_stream(own, SYSTEM)
    await stream.put([PutRecord("s", b'{"session_id":"s","event_type":"A"}')])
    await stream.aclose()
    found = await visit(own)
    lagging = [check for check in found.checks if check.facts.get("behind_ms")]
    assert [check.result for check in lagging] == ["warning"]
    assert 0 < lagging[0].facts["behind_ms"] < 60_000


@aws
async def test_a_worker_needs_no_home(ready: Settings, tmp_path: Path) -> None:
    """On AWS only spools are kept there, which a worker has none of."""
    (tmp_path / "file").write_text("")
    found = await visit(load({}, **(fields(ready) | {"home": str(tmp_path / "file")})))
    assert (found.healthy, found.reached) == (True, True)
    assert named(found, "home").result == "warning"
    assert "spools" in named(found, "home").found


# A store that ignores preconditions: moto itself


@pytest.fixture
def plain_moto(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Moto's own server, without the checks that tests/emulators add."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in processes.aws_environment(f"http://{host}:{port}").items():
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


@aws
async def test_a_store_that_ignores_preconditions_is_refused(plain_moto: str, settings: Settings) -> None:
    """One clear line: what it accepts, what could happen, what to use."""
    await initialise(settings, shards=1)
    found = await visit(settings)
    assert not found.healthy
    assert set(results(found, "failed")) == {"conditional writes"}
    check = named(found, "conditional writes")
    assert "CompleteMultipartUpload with a wrong If-Match" in check.found
    assert "overwrite each other's lines" in check.found
    assert "enforces conditional writes" in check.remedy


# Networks, credentials and clocks


@pytest.fixture
def unused_tcp() -> Iterator[str]:
    """An address where nobody listens, and nobody can while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_dead_network_fails_quickly_and_is_not_reachable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, unused_tcp: str
) -> None:
    """Nobody listens there: three failures, the rest is skipped, and the verdict is "not reachable"."""
    for name, value in processes.aws_environment(unused_tcp).items():
        monkeypatch.setenv(name, value)
    found = await visit(settings)
    assert (found.healthy, found.reached) == (False, False)
    assert len(results(found, "failed")) == 3
    assert named(found, "lag").result == "skipped"
    assert not [it.found for it in found.checks if "unexpected" in it.remedy]


async def test_a_network_that_hangs_costs_seconds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    """Something takes the connection and never answers; every service gives up side by side."""
    for name, value in processes.aws_environment(silent_server).items():
        monkeypatch.setenv(name, value)
    began = anyio.current_time()
    found = await visit(settings, timeout=0.3)
    assert anyio.current_time() - began < 10
    assert not found.reached
    assert len(results(found, "failed")) == 3
    assert all("network" in it.remedy for it in found.checks if it.result == "failed")


async def test_no_credentials(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure that says what to set, and nothing else is asked."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    found = await visit(settings)
    assert (found.healthy, found.reached) == (False, False)
    assert set(results(found, "failed")) == {"credentials"}
    assert "AWS_PROFILE" in named(found, "credentials").remedy


@aws
async def test_something_else_that_answers_is_told_apart(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, aws_emulator: str
) -> None:
    """A proxy's 404 is no word of Kinesis or DynamoDB."""
    override(monkeypatch, "kinesis", describe_stream_summary=raising(answer("404", status=404)))
    override(monkeypatch, "dynamodb", scan=raising(answer("404", status=404)))
    found = await visit(settings)
    assert "AWS_ENDPOINT_URL" in named(found, f"stream {settings.stream}").remedy
    assert "AWS_ENDPOINT_URL" in named(found, f"lease table {settings.lease_table}").remedy


class FakeClient:
    """Answers each operation as told."""

    def __init__(self, **operations: Any) -> None:
        self._operations = operations

    def __getattr__(self, name: str) -> Call:
        async def call(**_: Any) -> Any:
            outcome = self._operations[name]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return call


def asked(monkeypatch: pytest.MonkeyPatch, clock: Clock = SYSTEM, **operations: Any) -> doctor_aws.Service:
    """A service whose client answers as told."""

    async def get(_: AwsClient) -> Any:
        return FakeClient(**operations)

    monkeypatch.setattr(AwsClient, "get", get)
    return doctor_aws.Service("kinesis", clock, seconds=1.0)


def dated(seconds: float) -> dict[str, Any]:
    """An answer of a service whose clock is that far from ours."""
    now = datetime.now(UTC) + timedelta(seconds=seconds)
    return {"ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(now, usegmt=True)}}}


@pytest.mark.parametrize(
    ("seconds", "result", "text"),
    [(0, "ok", "within"), (4, "ok", "within"), (30, "warning", "behind"), (-30, "warning", "ahead")],
)
async def test_the_clock_is_compared_with_the_services(
    monkeypatch: pytest.MonkeyPatch, seconds: float, result: str, text: str
) -> None:
    """By the Date header, of errors too; more than five seconds are worth a look."""
    service = asked(monkeypatch, list_shards=dated(seconds))
    await service.ask("list_shards")
    check = doctor_aws.judge_clock([service])
    assert check.result == result
    assert text in check.found
    assert abs(check.facts["kinesis"] + seconds) < 2

    date = dated(seconds)["ResponseMetadata"]["HTTPHeaders"]["date"]
    service = asked(monkeypatch, list_shards=answer("AccessDeniedException", date=date))
    with pytest.raises(ClientError):
        await service.ask("list_shards")
    assert doctor_aws.judge_clock([service]).result == result


@pytest.mark.parametrize(
    "problem",
    [
        answer("RequestTimeTooSkewed", status=403),
        answer("InvalidSignatureException", "Signature expired: 20261122T1312Z is now earlier than …"),
        answer("InvalidSignatureException", "Signature not yet current: …"),
    ],
    ids=lambda it: str(it)[:60],
)
async def test_a_call_that_is_refused_for_its_time_blames_the_clock(
    monkeypatch: pytest.MonkeyPatch, problem: ClientError
) -> None:
    """And not the permissions, or the credentials."""
    service = asked(monkeypatch, list_shards=problem)
    checks = Checks("Kinesis", 1.0)
    await doctor_aws.Permissions(checks, service, "stream s").attempt(
        "kinesis:ListShards", "", "list_shards", {}
    )
    assert "clock" in checks.done[0].remedy
    assert checks.done[0].result == "failed"
    assert doctor_aws.judge_clock([service]).result == "failed"


async def test_no_date_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known is not judged."""
    service = asked(monkeypatch, list_shards={})
    await service.ask("list_shards")
    assert doctor_aws.judge_clock([service]).result == "skipped"


@pytest.mark.parametrize(
    ("outcome", "result", "text"),
    [
        ({}, "ok", "allowed"),
        (answer("InvalidArgumentException"), "ok", "refused as it was meant to be"),
        (answer("ProvisionedThroughputExceededException"), "ok", "asked too often"),
        (answer("AccessDeniedException"), "failed", "denied"),
        (answer("ExpiredTokenException"), "failed", "credentials"),
        (answer("UnrecognizedClientException"), "failed", "credentials"),
        (answer("InternalFailure", status=500), "warning", "InternalFailure"),
        (answer("KMSDisabledException"), "failed", "KMSDisabledException"),
        (EndpointConnectionError(endpoint_url="http://x"), "failed", "http://x"),
    ],
    ids=str,
)
async def test_what_each_kind_of_answer_says_of_a_permission(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, result: str, text: str
) -> None:
    """Only a denial is one."""
    service = asked(monkeypatch, put_records=outcome)
    checks = Checks("Kinesis", 1.0)
    may = doctor_aws.Permissions(checks, service, "stream s")
    await may.attempt(
        "kinesis:PutRecords", "emitters need it", "put_records", {}, shows=("InvalidArgumentException",)
    )
    (check,) = checks.done
    assert check.result == result
    assert text in check.found
    assert checks.away == isinstance(outcome, EndpointConnectionError)


@pytest.mark.aws
async def test_a_kinesis_with_real_sequence_numbers_takes_no_record_either(
    kinesis_local: str, aws_stream: Callable[..., str], aws_emulator: str
) -> None:
    """The probe of PutRecords is refused there too, as a whole."""
    settings = load({}, stream=aws_stream(1), bucket="unused")
    service = doctor_aws.Service("kinesis", SYSTEM, seconds=5.0)
    checks = {check.name: check for check in await check_stream(settings, service, 5.0)}
    await service.aclose()
    assert checks["kinesis:PutRecords"].found.startswith("not denied")
    stream = open_stream(settings, SYSTEM)
    reader = stream.reader((await stream.shards())[0].id, ShardStart("TRIM_HORIZON"))
    assert (await reader.next()).records == []
    await stream.aclose()
