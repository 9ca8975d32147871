"""Waking a task from any thread, whatever event loop it runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import current_token


def into_this_loop() -> Callable[[Callable[[], None]], None]:
    """A function that has the running loop call something soon, from any thread, without waiting for it.

    `anyio.from_thread` would wait for the loop, and the loop may be the agent's own, busy for minutes.
    """
    native: Any = current_token().native_token
    schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe

    def call(what: Callable[[], None]) -> None:
        try:
            schedule(what)
        except RuntimeError:  # the loop is closed (trio: RunFinishedError is one), so nobody waits
            return

    return call


def notifier(event: anyio.Event) -> Callable[[], None]:
    """A function that sets `event` from any thread, never waits, and survives the loop's end."""
    return partial(into_this_loop(), event.set)
