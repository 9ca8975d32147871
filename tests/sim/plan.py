"""What a seed's world is like: which faults it has, how often, how many processes, which settings.

Each seed switches a random half of the fault kinds on, with rates of its own (swarm testing, Groce et
al. 2012): a world with everything at once is mostly busy with retries, and never gets far enough for
the rarer sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from streamjournal.core.settings import Settings

SESSIONS: Final = ("a", "b", "c/d", "日本")

#: Faults of a call, see `network`.
CALL_FAULTS: Final = (
    "put: timeout before",
    "put: timeout after",
    "put: late",
    "put: throttled",
    "put: connection reset",
    "put: partial",
    "read: timeout",
    "read: throttled",
    "read: expired iterator",
    "read: connection reset",
    "shards: timeout",
    "append: 409",
    "append: 412",
    "append: 500",
    "append: 503",
    "append: timeout before",
    "append: timeout after",
    "append: late",
    "store: 500",
    "store: 503",
    "store: connection reset in a body",
    "leases: timeout before",
    "leases: timeout after",
    "leases: late",
    "leases: throttled",
)

#: What happens to processes, and what operators and time do.
EVENTS: Final = (
    "emitter killed",
    "emitter paused",
    "worker killed",
    "worker stopped",
    "worker paused",
    "workers down",
    "lease table away",
    "store away",
    "stream away",
    "split",
    "merge",
    "parent expired",
    "trim",
    "clock step",
    "journal deleted",
    "lease row deleted",
    "plain record",
    "poison",
    "recover",
    "tail broken off",
)

KINDS: Final = CALL_FAULTS + EVENTS

#: What shows that faults met: counted, not switched on.
EFFECTS: Final = (
    "raced",
    "lease lost",
    "spool recovered",
    "entries lost",
    "duplicate put",
    "verified damaged",
)


def settings_for(**changes: object) -> Settings:
    """Settings that make things happen in seconds."""
    values: dict[str, object] = {"flush_interval": 1.0, "lease_seconds": 4.0, "linger": 0.05} | changes
    return Settings(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """One world. Times are seconds of virtual time.

    Args:
        kinds: the faults that are switched on.
        rate: chance of a fault, per call.
        latency: that a call takes at most, one way.
        emitters: processes that emit at the same time.
        lives: starts of each of them.
        entries: per life.
        pause: between two entries, at most.
        workers, shards: how many.
        life: of a worker on average, until something happens to it.
        freeze: that a paused process stands still, at most.
        every: between two things that an operator does, on average.
        retention: of the stream's records, where `trim` is on.
        skew: of a host's wall clock, at most, to either side.
        drift: of a host's monotonic clock, at most, seconds in a second.
        batch: records that one read gives at most.
        segment: bytes of a spool's segment.
        read_every: between two merged reads of a process, at most.
        room: bytes for the writers' numbers in a journal's metadata.
    """

    kinds: frozenset[str] = frozenset(KINDS)
    rate: float = 0.08
    latency: float = 0.3
    emitters: int = 2
    lives: int = 2
    entries: int = 15
    pause: float = 1.0
    workers: int = 2
    shards: int = 2
    sessions: tuple[str, ...] = SESSIONS
    life: float = 6.0
    freeze: float = 12.0
    every: float = 6.0
    retention: float = 15.0
    skew: float = 0.0
    drift: float = 0.0
    batch: int = 1000
    segment: int = 2**20
    room: int = 1000
    read_every: float = 3.0
    settings: Settings = field(default_factory=settings_for)

    def only(self, *kinds: str, **changes: object) -> Plan:
        """The same world with just these kinds of faults."""
        assert set(kinds) <= set(KINDS), kinds
        return replace(self, kinds=frozenset(kinds), **changes)  # type: ignore[arg-type]


def draw_plan(seed: int) -> Plan:
    """The world of a seed."""
    rng = Random(f"plan {seed}")
    kinds = frozenset(kind for kind in KINDS if rng.random() < 0.5)
    settings = settings_for(
        stream=rng.choice((None, "memory")),
        bucket="memory",
        flush_interval=rng.choice((0.3, 1.0, 3.0)),
        lease_seconds=rng.choice((3.0, 4.0, 6.0)),
        linger=rng.choice((0.0, 0.05, 0.5)),
        buffer_bytes=rng.choice((2**20, 2**20, 2**20, 1_200)),
        session_bytes=rng.choice((2**20, 600)),
        unflushed_bytes=rng.choice((2**20, 1_500)),
        worker_bytes=rng.choice((2**20, 2**20, 2_500)),
    )
    return Plan(
        kinds=kinds,
        rate=rng.choice((0.02, 0.06, 0.15, 0.3)),
        latency=rng.choice((0.02, 0.2, 0.6)),
        emitters=rng.randint(1, 3),
        lives=rng.randint(1, 3),
        entries=rng.randint(5, 20),
        pause=rng.choice((0.2, 1.0, 2.0)),
        workers=rng.randint(2, 4),
        shards=rng.randint(1, 3),
        sessions=SESSIONS[: rng.randint(1, len(SESSIONS))],
        life=rng.choice((3.0, 6.0, 12.0)),
        freeze=rng.choice((6.0, 15.0)),
        every=rng.choice((3.0, 8.0)),
        retention=rng.choice((6.0, 15.0)),
        skew=rng.choice((0.0, 2.0, 60.0)),
        drift=rng.choice((0.0, 0.0, 0.01)),
        batch=rng.choice((1, 3, 1000)),
        segment=rng.choice((2**20, 2_048)),
        room=rng.choice((1000, 1000, 50)),
        settings=settings,
    )
