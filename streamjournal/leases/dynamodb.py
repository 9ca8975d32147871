"""Leases in a DynamoDB table with the Kinesis Client Library's attributes.

Names and types are those of KCL's `DynamoDBLeaseSerializer`
(https://github.com/awslabs/amazon-kinesis-client):

============================  ====  =======================================================
attribute                     type  holds
============================  ====  =======================================================
leaseKey (the hash key)       S     the shard's id
leaseOwner                    S     absent while nobody holds the lease
leaseCounter                  N     goes up with each write by the owner
checkpoint                    S     sequence number, TRIM_HORIZON or SHARD_END
checkpointSubSequenceNumber   N     0: a record is never split across checkpoints
ownerSwitchesSinceCheckpoint  N
parentShardId                 SS    absent for a shard without parents; a set has no order
childShardIds                 SS    absent until the shard has ended
startingHashKey               S     first MD5(partition key) of the shard's range, decimal
endingHashKey                 S     last one
checkpointOwner               S     only while the lease changes hands: who has it until then
streamIdentity                S     ours: `arn created`
sink                          S     ours: what the records are read for
============================  ====  =======================================================

An update sets these and leaves every other attribute alone, so what newer versions of KCL or of
this package keep in a row survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from botocore import exceptions as boto

from streamjournal.core.aws import AwsClient, error_code, explain, is_retryable, status_code
from streamjournal.core.errors import (
    ForeignLeaseTableError,
    LeaseLostError,
    LeasesUnavailableError,
    NotConfiguredError,
    StreamjournalError,
)
from streamjournal.core.position import TRIM_HORIZON
from streamjournal.leases.port import Lease

Item = dict[str, dict[str, Any]]

KEY: Final = "leaseKey"
_OWNER: Final = "leaseOwner"
_COUNTER: Final = "leaseCounter"
_CHECKPOINT: Final = "checkpoint"
_SUB_SEQUENCE: Final = "checkpointSubSequenceNumber"
_SWITCHES: Final = "ownerSwitchesSinceCheckpoint"
_PARENTS: Final = "parentShardId"
_CHILDREN: Final = "childShardIds"
_FIRST_HASH: Final = "startingHashKey"
_LAST_HASH: Final = "endingHashKey"
_CHECKPOINT_OWNER: Final = "checkpointOwner"
_STREAM: Final = "streamIdentity"
_SINK: Final = "sink"
_OPTIONAL: Final = (  # removed from a row when they have no value
    _OWNER,
    _PARENTS,
    _CHILDREN,
    _FIRST_HASH,
    _LAST_HASH,
    _CHECKPOINT_OWNER,
)

_CONFLICT: Final = "ConditionalCheckFailedException"


class DynamoDbLeases:
    """A table of leases in DynamoDB.

    Args:
        table: its name or ARN; `streamjournal init` makes it.
        client: another client than the default, which tries each call once: the retry of a
            conditional write that worked looks like somebody else's write.
        sink: whose leases these are; a table that holds another sink's is refused.
    """

    def __init__(self, table: str, *, client: AwsClient | None = None, sink: str = "journal") -> None:
        self._table = table
        self._aws = client or AwsClient("dynamodb", attempts=1)
        self._sink = sink

    async def rows(self) -> list[Lease]:
        """Every row, strongly consistent.

        Raises:
            LeasesUnavailableError, ThrottledError: ask again later.
            NotConfiguredError: no such table, or no credentials.
            ForeignLeaseTableError: a table of another application or sink.
        """
        items: list[Item] = []
        page: dict[str, Any] = {"ConsistentRead": True}
        while True:
            answer = await self._call("scan", **page)
            items += answer.get("Items", ())
            if "LastEvaluatedKey" not in answer:
                return [self._own(item) for item in items]
            page["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def create(self, lease: Lease) -> bool:
        """Add a row; False if there is one of that key already.

        Raises:
            LeasesUnavailableError: no answer, and the row is not there; it may come yet.
            ThrottledError: nothing was written.
        """
        try:
            await self._send(
                "put_item",
                Item=encode(lease),
                ConditionExpression="attribute_not_exists(#key)",
                ExpressionAttributeNames={"#key": KEY},
            )
        except Exception as problem:
            if error_code(problem) == _CONFLICT:
                return False
            if not _is_unknown(problem):
                raise self._explain(problem) from problem
            row = await self._look(lease, problem)
            if row is None:
                raise self._unanswered(lease, problem) from problem
            return _same(row, lease)
        return True

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        """Replace row `seen` by `changed`, if its owner and counter are still those of `seen`.

        Raises:
            LeaseLostError: the row is another by now, or is gone.
            LeasesUnavailableError: no answer, and the row is still `seen`; it may change yet.
            ThrottledError: nothing was written.
        """
        try:
            await self._send("update_item", Key=_key_of(seen), **_replacement(seen, changed))
        except Exception as problem:
            if error_code(problem) != _CONFLICT and not _is_unknown(problem):
                raise self._explain(problem) from problem
            await self._settle(seen, changed, problem)
        return changed

    async def _settle(self, seen: Lease, changed: Lease, problem: Exception) -> None:
        """Find out by reading what became of a write that was refused, or got no answer.

        A refusal is looked into as well: something on the way (a proxy, a client with retries) may
        have sent the write twice, and then the second one meets the first.
        """
        row = await self._look(seen, problem)
        if row is not None and _same(row, changed):
            return
        if row is None or (row.owner, row.counter) != (seen.owner, seen.counter):
            raise LeaseLostError(seen.key, row.owner if row else None) from problem
        raise self._unanswered(seen, problem) from problem

    async def _look(self, lease: Lease, problem: Exception) -> Lease | None:
        try:
            answer = await self._send("get_item", Key=_key_of(lease), ConsistentRead=True)
        except Exception as second:
            raise self._unanswered(lease, problem) from second
        return decode(answer["Item"]) if "Item" in answer else None

    async def delete(self, lease: Lease) -> None:
        """Remove a row, whoever holds it; nothing happens if it is gone."""
        await self._call("delete_item", Key=_key_of(lease))

    async def aclose(self) -> None:
        """Free connections."""
        await self._aws.aclose()

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            return await self._send(operation, **parameters)
        except Exception as problem:
            raise self._explain(problem) from problem

    async def _send(self, operation: str, **parameters: Any) -> dict[str, Any]:
        client = await self._aws.get()
        answer: dict[str, Any] = await getattr(client, operation)(TableName=self._table, **parameters)
        return answer

    def _own(self, item: Item) -> Lease:
        """The lease in an item, if the item is one of ours."""
        if _SINK not in item or _STREAM not in item:
            raise ForeignLeaseTableError(
                f"table {self._table} holds rows of another Kinesis application; set "
                "STREAMJOURNAL_LEASE_TABLE to a table of its own"
            )
        lease = decode(item)
        if lease.sink != self._sink:
            raise ForeignLeaseTableError(
                f"table {self._table} holds the leases of sink {lease.sink!r}, not {self._sink!r}; set "
                "STREAMJOURNAL_LEASE_TABLE to a table of its own"
            )
        return lease

    def _unanswered(self, lease: Lease, problem: Exception) -> LeasesUnavailableError:
        return LeasesUnavailableError(
            f"lease table {self._table}: no answer to the write of {lease.key} ({problem}); try again"
        )

    def _explain(self, problem: Exception) -> StreamjournalError:
        if isinstance(problem, StreamjournalError):
            return problem
        code = error_code(problem)
        if code == "ResourceNotFoundException":
            return NotConfiguredError(
                f"there is no lease table {self._table}; make it by `streamjournal init`, or set "
                "STREAMJOURNAL_LEASE_TABLE to one that exists"
            )
        if code == "ValidationException":
            return NotConfiguredError(
                f"table {self._table} cannot hold leases ({problem}); set STREAMJOURNAL_LEASE_TABLE to a "
                "table made by `streamjournal init`"
            )
        return explain(problem, f"lease table {self._table}", unavailable=LeasesUnavailableError)


def _is_unknown(problem: Exception) -> bool:
    """Whether a write may have happened although it failed: no answer, or a server's own fault."""
    if isinstance(problem, StreamjournalError):
        return False
    if isinstance(problem, boto.ClientError):
        return status_code(problem) >= 500
    if isinstance(problem, boto.BotoCoreError):
        return is_retryable(problem)
    return True  # what the SDK does not wrap comes from the connection, in the middle of an answer


