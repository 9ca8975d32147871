"""`init`'s part on DynamoDB: the lease table."""

from __future__ import annotations

from typing import Any, Final

from streamjournal.admin.init.calls import Calls
from streamjournal.admin.init.plan import Planned, Step, refuse_deleting, unchanged, until_active
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings

_KEY: Final = "leaseKey"  # as KCL names it, see leases.dynamodb
_KEY_SCHEMA: Final = [{"AttributeName": _KEY, "KeyType": "HASH"}]
_KEY_TYPE: Final = {"AttributeName": _KEY, "AttributeType": "S"}
_ADVICE: Final = {"LimitExceededException": "the account has too many tables; raise its limit, or delete one"}


class TablePlan:
    """Plans the lease table: a few requests a second at most, so it is paid per request."""

    def __init__(self, settings: Settings) -> None:
        self._table = settings.lease_table
        self._calls = Calls("dynamodb", f"lease table {self._table}", _ADVICE)

    async def plan(self) -> list[Planned]:
        """The step for the table.

        Raises:
            NotConfiguredError: a table of that name exists, and leases cannot be kept in it.
        """
        found = await self._describe()
        if found is None:
            return [Planned(Step(self._calls.what, "created", "paid per request"), self._create)]
        refuse_deleting(found["TableStatus"], self._calls.what)
        if found["KeySchema"] != _KEY_SCHEMA or _KEY_TYPE not in found["AttributeDefinitions"]:
            raise NotConfiguredError(
                f"table {self._table} exists, and is no lease table (its key is not the text {_KEY}); "
                "set STREAMJOURNAL_LEASE_TABLE to another name"
            )
        mode = found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
        detail = "paid per request" if mode == "PAY_PER_REQUEST" else "provisioned capacity, as it was"
        return [unchanged(self._calls.what, detail)]

    async def aclose(self) -> None:
        """Free connections."""
        await self._calls.aclose()

    async def _create(self) -> None:
        await self._calls.ask(
            "create_table",
            expected=("ResourceInUseException",),
            TableName=self._table,
            KeySchema=_KEY_SCHEMA,
            AttributeDefinitions=[_KEY_TYPE],
            BillingMode="PAY_PER_REQUEST",
        )
        await until_active(self._status, self._calls.what)

    async def _describe(self) -> dict[str, Any] | None:
        answer = await self._calls.ask(
            "describe_table", expected=("ResourceNotFoundException",), TableName=self._table
        )
        return answer["Table"] if answer else None

    async def _status(self) -> str:
        found = await self._describe()
        return str(found["TableStatus"]) if found else "CREATING"  # a new name takes a moment to be known
