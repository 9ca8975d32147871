"""The doctor's look at the stream: that it is there, and that each call of ours is allowed."""

from __future__ import annotations

from typing import Any, Final

from botocore import exceptions as boto

from streamjournal.admin.doctor.aws import (
    Permissions,
    Service,
    fault_of,
    is_there,
    look_at_endpoint,
)
from streamjournal.admin.doctor.check import Check, Checks, failed, ok
from streamjournal.admin.doctor.planned import check_planned
from streamjournal.admin.init.kinesis import StreamPlan
from streamjournal.core.aws import error_code
from streamjournal.core.settings import Settings
from streamjournal.stream.aggregation import aggregate

_EVERYBODY: Final = "emitters, workers and readers need it"
_READERS: Final = "workers and readers need it"
_MISSING: Final = "ResourceNotFoundException"
_INVALID: Final = ("InvalidArgumentException", "ValidationException")
_ANY_SHARD: Final = "shardId-000000000000"
_SCRATCH: Final = "streamjournal-doctor"
#: One more than the highest hash key there is, and of as many digits: only the service itself sees that
#: it is out of range, and refuses the whole call for it. Should anything ever take the record, then it
#: is an aggregate of no entries, which no worker and no reader sees.
_IMPOSSIBLE_RECORD: Final = {
    "PartitionKey": _SCRATCH,
    "ExplicitHashKey": str(2**128),
    "Data": aggregate(_SCRATCH, []),
}


async def check_stream(settings: Settings, service: Service, seconds: float) -> list[Check]:
    """The stream, the permissions on it, and what `init` would change about it."""
    given = settings.stream or ""
    name = {"StreamARN" if given.startswith("arn:") else "StreamName": given}
    checks = Checks("Kinesis", seconds)
    summary: dict[str, Any] = {}

    async def look() -> Check:
        try:
            answer = await service.ask("describe_stream_summary", **name)
        except boto.ClientError as problem:
            if error_code(problem) == _MISSING:
                remedy = "`streamjournal init` makes it; AWS_REGION and STREAMJOURNAL_STREAM choose another"
                return failed(what, "there is none in this account and region", remedy)
            if error_code(problem) in _INVALID:
                remedy = "set STREAMJOURNAL_STREAM to a stream's name or ARN"
                return failed(what, str(problem), remedy)
            action = "kinesis:DescribeStreamSummary"
            return fault_of(what, problem, action=action, resource=given, needed_by=_EVERYBODY)
        summary.update(answer["StreamDescriptionSummary"])
        return _told(what, summary)

    what = f"stream {settings.stream_name}"
    await checks.run("endpoint kinesis", lambda: look_at_endpoint(service))
    await checks.run(what, look)
    if not is_there(service, checks):
        return checks.done
    resource = summary.get("StreamARN", given)
    await _try_permissions(Permissions(checks, service, resource), name, summary)
    if summary:
        planned = StreamPlan(settings, retention_hours=None, shards=None)
        await check_planned(checks, "stream configuration", planned, "kinesis:DescribeStreamSummary")
    return checks.done


def _told(what: str, summary: dict[str, Any]) -> Check:
    mode = summary.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED").lower().replace("_", "-")
    shards, hours = summary["OpenShardCount"], summary["RetentionPeriodHours"]
    encryption = summary.get("EncryptionType", "NONE")
    found = f"{summary['StreamStatus']}, {mode}, {shards} open shards, records kept {hours} h"
    facts = {
        "arn": summary["StreamARN"],
        "shards": shards,
        "retention_hours": hours,
        "encryption": encryption,
    }
    if summary["StreamStatus"] not in ("ACTIVE", "UPDATING"):
        return failed(what, found, "wait until it is ACTIVE; if it is being deleted, make another", **facts)
    return ok(what, found, **facts)


async def _try_permissions(may: Permissions, name: dict[str, str], summary: dict[str, Any]) -> None:
    await may.attempt("kinesis:DescribeStreamSummary", _EVERYBODY, "describe_stream_summary", name)
    listed = await may.attempt("kinesis:ListShards", _READERS, "list_shards", {**name, "MaxResults": 1})
    shard = listed["Shards"][0]["ShardId"] if listed and listed["Shards"] else _ANY_SHARD
    opened = await may.attempt(
        "kinesis:GetShardIterator",
        _READERS,
        "get_shard_iterator",
        {**name, "ShardId": shard, "ShardIteratorType": "LATEST"},
        shows=(_MISSING,),
    )
    if opened is None:
        may.skip("kinesis:GetRecords", "it needs what kinesis:GetShardIterator gives")
    else:
        by_arn = {key: value for key, value in name.items() if key == "StreamARN"}
        parameters = {**by_arn, "ShardIterator": opened["ShardIterator"], "Limit": 1}
        await may.attempt("kinesis:GetRecords", _READERS, "get_records", parameters)
    await may.attempt(
        "kinesis:PutRecords",
        "emitters need it",
        "put_records",
        {**name, "Records": [_IMPOSSIBLE_RECORD]},
        shows=_INVALID,
        shown="not denied",  # AWS does not document whether it looks at the right or the key first
        say=_say_taken,
    )
    if summary.get("EncryptionType") == "KMS":
        may.skip(
            "kms:GenerateDataKey, kms:Decrypt", "the stream is encrypted; only real records would show them"
        )


def _say_taken(answer: dict[str, Any]) -> str:
    """The service checks the record by itself, or not at all: either way the call was allowed."""
    code = answer["Records"][0].get("ErrorCode")
    return (
        f"allowed (refused as it was meant to be: {code})" if code else "allowed (a record without entries)"
    )
