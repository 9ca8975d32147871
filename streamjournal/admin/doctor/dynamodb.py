"""The doctor's look at the lease table: that it is there, and that each call of ours is allowed.

No row is written: each write is of a key that no shard has, on the condition that its row exists.
"""

from __future__ import annotations

from typing import Final

from botocore import exceptions as boto

from streamjournal.admin.doctor.aws import Permissions, Service, fault_of, is_there, look_at_endpoint
from streamjournal.admin.doctor.check import Check, Checks, failed, ok
from streamjournal.admin.doctor.planned import check_planned
from streamjournal.admin.init.dynamodb import TablePlan
from streamjournal.core.aws import error_code
from streamjournal.core.settings import Settings

_WORKERS: Final = "workers need it"
_BOTH: Final = "workers and readers need it"
_FALSE: Final = "ConditionalCheckFailedException"
_SCHEMA: Final = "ValidationException"  # a table with another key: the check of its form tells of that
_KEY: Final = "leaseKey"


async def check_table(settings: Settings, service: Service, seconds: float, token: str) -> list[Check]:
    """The lease table, the permissions on it, and whether leases can be kept in it.

    Args:
        token: of a key that no row has.
    """
    table = settings.lease_table
    checks = Checks("DynamoDB", seconds)
    what = f"lease table {table}"

    async def look() -> Check:
        try:
            await service.ask("scan", TableName=table, Limit=1)
        except boto.ClientError as problem:
            if error_code(problem) == "ResourceNotFoundException":
                remedy = "`streamjournal init` makes it; STREAMJOURNAL_LEASE_TABLE chooses another"
                return failed(what, "there is none in this account and region", remedy)
            return fault_of(what, problem, action="dynamodb:Scan", resource=table, needed_by=_BOTH)
        return ok(what, "there")

    await checks.run("endpoint dynamodb", lambda: look_at_endpoint(service))
    await checks.run(what, look)
    if not is_there(service, checks):
        return checks.done
    await _try_permissions(Permissions(checks, service, f"table {table}"), table, token)
    await check_planned(checks, "lease table configuration", TablePlan(settings), "dynamodb:DescribeTable")
    return checks.done


async def _try_permissions(may: Permissions, table: str, token: str) -> None:
    named = {"TableName": table}
    key = {_KEY: {"S": f"streamjournal-doctor-{token}"}}
    never = {
        **named,
        "ConditionExpression": "attribute_exists(#key)",
        "ExpressionAttributeNames": {"#key": _KEY},
    }
    update = {
        **never,
        "Key": key,
        "UpdateExpression": "SET leaseCounter = :zero",
        "ExpressionAttributeValues": {":zero": {"N": "0"}},
    }
    shows = (_FALSE, _SCHEMA)
    await may.attempt("dynamodb:Scan", _BOTH, "scan", {**named, "Limit": 1})
    await may.attempt("dynamodb:GetItem", _WORKERS, "get_item", {**named, "Key": key}, shows=(_SCHEMA,))
    await may.attempt("dynamodb:PutItem", _WORKERS, "put_item", {**never, "Item": key}, shows=shows)
    await may.attempt("dynamodb:UpdateItem", _WORKERS, "update_item", update, shows=shows)
    await may.attempt("dynamodb:DeleteItem", _WORKERS, "delete_item", {**never, "Key": key}, shows=shows)
