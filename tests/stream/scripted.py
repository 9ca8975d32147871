"""A Kinesis client that answers by script, and one that goes wrong on purpose in front of a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from streamjournal.core.aws import AwsClient

if TYPE_CHECKING:
    from collections.abc import Callable


def error(code: str, message: str = "", status: int = 400) -> ClientError:
    """What the SDK raises for an error answer."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Operation")


class Scripted:
    """Gives each operation's answers in order, the last one again and again; raises those that are errors.

    Args:
        answers: operation -> answers.
        now: what the time of a call is taken from.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0, **answers: Any) -> None:
        self._answers = {name: list(given) for name, given in answers.items()}
        self._now = now
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.times: list[float] = []

    async def get(self) -> Scripted:
        """The open client."""
        return self

    async def aclose(self) -> None:
        """Nothing to close."""

    def arguments(self, operation: str) -> list[dict[str, Any]]:
        """What an operation was called with."""
        return [arguments for name, arguments in self.calls if name == operation]

    def __getattr__(self, operation: str) -> Any:
        if operation.startswith("_"):
            raise AttributeError(operation)

        async def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            self.times.append(self._now())
            given = self._answers[operation]
            answer = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


class Faulty:
    """A real client whose calls fail as told.

    `faults[operation]` is a list of functions; each call takes one off and is answered by
    `await fault(call, arguments)`, where `call` is the real one. No function left: no fault.
    """

    def __init__(self) -> None:
        self._client = AwsClient("kinesis")
        self.faults: dict[str, list[Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def get(self) -> Any:
        """The open client."""
        await self._client.get()
        return self

    async def aclose(self) -> None:
        """Close it."""
        await self._client.aclose()

    def arguments(self, operation: str) -> list[dict[str, Any]]:
        """What an operation was called with."""
        return [arguments for name, arguments in self.calls if name == operation]

    def __getattr__(self, operation: str) -> Any:
        if operation.startswith("_"):
            raise AttributeError(operation)

        async def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            real = getattr(await self._client.get(), operation)
            if waiting := self.faults.get(operation):
                return await waiting.pop(0)(real, arguments)
            return await real(**arguments)

        return call


def fails(problem: BaseException) -> Any:
    """A fault: the call does not get there."""

    async def fault(_call: Any, _arguments: dict[str, Any]) -> Any:
        raise problem

    return fault


def answer_lost(problem: BaseException) -> Any:
    """A fault: the call works, and its answer does not arrive."""

    async def fault(call: Any, arguments: dict[str, Any]) -> Any:
        await call(**arguments)
        raise problem

    return fault


def with_arguments(**more: Any) -> Any:
    """No fault: the call with further arguments."""

    async def fault(call: Any, arguments: dict[str, Any]) -> Any:
        return await call(**arguments, **more)

    return fault
