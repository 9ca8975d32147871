"""What could not be journaled, told in the log."""

from __future__ import annotations

import logging
from typing import Final

from streamjournal.core.clock import Clock

COMPLAIN_SECONDS: Final = 60.0  # between two lines about what could not be journaled

_log = logging.getLogger("streamjournal.agents.strands")


class Complaints:
    """What could not be journaled, in the log, at a limited rate: an agent may make thousands of calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = float("-inf")
        self._silent = 0

    def log(self, what: str, problem: Exception) -> None:
        """Log it, unless something was logged within COMPLAIN_SECONDS."""
        now = self._clock.monotonic()
        if now < self._next:
            self._silent += 1
            return
        more = f" ({self._silent} more since the last such line)" if self._silent else ""
        self._next, self._silent = now + COMPLAIN_SECONDS, 0
        _log.warning("%s is not in the journal: %s%s", what, problem, more, exc_info=problem)
