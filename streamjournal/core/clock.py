"""Time, randomness and ids, in one value that is passed in.

Everything that decides by the clock or by chance gets a `Clock`. The simulation passes one whose
time is virtual and whose randomness is seeded, so that a fault that was found once can be found
again. Lint forbids `time.time`, `random.*` and `uuid4` elsewhere for that reason.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a component gets time and chance from.

    Args:
        time_ns: wall time in nanoseconds since 1970, for timestamps only; it may jump.
        monotonic: seconds since some fixed moment, for durations and deadlines; it never goes back.
        rng: the source of jitter and ids.
    """

    time_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)

    def time(self) -> float:
        """Wall time in seconds since 1970."""
        return self.time_ns() / 1e9

    def draw_id(self, length: int = 10) -> str:
        """A random id of lower-case letters and digits (10 of them: 51.7 bits)."""
        rest = self.rng.randrange(36**length)  # one draw: the system's source costs a call for each
        letters = []
        for _ in range(length):
            rest, digit = divmod(rest, 36)
            letters.append(_ALPHABET[digit])
        return "".join(letters)

    def jitter(self, seconds: float) -> float:
        """A wait between half of `seconds` and all of it, so that peers do not retry in step."""
        return seconds * (0.5 + self.rng.random() / 2)


SYSTEM = Clock()


def format_timestamp(time_ns: int) -> str:
    """An entry's timestamp: UTC, microseconds, RFC 3339 with `Z`."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{format_second(seconds)}.{rest // 1000:06d}Z"


def format_second(seconds: int) -> str:
    """The part of a timestamp that changes once a second: `2026-11-22T13:12:01`."""
    t = time.gmtime(seconds)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"


def parse_timestamp(text: str) -> datetime | None:
    """The moment that an entry's timestamp names, or None if it names none.

    A timestamp without a zone is taken as UTC: foreign entries often leave the zone out.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
