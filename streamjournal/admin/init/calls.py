"""The AWS calls of `init`: each may find what it expects not to find, or fail in our words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streamjournal.core.aws import AwsClient, error_code, explain
from streamjournal.core.errors import NotConfiguredError, StreamjournalError


class Calls:
    """Calls to one service about one resource, with errors in our words.

    Args:
        service: `kinesis`, `s3` or `dynamodb`.
        what: the resource, for the errors' text: "stream agents".
        advice: error code -> what a person can do about it.
    """

    def __init__(self, service: str, what: str, advice: Mapping[str, str]) -> None:
        self.what = what
        self._advice = advice
        self._aws = AwsClient(service, attempts=4)  # all calls may be repeated: see `expected`

    async def ask(
        self, operation: str, *, expected: Collection[str] = (), **parameters: Any
    ) -> dict[str, Any] | None:
        """The service's answer, or None if it is one of the error codes that are expected.

        What is expected is "there is none" where something is looked up, and "there is one already"
        where something is made, which is also how the SDK's repetition of a call that worked ends.
        """
        client = await self._aws.get()
        try:
            answer: dict[str, Any] = await getattr(client, operation)(**parameters)
        except Exception as problem:
            code = error_code(problem)
            if code in expected:
                return None
            raise self._explain(problem, code) from problem
        return answer

    async def region(self) -> str:
        """The region that the calls go to."""
        return str((await self._aws.get()).meta.region_name)

    async def aclose(self) -> None:
        """Free connections."""
        await self._aws.aclose()

    def _explain(self, problem: Exception, code: str) -> StreamjournalError:
        if code in self._advice:
            return NotConfiguredError(f"{self.what}: {self._advice[code]} ({problem})")
        return explain(problem, self.what)
