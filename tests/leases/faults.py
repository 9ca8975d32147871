"""A DynamoDB client with the faults that no emulator makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from botocore.exceptions import ClientError

from streamjournal.core.aws import AwsClient

Operation = Callable[..., Awaitable[dict[str, Any]]]
Fault = Callable[[Operation, dict[str, Any]], Awaitable[dict[str, Any]]]


class FaultingClient(AwsClient):
    """The real client, with a fault put in the way of the operations named in `faults`."""

    def __init__(self) -> None:
        super().__init__("dynamodb")
        self.faults: dict[str, Fault] = {}
        self.calls: list[str] = []

    async def get(self) -> Any:
        """Something that behaves like the SDK's client, but for the faults."""
        client = await super().get()
        faulting = self

        class Proxy:
            def __getattr__(self, operation: str) -> Operation:
                real = getattr(client, operation)

                async def call(**parameters: Any) -> dict[str, Any]:
                    faulting.calls.append(operation)
                    fault = faulting.faults.get(operation)
                    answer: dict[str, Any] = await (fault(real, parameters) if fault else real(**parameters))
                    return answer

                return call

        return Proxy()


def refused(code: str, status: int) -> Fault:
    """The service refuses; nothing was done."""

    async def fault(_real: Operation, _parameters: dict[str, Any]) -> dict[str, Any]:
        raise client_error(code, status)

    return fault


def lost_after(error: Exception) -> Fault:
    """The service does what it was asked, and the answer gets lost."""

    async def fault(real: Operation, parameters: dict[str, Any]) -> dict[str, Any]:
        await real(**parameters)
        raise error

    return fault


def lost_before(error: Exception) -> Fault:
    """The request never arrives."""

    async def fault(_real: Operation, _parameters: dict[str, Any]) -> dict[str, Any]:
        raise error

    return fault


async def sent_twice(real: Operation, parameters: dict[str, Any]) -> dict[str, Any]:
    """Something on the way sends the request again after it worked, and passes on the second answer."""
    await real(**parameters)
    return await real(**parameters)


def client_error(code: str, status: int) -> ClientError:
    """The service's answer of that error code and HTTP status."""
    answer = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "UpdateItem")
