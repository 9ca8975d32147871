"""Counting AWS requests, by the parameters that an SDK client is called with."""

from __future__ import annotations

from collections import Counter
from typing import Any

from scripts.bench.prices import KINESIS_ROUNDING, KINESIS_UNIT
from streamjournal.core.aws import AwsClient


class Tally:
    """What was asked of AWS so far."""

    def __init__(self) -> None:
        self.s3: Counter[str] = Counter()  # by operation
        self.uploaded = 0  # bytes of bodies to S3
        self.puts = 0  # PutRecords calls
        self.records = 0
        self.units = 0  # PUT payload units
        self.rounded = 0  # bytes as Kinesis on demand counts them
        self.lease_writes = 0

    def note(self, service: str, operation: str, parameters: dict[str, Any]) -> None:
        """Count one call."""
        if service == "s3":
            self.s3[operation] += 1
            self.uploaded += len(parameters.get("Body") or b"")
        elif operation == "PutRecords":
            self.note_put([(it["PartitionKey"], it["Data"]) for it in parameters["Records"]])
        elif service == "dynamodb" and operation in {"PutItem", "UpdateItem"}:
            self.lease_writes += 1

    def note_put(self, records: list[tuple[str, bytes]]) -> None:
        """Count one PutRecords."""
        self.puts += 1
        for key, data in records:
            size = len(key.encode()) + len(data)
            self.records += 1
            self.units += -(-size // KINESIS_UNIT)
            self.rounded += -(-size // KINESIS_ROUNDING) * KINESIS_ROUNDING


class CountedClient(AwsClient):
    """An AWS client that counts what it is asked, before each call is made."""

    def __init__(self, service: str, tally: Tally) -> None:
        super().__init__(service)
        self._tally = tally
        self._counted: Any = None

    async def get(self) -> Any:
        """The open client."""
        client = await super().get()
        if client is not self._counted:
            self._counted = client
            client.meta.events.register("provide-client-params", self._note)
        return client

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self._tally.note(self.service, model.name, params)
