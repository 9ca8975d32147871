"""One AWS service as the doctor asks it: who refuses what, and what time it is there.

A permission is tried by the call that needs it, made so that it has no effect. An answer that denies
it names the IAM action; any other answer of the service to that call shows that it was not denied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import anyio
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from streamjournal.admin.doctor.check import Check, Checks, failed, ok, skipped, warning
from streamjournal.core.aws import AwsClient, error_code, explain, is_retryable
from streamjournal.core.clock import Clock
from streamjournal.core.errors import StreamjournalError, UnavailableError

_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "403",
        "Forbidden",
        "AuthorizationError",
        "UnauthorizedOperation",
    }
    | {"KMSAccessDeniedException", "KMS.AccessDeniedException", "AllAccessDisabled"}
)
_CREDENTIALS: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"}
    | {"SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException"}
    | {"MissingAuthenticationToken", "MissingAuthenticationTokenException", "IncompleteSignature"}
)
_CLOCK: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_BY_CLOCK: Final = re.compile(r"signature (expired|not yet current)", re.IGNORECASE)
_ACTION: Final = re.compile(r"to perform:? ([a-z0-9-]+:\w+)(?: on resource:? (\S+))?")
_WRONG_CLOCK: Final = "set this machine's clock (chrony, NTP): AWS refuses what is signed too far off"
_SKEW: Final = 5.0  # seconds, from which on a clock is worth a look


class Service:
    """A service, asked with one try per call.

    Attributes:
        answered: whether the service said anything, an error included.
        there: whether the resource that it is asked for exists.
        skew: seconds that this machine's clock is ahead of the service's; None if it does not say.
        refused_clock: the service refused a call for its time.
    """

    def __init__(self, name: str, clock: Clock, *, seconds: float) -> None:
        self.name = name
        self._clock = clock
        self._aws = AwsClient(name, attempts=1, timeout=seconds)
        self.answered = False
        self.there = False
        self.skew: float | None = None
        self.refused_clock = False

    async def client(self) -> Any:
        """The SDK's client."""
        return await self._aws.get()

    async def ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The service's answer.

        Raises:
            ClientError: the service's own error answer; see `fault_of`.
            UnavailableError: no answer, or none that the service would give.
            NotConfiguredError: no region, or no credentials, are configured.
        """
        client = await self._aws.get()
        before = self._clock.time()
        try:
            answer: dict[str, Any] = await getattr(client, operation)(**parameters)
            if (body := answer.get("Body")) is not None:  # else its connection would stay open
                async with body as stream:
                    await stream.read()
        except boto.ClientError as problem:
            if self.name != "s3" and error_code(problem).isdecimal():  # S3 answers HEAD so
                raise self._somebody_else(f"status {error_code(problem)}") from problem
            self._hear(problem.response, before)
            self.refused_clock = self.refused_clock or _is_by_clock(problem)
            raise
        except ResponseParserError as problem:
            raise self._somebody_else("what cannot be read") from problem
        except (boto.BotoCoreError, aiohttp.ClientError, OSError) as problem:
            raise explain(problem, self.name) from problem
        self._hear(answer, before)
        return answer

    def _somebody_else(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"{self.name}: something answers with {what}, as {self.name} does not; AWS_ENDPOINT_URL or a "
            "proxy leads elsewhere"
        )

    def _hear(self, answer: Mapping[str, Any], before: float) -> None:
        """Note that the service is there, and its time, which has no fractions."""
        self.answered = True
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            theirs = parsedate_to_datetime(date).timestamp() + 0.5
            self.skew = (before + self._clock.time()) / 2 - theirs

    async def aclose(self) -> None:
        """Free connections."""
        await self._aws.aclose()


def _is_by_clock(problem: BaseException) -> bool:
    return error_code(problem) in _CLOCK or bool(_BY_CLOCK.search(str(problem)))


def is_denied(problem: BaseException | None) -> bool:
    """Whether the service says that an IAM action is not allowed."""
    return problem is not None and error_code(problem) in _DENIED


def fault_of(name: str, problem: boto.ClientError, *, action: str, resource: str, needed_by: str) -> Check:
    """What a service's error answer means.

    Args:
        action: the IAM action that the call needs; the service may name another one (of a key, say).
        resource: that the right is to be for.
        needed_by: who needs it: "workers need it".
    """
    if is_denied(problem):
        named = _ACTION.search(str(problem))
        missing, on = (named[1], named[2] or resource) if named else (action, resource)
        remedy = f"allow {missing} on {on}; {needed_by}"
        return failed(name, f"denied ({error_code(problem)})", remedy, missing=missing)
    if _is_by_clock(problem):
        return failed(name, f"refused for the time of the call ({error_code(problem)})", _WRONG_CLOCK)
    if error_code(problem) in _CREDENTIALS:
        remedy = "get new credentials (`aws sso login`, the role, AWS_PROFILE)"
        return failed(name, f"the credentials are not accepted ({error_code(problem)})", remedy)
    if is_retryable(problem):
        return warning(name, f"it does not work now ({error_code(problem)})", "run doctor again in a moment")
    return failed(name, str(problem), "look the code up in the service's API reference")


class Permissions:
    """Tries the permissions on one resource of a service, one by one.

    Args:
        checks: where what was found goes.
        resource: for the texts: an ARN, or a name.
    """

    def __init__(self, checks: Checks, service: Service, resource: str) -> None:
        self.checks = checks
        self._service = service
        self._resource = resource

    async def attempt(
        self,
        action: str,
        needed_by: str,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        shows: Collection[str] = (),
        shown: str = "allowed",
        say: Callable[[dict[str, Any]], str] | None = None,
        optional: bool = False,
    ) -> dict[str, Any] | None:
        """Try one permission by one call.

        Args:
            action: the IAM action, which is the check's name too.
            shows: the error codes by which the service refuses the call as it was meant to be refused.
            shown: what to say then.
            say: what to say of the answer.
            optional: things go on without the permission.

        Returns:
            The answer; None if there is none.
        """
        got: list[dict[str, Any]] = []

        async def look() -> Check:
            try:
                answer = await self._service.ask(operation, **parameters)
            except boto.ClientError as problem:
                if (code := error_code(problem)) in shows:
                    return ok(action, f"{shown} (refused as it was meant to be: {code})")
                if "Throughput" in code:  # of those who may call only
                    return ok(action, f"allowed (asked too often: {code})")
                check = fault_of(action, problem, action=action, resource=self._resource, needed_by=needed_by)
                if optional and check.result == "failed":
                    return warning(action, check.found, check.remedy, **check.facts)
                return check
            got.append(answer)
            return ok(action, say(answer) if say else "allowed")

        await self.checks.run(action, look)
        return got[0] if got else None

    async def attempt_quietly(self, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """The answer of a call that only prepares another; None if there is none."""
        try:
            with anyio.fail_after(self.checks.seconds):
                return await self._service.ask(operation, **parameters)
        except (boto.ClientError, StreamjournalError, TimeoutError):
            return None

    def skip(self, action: str, why: str) -> None:
        """Note a permission that was not tried."""
        self.checks.add(skipped(action, f"not tried: {why}"))


def is_there(service: Service, checks: Checks) -> bool:
    """Whether the check just done found its resource, or was only denied the look."""
    last = checks.done[-1]
    service.there = last.result == "ok"
    return service.there or "missing" in last.facts


async def look_at_credentials(clock: Clock, checks: Checks) -> None:
    """Which credentials the SDK finds, and whose they are; the secrets stay where they are."""
    from aiobotocore.session import get_session

    async def find() -> Check:
        try:
            found = await get_session().get_credentials()
            if found is None:
                raise boto.NoCredentialsError
            frozen = await found.get_frozen_credentials()
        except (boto.ClientError, boto.BotoCoreError, aiohttp.ClientError, OSError) as problem:
            raise explain(problem, "AWS") from problem
        key = f"…{frozen.access_key[-4:]}"
        return ok("credentials", f"key {key} from {found.method}", method=found.method, key=key)

    if not await checks.run("credentials", find):
        return
    service = Service("sts", clock, seconds=checks.seconds)

    async def who() -> Check:
        try:
            with anyio.fail_after(0.9 * checks.seconds):  # before the check's own time is up
                answer = await service.ask("get_caller_identity")
        except boto.ClientError as problem:
            if error_code(problem) in _CREDENTIALS or _is_by_clock(problem):
                return fault_of("identity", problem, action="", resource="", needed_by="")
            return skipped("identity", f"STS does not say ({error_code(problem)})")
        except (UnavailableError, TimeoutError):
            return skipped("identity", "STS does not answer; nothing else needs it")
        return ok("identity", answer["Arn"], arn=answer["Arn"], account=answer["Account"])

    try:
        await checks.run("identity", who)
    finally:
        await service.aclose()


async def look_at_endpoint(service: Service) -> Check:
    """Where a service's calls go."""
    client = await service.client()
    found = f"{client.meta.endpoint_url} ({client.meta.region_name})"
    facts = {"endpoint": client.meta.endpoint_url, "region": client.meta.region_name}
    return ok(f"endpoint {service.name}", found, **facts)


def judge_clock(services: Collection[Service]) -> Check:
    """How far this machine's clock is from the services'."""
    skews = {service.name: round(service.skew, 1) for service in services if service.skew is not None}
    if any(service.refused_clock for service in services):
        return failed("clock", "a service refused a call for its time", _WRONG_CLOCK, **skews)
    if not skews:
        return skipped("clock", "no service said what time it is")
    worst = max(skews.values(), key=abs)
    way = "ahead" if worst > 0 else "behind"
    found = f"{abs(worst):.1f} s {way} of {', '.join(skews)}"
    if abs(worst) > _SKEW:
        return warning("clock", found, _WRONG_CLOCK, **skews)
    return ok("clock", f"within {max(1.0, abs(worst)):.0f} s of {', '.join(skews)}", **skews)
