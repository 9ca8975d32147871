"""Leases in DynamoDB: attributes, faults that no emulator makes, and tables that are not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from streamjournal.core.errors import (
    ForeignLeaseTableError,
    LeaseLostError,
    LeasesUnavailableError,
    NotConfiguredError,
    ThrottledError,
)
from streamjournal.leases.dynamodb import DynamoDbLeases
from streamjournal.leases.port import Lease
from tests.leases.faults import (
    FaultingClient,
    Operation,
    client_error,
    lost_after,
    lost_before,
    refused,
    sent_twice,
)

pytestmark = [pytest.mark.anyio, pytest.mark.aws]

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/agents 2026-11-22T13:12:01Z"
ROW = Lease("shardId-3", parents=("shardId-1", "shardId-2"), stream=STREAM)

NO_ANSWER = [
    ReadTimeoutError(endpoint_url="http://dynamodb"),
    EndpointConnectionError(endpoint_url="http://dynamodb"),
    client_error("InternalServerError", 500),
    aiohttp.ClientPayloadError("cut off in the middle"),
]


@pytest.fixture
def table(aws_table: Callable[..., str]) -> str:
    """An empty lease table."""
    return aws_table()


@pytest.fixture
async def aws(aws_emulator: str) -> AsyncIterator[FaultingClient]:
    """The client whose faults the test chooses."""
    client = FaultingClient()
    yield client
    await client.aclose()


@pytest.fixture
def leases(table: str, aws: FaultingClient) -> DynamoDbLeases:
    """The table through the faulting client."""
    return DynamoDbLeases(table, client=aws)


@pytest.fixture
def plain(aws_emulator: str, aws_client: Callable[[str, str], Any]) -> Any:
    """Another program's client."""
    return aws_client("dynamodb", aws_emulator)


def item(plain: Any, table: str) -> dict[str, Any]:
    """The table's one item, as it is stored."""
    (found,) = plain.scan(TableName=table)["Items"]
    return dict(found)


