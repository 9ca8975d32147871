"""Calls to one Kinesis stream: how the stream is named in them, and errors in our words.

Source: the Kinesis Data Streams API reference, "Actions" and "Common Errors".
"""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

import aiohttp
from botocore import exceptions as boto

from streamjournal.core.aws import error_code, explain
from streamjournal.core.errors import NotConfiguredError, StreamjournalError, StreamUnavailableError

SDK_ERRORS: Final = (boto.ClientError, boto.BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)

INVALID: Final = frozenset({"InvalidArgumentException", "ValidationException", "SerializationException"})


_OF_A_RECORD: Final = re.compile(r"record|partition.?key|hash.?key", re.IGNORECASE)


class Client(Protocol):
    """What is needed of `core.aws.AwsClient`."""

    async def get(self) -> Any:
        """The open client."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class KinesisCalls:
    """Calls to one stream.

    Args:
        name_or_arn: the stream. By ARN it may be another account's.
    """

    def __init__(self, name_or_arn: str, client: Client) -> None:
        self.name = name_or_arn.rpartition("/")[2]
        self._client = client
        self._arn = {"StreamARN": name_or_arn} if name_or_arn.startswith("arn:") else {}
        self._stream = self._arn or {"StreamName": name_or_arn}

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """An operation on the stream, as the SDK does it.

        Raises:
            SDK_ERRORS: whatever went wrong; `explain` says what it means.
        """
        return await self._send(operation, {**self._stream, **arguments})

    async def get_records(self, iterator: str, limit: int) -> dict[str, Any]:
        """GetRecords, which knows the stream by the iterator, and takes no name."""
        return await self._send("get_records", {**self._arn, "ShardIterator": iterator, "Limit": limit})

    async def list_more_shards(self, token: str) -> dict[str, Any]:
        """ListShards' next page, which takes no name either."""
        return await self._send("list_shards", {"NextToken": token})

    async def describe(self) -> dict[str, Any]:
        """DescribeStreamSummary's answer.

        Raises:
            NotConfiguredError, StreamUnavailableError, ThrottledError: as `explain` says.
        """
        try:
            answer = await self.call("describe_stream_summary")
        except SDK_ERRORS as problem:
            raise self.explain(problem) from problem
        summary: dict[str, Any] = answer["StreamDescriptionSummary"]
        return summary

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _send(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        client = await self._client.get()
        answer: dict[str, Any] = await getattr(client, operation)(**arguments)
        return answer

    def explain(self, problem: BaseException) -> StreamjournalError:
        """An SDK error as one of ours, saying what to do."""
        if error_code(problem) == "ResourceNotFoundException":
            return NotConfiguredError(
                f"there is no Kinesis stream {self.name} in this account and region; `streamjournal init` "
                "makes it, AWS_REGION and STREAMJOURNAL_STREAM choose another"
            )
        if is_invalid(problem) and "stream" in message_of(problem).lower():
            return NotConfiguredError(
                f"stream {self.name}: {message_of(problem)}; set STREAMJOURNAL_STREAM to a name or ARN"
            )
        return explain(problem, f"stream {self.name}", unavailable=StreamUnavailableError)


def is_invalid(problem: BaseException) -> bool:
    """Whether the service, or the SDK before it sends, finds the request itself at fault."""
    return error_code(problem) in INVALID or isinstance(
        problem, boto.ParamValidationError | boto.EndpointProviderError
    )


def spoils_call(problem: BaseException) -> bool:
    """Whether a PutRecords can never work because of a record in it, as the text says (`Value at
    'records.3.member.data' failed …`). What is wrong with the stream's name is no record's fault, and
    must not turn every entry into a dead letter.
    """
    return is_invalid(problem) and bool(_OF_A_RECORD.search(message_of(problem)))


def message_of(problem: BaseException) -> str:
    """The service's own text."""
    if isinstance(problem, boto.ClientError):
        return str(problem.response.get("Error", {}).get("Message") or problem)
    return str(problem)
