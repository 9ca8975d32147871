"""The network between processes and services: latency, faults before and after the effect, effects that
come late, and calls of processes that are paused or killed.

A write whose caller gives up, or dies, may still arrive. That is the worst thing that can happen to a
protocol, so it happens often here: the effect is made by a task of the network's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NamedTuple, TypeVar

import trio

from streamjournal.core.errors import (
    CommitConflictError,
    CommitUnknownError,
    LeasesUnavailableError,
    StoreUnavailableError,
    StreamjournalError,
    StreamUnavailableError,
    ThrottledError,
)
from tests.sim.host import Host
from tests.sim.plan import Plan
from tests.sim.trace import Trace

T = TypeVar("T")
_LATE_SECONDS: Final = 8.0  # that an effect may come after its caller gave up


class Fault(NamedTuple):
    """What strikes a call.

    Args:
        kind: its name, one of `plan.CALL_FAULTS`.
        when: `before` the effect (there is none), `after` it, or `late`: the effect comes when the
            caller has its error already.
    """

    kind: str
    when: str
    error: type[StreamjournalError]


def _faults(error: type[StreamjournalError], when: str, *kinds: str) -> tuple[Fault, ...]:
    return tuple(Fault(kind, when, error) for kind in kinds)


_PUT = (
    *_faults(StreamUnavailableError, "before", "put: timeout before", "put: connection reset"),
    *_faults(StreamUnavailableError, "after", "put: timeout after"),
    *_faults(StreamUnavailableError, "late", "put: late"),
    *_faults(ThrottledError, "before", "put: throttled"),
)
_APPEND = (
    *_faults(CommitConflictError, "before", "append: 409", "append: 412"),
    *_faults(CommitUnknownError, "before", "append: 500", "append: 503", "append: timeout before"),
    *_faults(CommitUnknownError, "after", "append: timeout after"),
    *_faults(CommitUnknownError, "late", "append: late"),
)
_READ = (
    *_faults(StreamUnavailableError, "before", "read: timeout", "read: connection reset"),
    *_faults(ThrottledError, "before", "read: throttled"),
)
_LEASES_READ = (
    *_faults(LeasesUnavailableError, "before", "leases: timeout before"),
    *_faults(ThrottledError, "before", "leases: throttled"),
)
_LEASES_WRITE = (
    *_LEASES_READ,
    *_faults(LeasesUnavailableError, "after", "leases: timeout after"),
    *_faults(LeasesUnavailableError, "late", "leases: late"),
)
_STORE = _faults(StoreUnavailableError, "before", "store: 500", "store: 503")

_OF_CALL: Final = {
    "stream.put": _PUT,
    "stream.next": _READ,
    "stream.shards": _faults(StreamUnavailableError, "before", "shards: timeout"),
    "store.append": _APPEND,
    "leases.rows": _LEASES_READ,
    "leases.create": _LEASES_WRITE,
    "leases.update": _LEASES_WRITE,
    "leases.delete": _LEASES_WRITE,
}
_AWAY: Final = {
    "stream": StreamUnavailableError,
    "store": StoreUnavailableError,
    "leases": LeasesUnavailableError,
}


class Network:
    """What every call between a host and a service goes through.

    Attributes:
        calm: nothing strikes any more.
        away: services that do not answer.
        late: effects that are still to come.
    """

    def __init__(self, plan: Plan, rng: Random, trace: Trace) -> None:
        self._plan = plan
        self._rng = rng
        self._trace = trace
        self._tasks: trio.Nursery | None = None
        self.calm = False
        self.away: set[str] = set()
        self.late = 0
        self._possible = {
            call: [fault for fault in faults if fault.kind in plan.kinds] for call, faults in _OF_CALL.items()
        }
        self._possible_store = [fault for fault in _STORE if fault.kind in plan.kinds]

    def begin(self, tasks: trio.Nursery) -> None:
        """Run late effects in this nursery."""
        self._tasks = tasks

    def strikes(self, kind: str) -> bool:
        """Whether a fault that is not an error of a whole call strikes now."""
        if self.calm or kind not in self._plan.kinds or self._rng.random() >= self._plan.rate:
            return False
        self._trace.strike(kind)
        return True

    async def call(
        self, host: Host, name: str, effect: Callable[[], Awaitable[T]], *, writes: bool = False
    ) -> T:
        """Make a call from a host to a service; its name is `service.method`.

        Args:
            writes: its effect may come, or have come, although the caller hears nothing of it.
        """
        await host.gate()
        fault = self._draw(name)
        if fault is not None:
            self._trace.strike(fault.kind, f"{host.name} {name}")
        elif writes:
            self._trace.note(f"{host.name} {name}")
        try:
            await trio.sleep(self._latency())
        except trio.Cancelled:
            if writes and self._rng.random() < 0.5:
                self._arrive_late(name, effect)
            raise
        if fault is not None and fault.when != "after":
            if fault.when == "late":
                self._arrive_late(name, effect)
            await host.gate()
            raise fault.error(fault.kind)
        service = name.partition(".")[0]
        if service in self.away:
            await host.gate()
            raise (
                _AWAY[service](f"{service} is away")
                if name != "store.append"
                else CommitUnknownError("no answer")
            )
        result = await effect()
        if writes:
            await trio.sleep(self._latency())  # who is killed here never hears that it was done
        await host.gate()
        if fault is not None:
            raise fault.error(fault.kind)
        return result

    def _latency(self) -> float:
        return self._plan.latency * self._rng.random() ** 2

    def _draw(self, name: str) -> Fault | None:
        if self.calm or self._rng.random() >= self._plan.rate:
            return None
        possible = self._possible.get(name)
        if possible is None:
            possible = self._possible_store if name.startswith("store.") else []
        return self._rng.choice(possible) if possible else None

    def _arrive_late(self, name: str, effect: Callable[[], Awaitable[object]]) -> None:
        assert self._tasks is not None
        self.late += 1
        delay = self._rng.random() * _LATE_SECONDS

        async def arrive() -> None:
            await trio.sleep(delay)
            try:
                await effect()
            except StreamjournalError as problem:  # a condition that does not hold any more
                self._trace.note(f"late {name}: {type(problem).__name__}")
            else:
                self._trace.note(f"late {name}: done")
            finally:
                self.late -= 1

        self._tasks.start_soon(arrive)
