"""What does not work at the moment, and since when: for a drain that has to give up, and for health."""

from __future__ import annotations

from typing import NamedTuple

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError


class Failure(NamedTuple):
    """Something that does not work.

    Args:
        what: `worker`, `shard …`, `store for …`, `lease …`.
        seconds: for how long.
        problem: the last thing that went wrong.
    """

    what: str
    seconds: float
    problem: Exception


class Trouble:
    """Failures that no success has ended, by what failed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, tuple[float, Exception]] = {}

    def failed(self, what: str, problem: Exception) -> None:
        """Note a failure; the time of the first one since the last success stays."""
        since = self._since.get(what, (self._clock.monotonic(), problem))[0]
        self._since[what] = (since, problem)

    def worked(self, what: str) -> None:
        """Note a success."""
        self._since.pop(what, None)

    def lasting(self, seconds: float) -> Exception | None:
        """A problem that has lasted for so long, or that time will not mend."""
        failures = self.failures(seconds)
        return failures[0].problem if failures else None

    def failures(self, seconds: float) -> list[Failure]:
        """Every failure that has lasted for so long, or that time will not mend."""
        now = self._clock.monotonic()
        return [
            Failure(what, now - since, problem)
            for what, (since, problem) in self._since.items()
            if now - since >= seconds or isinstance(problem, NotConfiguredError)
        ]
