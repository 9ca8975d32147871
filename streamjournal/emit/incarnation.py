"""Whether this is still the process that the writer id was drawn in.

A fork that Python's hooks did not see, or a restored snapshot of the machine, must not go on with a
writer's numbers: somebody else has them too. A snapshot shows as wall time that jumps against monotonic
time; so does a clock that is set, or a laptop that slept, and a new writer id does no harm there.
"""

from __future__ import annotations

import os
from typing import Final

from streamjournal.core.clock import Clock

_CLOCK_STEP: Final = 2_000_000_000  # ns that the two times may drift apart within a run


class Incarnation:
    """One life of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pid = os.getpid()
        self._drift = self._read_drift()

    def was_forked(self) -> bool:
        """Whether this is a child of the process that it was."""
        return os.getpid() != self._pid

    def was_restored(self) -> bool:
        """Whether the machine was restored since this was asked last."""
        before, self._drift = self._drift, self._read_drift()
        if abs(self._drift - before) > _CLOCK_STEP:
            return True
        self._drift = before  # what creeps, second by second, adds up
        return False

    def _read_drift(self) -> int:
        return self._clock.time_ns() - int(self._clock.monotonic() * 1e9)
