"""An S3 client that fails as told: the faults that no emulator makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from streamjournal.core.aws import AwsClient


class Fault(NamedTuple):
    """What happens to the next call of an operation.

    Args:
        error: what the caller sees.
        done: the service did it all the same; only the answer was lost.
    """

    operation: str
    error: Exception
    done: bool = False


class FaultyClient(AwsClient):
    """Like the client that it is, but for the faults.

    Attributes:
        faults: each happens once, at the first call of its operation.
        calls: operations, in the order of the calls.
        sent: bytes of bodies uploaded.
        page_size: objects in one page of a listing; the service's own bound if None.
        before: called with the operation before each call.
    """

    def __init__(self, *faults: Fault) -> None:
        super().__init__("s3", attempts=1)
        self.faults = list(faults)
        self.calls: list[str] = []
        self.sent = 0
        self.page_size: int | None = None
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def get(self) -> Any:
        """The real client behind the faults."""
        return _Proxy(self, await super().get())


class _Proxy:
    def __init__(self, owner: FaultyClient, client: Any) -> None:
        self._owner = owner
        self._client = client

    def _paginator(self, operation: str) -> Any:
        owner, real = self._owner, self._client.get_paginator(operation)

        class Paginator:
            async def paginate(self, **arguments: Any) -> AsyncIterator[Any]:
                size = {"PageSize": owner.page_size} if owner.page_size else {}
                async for page in real.paginate(**arguments, PaginationConfig=size):
                    owner.calls.append(operation)
                    yield page

        return Paginator()

    def __getattr__(self, operation: str) -> Any:
        real = getattr(self._client, operation)
        if operation == "get_paginator":
            return self._paginator

        async def call(**arguments: Any) -> Any:
            owner = self._owner
            owner.calls.append(operation)
            owner.sent += len(arguments.get("Body", b""))
            if owner.before is not None:
                await owner.before(operation)
            fault = next((it for it in owner.faults if it.operation == operation), None)
            if fault is None:
                return await real(**arguments)
            owner.faults.remove(fault)
            if fault.done:
                await real(**arguments)
            raise fault.error

        return call


def answer(code: str, status: int) -> ClientError:
    """An error answer of the service."""
    return ClientError(
        {"Error": {"Code": code, "Message": "as told"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "Call",
    )


def no_answer() -> Exception:
    """The time ran out."""
    return ReadTimeoutError(endpoint_url="http://s3")


def reset() -> Exception:
    """The connection broke."""
    return ConnectionClosedError(endpoint_url="http://s3")
