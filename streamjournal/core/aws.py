"""One AWS client per adapter: opened at first use, closed with the adapter, errors in our words.

Imported by the AWS adapters only, since aiobotocore takes most of a second to import and is an
extra of the package. Credentials, region and endpoint come from where the AWS SDK takes them
(AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE, …).
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from io import BytesIO
from typing import Any

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import exceptions as boto
from botocore.loaders import create_loader

from streamjournal.core.errors import (
    NotConfiguredError,
    StreamjournalError,
    ThrottledError,
    UnavailableError,
)

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "KMSThrottlingException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_LOADER = create_loader()  # shared: the services' descriptions take 0.3 s to read, for each client anew


class AwsClient:
    """A client of one service, opened when it is first asked for.

    Args:
        service: `kinesis`, `s3` or `dynamodb`.
        attempts: tries per call by the SDK; 1 = no retries, which every conditional write needs,
            because the retry of a write that worked looks like somebody else's write.
        timeout: seconds to wait for a connection, and for an answer.
        connections: size of the connection pool.
    """

    def __init__(
        self, service: str, *, attempts: int = 1, timeout: float = 15.0, connections: int = 32
    ) -> None:
        self.service = service
        self._config = AioConfig(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=min(timeout, 5.0),
            read_timeout=timeout,
            max_pool_connections=connections,
        )
        self._opening = anyio.Lock()
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def get(self) -> Any:
        """The open client.

        Raises:
            NotConfiguredError: no region is configured.
        """
        async with self._opening:
            if self._client is None:
                try:
                    session = get_session()
                    session.register_component("data_loader", _LOADER)
                    context = session.create_client(self.service, region_name=_region(), config=self._config)
                    client = await self._stack.enter_async_context(context)
                    client.meta.events.register("before-send", _send_as_file)
                    self._client = client
                except boto.BotoCoreError as problem:
                    raise explain(problem, self.service) from problem
        return self._client

    async def aclose(self) -> None:
        """Close the client; the next `get` opens another."""
        async with self._opening:
            self._client = None
            await self._stack.aclose()


def _send_as_file(request: Any, **_: Any) -> None:
    """Give a body as a file: aiohttp writes that in pieces, and warns of bytes over 1 MiB in one piece,
    since they hold up the event loop.
    """
    if isinstance(request.body, bytes):
        request.body = BytesIO(request.body)


def _region() -> str | None:
    """AWS_REGION, which every other SDK reads and which containers on AWS set; botocore reads only
    AWS_DEFAULT_REGION, and then the profile.
    """
    return None if os.environ.get("AWS_DEFAULT_REGION") else os.environ.get("AWS_REGION") or None


def error_code(error: BaseException) -> str:
    """The service's error code, or an empty string for what is no answer of the service."""
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def status_code(error: BaseException) -> int:
    """The HTTP status of the service's answer, or 0 if there was none."""
    if isinstance(error, boto.ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def is_retryable(error: BaseException) -> bool:
    """Whether the same call may work later: no answer, a throttle, or a server's own fault."""
    if isinstance(error, boto.ClientError):
        return error_code(error) in _THROTTLES or status_code(error) >= 500
    return isinstance(error, boto.HTTPClientError | boto.ConnectionError | OSError | TimeoutError)


def explain(
    error: BaseException,
    what: str,
    *,
    unavailable: type[UnavailableError] = UnavailableError,
) -> StreamjournalError:
    """An SDK error as one of ours, saying what to do.

    Args:
        what: what was asked, for the text: "stream agents", "bucket journals".
        unavailable: the class for a service that does not answer.
    """
    if isinstance(
        error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError
    ):
        return NotConfiguredError(
            f"{what}: no AWS credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or unset STREAMJOURNAL_STREAM to work embedded"
        )
    if isinstance(error, boto.NoRegionError):
        return NotConfiguredError(f"{what}: no AWS region; set AWS_REGION")
    if isinstance(error, boto.ProfileNotFound):
        return NotConfiguredError(f"{what}: {error}")
    code = error_code(error)
    if code in _THROTTLES:
        return ThrottledError(f"{what}: throttled ({code})")
    if code in _DENIED:
        return NotConfiguredError(f"{what}: access denied ({code}): {error}")
    if is_retryable(error):
        return unavailable(f"{what}: {error}")
    if isinstance(error, boto.ClientError | boto.BotoCoreError):
        return StreamjournalError(f"{what}: {error}")
    return unavailable(f"{what}: {type(error).__name__}: {error}")