async def test_attributes_are_those_of_kcl(leases: DynamoDbLeases, plain: Any, table: str) -> None:
    """Names and types are what KCL's serializer reads, with two attributes of ours."""
    await leases.create(ROW)
    row = await leases.update(ROW, ROW.taken_by("worker-a"))
    await leases.update(row, row.advanced("17"))
    stored = item(plain, table)
    assert set(stored.pop("parentShardId")["SS"]) == {"shardId-1", "shardId-2"}
    assert stored == {
        "leaseKey": {"S": "shardId-3"},
        "leaseOwner": {"S": "worker-a"},
        "leaseCounter": {"N": "2"},
        "checkpoint": {"S": "17"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "streamIdentity": {"S": STREAM},
        "sink": {"S": "journal"},
    }


async def test_free_row_has_no_owner_attribute(leases: DynamoDbLeases, plain: Any, table: str) -> None:
    """KCL takes an absent leaseOwner for "nobody"; so a release removes it, as no parents are removed."""
    await leases.create(ROW)
    held = await leases.update(ROW, ROW.taken_by("a"))
    await leases.update(held, Lease(ROW.key, counter=held.counter + 1, stream=STREAM))
    assert {"leaseOwner", "parentShardId"}.isdisjoint(item(plain, table))


async def test_unknown_attributes_survive_every_update(
    leases: DynamoDbLeases, plain: Any, table: str
) -> None:
    """What a newer KCL keeps in a row is still there after we took, advanced and released it."""
    await leases.create(ROW)
    theirs = {"throughputKBps": {"N": "12.5"}, "pendingCheckpoint": {"S": "20"}}
    plain.put_item(TableName=table, Item=item(plain, table) | theirs)
    row = await leases.update(ROW, ROW.taken_by("a"))
    row = await leases.update(row, row.advanced("17"))
    await leases.update(row, row.released())
    assert theirs.items() <= item(plain, table).items()


@pytest.mark.parametrize("error", NO_ANSWER, ids=lambda error: type(error).__name__)
async def test_update_whose_answer_is_lost_worked(
    leases: DynamoDbLeases, aws: FaultingClient, error: Exception
) -> None:
    """The write happened and the caller saw an error: a look at the row finds that out."""
    await leases.create(ROW)
    aws.faults["update_item"] = lost_after(error)
    taken = await leases.update(ROW, ROW.taken_by("a"))
    assert await leases.rows() == [taken]
    assert aws.calls.count("update_item") == 1


@pytest.mark.parametrize("error", NO_ANSWER, ids=lambda error: type(error).__name__)
async def test_update_that_never_arrived_is_unavailable(
    leases: DynamoDbLeases, aws: FaultingClient, error: Exception
) -> None:
    """The row is still the one that was seen, so the caller may try again, and then it works."""
    await leases.create(ROW)
    aws.faults["update_item"] = lost_before(error)
    with pytest.raises(LeasesUnavailableError, match="try again"):
        await leases.update(ROW, ROW.taken_by("a"))
    aws.faults.clear()
    assert await leases.update(ROW, ROW.taken_by("a"))


async def test_update_without_answer_while_another_took_the_row_is_lost(
    leases: DynamoDbLeases, aws: FaultingClient, table: str
) -> None:
    """No answer, and the row is somebody else's: the lease is lost, whatever became of the write."""
    await leases.create(ROW)
    other = DynamoDbLeases(table)
    await other.update(ROW, ROW.taken_by("other"))
    await other.aclose()
    aws.faults["update_item"] = lost_before(NO_ANSWER[0])
    with pytest.raises(LeaseLostError) as lost:
        await leases.update(ROW, ROW.taken_by("a"))
    assert lost.value.owner == "other"


async def test_update_that_was_sent_twice_worked(leases: DynamoDbLeases, aws: FaultingClient) -> None:
    """A second send of a write that worked meets the first; that is no lost lease."""
    await leases.create(ROW)
    aws.faults["update_item"] = sent_twice
    taken = await leases.update(ROW, ROW.taken_by("a"))
    assert await leases.rows() == [taken]


async def test_update_that_cannot_be_looked_into_is_unavailable(
    leases: DynamoDbLeases, aws: FaultingClient
) -> None:
    """Neither the write nor the look is answered: the row may have changed, so it is no throttle."""
    await leases.create(ROW)
    aws.faults["update_item"] = lost_after(NO_ANSWER[0])
    aws.faults["get_item"] = refused("ThrottlingException", 400)
    with pytest.raises(LeasesUnavailableError):
        await leases.update(ROW, ROW.taken_by("a"))


async def test_create_whose_answer_is_lost_worked(leases: DynamoDbLeases, aws: FaultingClient) -> None:
    """The new row is found, so it was created."""
    aws.faults["put_item"] = lost_after(NO_ANSWER[0])
    assert await leases.create(ROW) is True
    assert await leases.rows() == [ROW]


async def test_create_without_answer_over_anothers_row_is_false(
    leases: DynamoDbLeases, aws: FaultingClient
) -> None:
    """A row that is not the one we sent was there already."""
    await leases.create(ROW.taken_by("other"))
    aws.faults["put_item"] = lost_before(NO_ANSWER[0])
    assert await leases.create(ROW) is False


async def test_create_that_never_arrived_is_unavailable(leases: DynamoDbLeases, aws: FaultingClient) -> None:
    """No answer and no row: try again."""
    aws.faults["put_item"] = lost_before(NO_ANSWER[0])
    with pytest.raises(LeasesUnavailableError):
        await leases.create(ROW)
    assert await leases.rows() == []


@pytest.mark.parametrize("operation", ["scan", "put_item", "update_item", "delete_item"])
async def test_throttle_is_said_so_and_nothing_was_written(
    leases: DynamoDbLeases, aws: FaultingClient, operation: str
) -> None:
    """A throttled call is tried once, is called throttled, and leaves the table as it was."""
    await leases.create(ROW)
    aws.calls.clear()
    aws.faults[operation] = refused("ProvisionedThroughputExceededException", 400)
    call: dict[str, Callable[[], Awaitable[object]]] = {
        "scan": leases.rows,
        "put_item": lambda: leases.create(Lease("new", stream=STREAM)),
        "update_item": lambda: leases.update(ROW, ROW.taken_by("a")),
        "delete_item": lambda: leases.delete(ROW),
    }
    with pytest.raises(ThrottledError):
        await call[operation]()
    assert aws.calls == [operation]
    aws.faults.clear()
    assert await leases.rows() == [ROW]


async def test_rows_follow_every_page_and_read_consistently(
    leases: DynamoDbLeases, aws: FaultingClient
) -> None:
    """A table of more than one page is read to its end, strongly consistent on each page."""
    rows = [Lease(f"shardId-{i}", stream=STREAM) for i in range(7)]
    for row in rows:
        await leases.create(row)
    consistent: list[bool] = []

    async def small_pages(real: Operation, parameters: dict[str, Any]) -> dict[str, Any]:
        consistent.append(parameters["ConsistentRead"])
        return await real(**parameters, Limit=2)

    aws.faults["scan"] = small_pages
    assert sorted(await leases.rows(), key=lambda row: row.key) == rows
    assert consistent == [True] * 4


async def test_table_of_another_kinesis_application_is_refused(
    leases: DynamoDbLeases, plain: Any, table: str
) -> None:
    """Rows that KCL itself wrote are not taken for ours, even where some of ours are among them."""
    await leases.create(ROW)
    plain.put_item(
        TableName=table,
        Item={
            "leaseKey": {"S": "shardId-000000000000"},
            "leaseOwner": {"S": "host:1b4e28ba"},
            "leaseCounter": {"N": "90210"},
            "checkpoint": {"S": "LATEST"},
            "checkpointSubSequenceNumber": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
        },
    )
    with pytest.raises(ForeignLeaseTableError, match=r"another Kinesis application.*LEASE_TABLE"):
        await leases.rows()


async def test_table_of_another_sink_is_refused(
    leases: DynamoDbLeases, aws: FaultingClient, table: str
) -> None:
    """Each sink has a table of its own; two in one would take each other's checkpoints."""
    await leases.create(ROW)
    alerts = DynamoDbLeases(table, client=aws, sink="alerts")
    with pytest.raises(ForeignLeaseTableError, match=r"'journal', not 'alerts'.*STREAMJOURNAL_LEASE_TABLE"):
        await alerts.rows()


async def test_missing_table_says_how_to_make_it(aws: FaultingClient) -> None:
    """Every call names the table and the command that makes it."""
    leases = DynamoDbLeases("nowhere", client=aws)
    for call in (leases.rows, lambda: leases.create(ROW), lambda: leases.update(ROW, ROW.renewed())):
        with pytest.raises(NotConfiguredError, match=r"nowhere.*streamjournal init"):
            await call()


async def test_table_with_another_key_is_refused(aws: FaultingClient, aws_table: Callable[..., str]) -> None:
    """A table that is no lease table at all says so at the first write."""
    leases = DynamoDbLeases(aws_table(key="id"), client=aws)
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_LEASE_TABLE"):
        await leases.create(ROW)


async def test_no_credentials_say_what_to_set(
    aws_emulator: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write without credentials is no unknown outcome, and names the variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    leases = DynamoDbLeases(table)
    try:
        with pytest.raises(NotConfiguredError, match="AWS_PROFILE"):
            await leases.update(ROW, ROW.renewed())
    finally:
        await leases.aclose()


async def test_no_region_says_what_to_set(
    aws_emulator: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a region the error names the variable, and that variable alone is enough."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    leases = DynamoDbLeases(table)
    with pytest.raises(NotConfiguredError, match="AWS_REGION"):
        await leases.rows()
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    try:
        assert await leases.rows() == []
    finally:
        await leases.aclose()
