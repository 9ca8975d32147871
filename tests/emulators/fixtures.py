"""pytest fixtures for the emulators; tests/conftest.py loads them for every test.

=====================  ==========================================================================
fixture                gives
=====================  ==========================================================================
`aws_emulator`         the endpoint of S3, DynamoDB and Kinesis (moto); the test's environment
                       sends every AWS client there
`kinesis_local`        the endpoint of a Kinesis with real sequence numbers and resharding; the
                       test's environment sends Kinesis clients there. Skips without node and npm
`aws_stream(shards)`   makes a stream on whichever of the two the test uses, gives its name
`aws_bucket()`         makes a bucket with versioning on, gives its name
`aws_table(key)`       makes a DynamoDB table with that hash key, gives its name
=====================  ==========================================================================

The servers run once for each test process and end with it. Names are never used twice, so tests
need not clean up.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.emulators import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DEADLINE = 10.0  # seconds until a resource must be usable
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The one moto server of this test process."""
    with processes.running_moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def kinesis_local_endpoint() -> Iterator[str]:
    """The one kinesis-local of this test process."""
    if missing := processes.missing_for_kinesis_local():
        pytest.skip(f"kinesis-local needs {missing}")
    with processes.running_kinesis_local() as endpoint:
        yield endpoint


@pytest.fixture
def aws_emulator(moto_endpoint: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint, with the environment of this test pointing to it."""
    for name, value in processes.aws_environment(moto_endpoint).items():
        monkeypatch.setenv(name, value)
    return moto_endpoint


@pytest.fixture
def kinesis_local(
    kinesis_local_endpoint: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The endpoint; Kinesis clients go there, those of other services wherever they went before."""
    for name, value in processes.aws_environment(kinesis_local_endpoint).items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis_local_endpoint)
    return kinesis_local_endpoint


@pytest.fixture
def aws_stream(request: pytest.FixtureRequest, aws_client: Callable[[str, str], Any]) -> Callable[..., str]:
    """Make a stream: `aws_stream(shards=1)` -> its name, once it is ACTIVE."""
    local = "kinesis_local" in request.fixturenames
    endpoint = request.getfixturevalue("kinesis_local" if local else "aws_emulator")

    def create(shards: int = 1) -> str:
        client = aws_client("kinesis", endpoint)
        name = unique_name("stream")
        client.create_stream(StreamName=name, ShardCount=shards)
        deadline = time.monotonic() + _DEADLINE
        while _status(client, name) != "ACTIVE":
            assert time.monotonic() < deadline, f"{name} is not ACTIVE after {_DEADLINE} s"
            time.sleep(0.002)
        return name

    return create


@pytest.fixture
def aws_bucket(aws_emulator: str, aws_client: Callable[[str, str], Any]) -> Callable[[], str]:
    """Make a versioned bucket, as `init` does: `aws_bucket()` -> its name."""

    def create() -> str:
        client = aws_client("s3", aws_emulator)
        name = unique_name("bucket")
        client.create_bucket(Bucket=name)
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    return create


@pytest.fixture
def aws_table(aws_emulator: str, aws_client: Callable[[str, str], Any]) -> Callable[..., str]:
    """Make a table: `aws_table(key="leaseKey")` -> its name. The key is a string."""

    def create(key: str = "leaseKey") -> str:
        name = unique_name("table")
        aws_client("dynamodb", aws_emulator).create_table(
            TableName=name,
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return name

    return create


@pytest.fixture(scope="session")
def aws_client() -> Iterator[Callable[[str, str], Any]]:
    """A plain boto3 client of (service, endpoint), for a test's own look at what is there.

    One for each pair and test process, since making one takes longer than most tests.
    """
    clients: dict[tuple[str, str], Any] = {}

    def client(service: str, endpoint: str) -> Any:
        if (service, endpoint) not in clients:
            clients[service, endpoint] = _make_client(service, endpoint)
        return clients[service, endpoint]

    yield client
    for made in clients.values():
        made.close()


def unique_name(kind: str) -> str:
    """A name that no other test of this process uses; each process has servers of its own."""
    return f"test-{kind}-{next(_numbers)}"


def _make_client(service: str, endpoint: str) -> Any:
    import boto3

    session = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name=processes.REGION
    )
    return session.client(service, endpoint_url=endpoint)


def _status(client: Any, stream: str) -> str:
    answer = client.describe_stream_summary(StreamName=stream)
    status: str = answer["StreamDescriptionSummary"]["StreamStatus"]
    return status
