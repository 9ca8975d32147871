"""Which sessions there are at a time: all emitters share them."""

from __future__ import annotations

LONG = ("long/1 ü", "long-2")  # as long as the round; the tails follow these
_SHORT = 3  # others at a time
_SHORT_SECONDS = 8.0


def sessions_now(now: float) -> list[str]:
    """The sessions in which agents work at a time (seconds since 1970)."""
    turn = int(now / _SHORT_SECONDS)
    return [*LONG, *(f"short-{turn}-{i}" for i in range(_SHORT))]