def _key_of(lease: Lease) -> Item:
    return {KEY: {"S": lease.key}}


def _same(a: Lease, b: Lease) -> bool:
    """Whether two rows are equal; a set of shards has no order."""
    return _sorted(a) == _sorted(b)


def _sorted(row: Lease) -> Lease:
    return replace(row, parents=tuple(sorted(row.parents)), children=tuple(sorted(row.children)))


def _replacement(seen: Lease, changed: Lease) -> dict[str, Any]:
    """The parameters of an UpdateItem that sets our attributes and no other."""
    new = {name: value for name, value in encode(changed).items() if name != KEY}
    absent = [name for name in _OPTIONAL if name not in new]
    names = {f"#{name}": name for name in (*new, *absent)}
    values = {f":{name}": value for name, value in new.items()}
    values[":seenCounter"] = {"N": str(seen.counter)}
    held = f"attribute_not_exists(#{_OWNER})"
    if seen.owner is not None:
        held = f"#{_OWNER} = :seenOwner"
        values[":seenOwner"] = {"S": seen.owner}
    update = "SET " + ", ".join(f"#{name} = :{name}" for name in new)
    if absent:
        update += " REMOVE " + ", ".join(f"#{name}" for name in absent)
    return {
        "UpdateExpression": update,
        "ConditionExpression": f"#{_COUNTER} = :seenCounter AND {held}",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def encode(lease: Lease) -> Item:
    """A lease as the attributes of an item."""
    item: Item = {
        KEY: {"S": lease.key},
        _COUNTER: {"N": str(lease.counter)},
        _CHECKPOINT: {"S": lease.checkpoint},
        _SUB_SEQUENCE: {"N": "0"},
        _SWITCHES: {"N": str(lease.owner_switches)},
        _STREAM: {"S": lease.stream},
        _SINK: {"S": lease.sink},
    }
    if lease.owner is not None:
        item[_OWNER] = {"S": lease.owner}
    if lease.parents:
        item[_PARENTS] = {"SS": sorted(set(lease.parents))}
    if lease.children:
        item[_CHILDREN] = {"SS": sorted(set(lease.children))}
    if lease.hashes is not None:
        item[_FIRST_HASH], item[_LAST_HASH] = ({"S": str(hash_)} for hash_ in lease.hashes)
    if lease.checkpoint_owner is not None:
        item[_CHECKPOINT_OWNER] = {"S": lease.checkpoint_owner}
    return item


def decode(item: Mapping[str, Mapping[str, Any]]) -> Lease:
    """The lease in an item; what an item of KCL's own lacks has its default."""
    return Lease(
        key=item[KEY]["S"],
        owner=item[_OWNER]["S"] if _OWNER in item else None,
        counter=int(item[_COUNTER]["N"]) if _COUNTER in item else 0,
        checkpoint=item[_CHECKPOINT]["S"] if _CHECKPOINT in item else TRIM_HORIZON,
        parents=tuple(sorted(item[_PARENTS]["SS"])) if _PARENTS in item else (),
        owner_switches=int(item[_SWITCHES]["N"]) if _SWITCHES in item else 0,
        stream=item[_STREAM]["S"] if _STREAM in item else "",
        sink=item[_SINK]["S"] if _SINK in item else "",
        checkpoint_owner=item[_CHECKPOINT_OWNER]["S"] if _CHECKPOINT_OWNER in item else None,
        children=tuple(sorted(item[_CHILDREN]["SS"])) if _CHILDREN in item else (),
        hashes=(int(item[_FIRST_HASH]["S"]), int(item[_LAST_HASH]["S"])) if _FIRST_HASH in item else None,
    )
