"""Telling the sender's event loop something from any thread, cheaply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, current_token


class Wakeup:
    """A flag that any thread sets and one task waits for.

    Setting it costs one call into the loop while a task waits, and nothing before the loop runs.
    """

    def __init__(self) -> None:
        self._flag = False
        self._event: anyio.Event | None = None
        self._schedule: Callable[..., Any] | None = None

    def bind(self) -> None:
        """Belong to the running event loop from now on."""
        native: Any = current_token().native_token
        self._schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
        self._flag = True  # who set it before now could not know of this loop: look once in any case

    def set(self) -> None:
        """Wake the waiting task, or the next one that waits."""
        self._flag = True
        if self._schedule is not None:
            try:
                self._schedule(self._fire)
            except RuntimeError:  # the loop is closed; the flag stays for the next one
                return

    def _fire(self) -> None:
        if self._event is not None:
            self._event.set()

    async def wait(self, timeout: float | None) -> None:
        """Wait until it is set, at most `timeout` seconds (None = as long as it takes); then clear it."""
        event = self._event = anyio.Event()
        if self._flag:  # it was set before the event stood; _fire may have come too early
            await checkpoint()
        else:
            with anyio.move_on_after(timeout):
                await event.wait()
        self._flag = False
