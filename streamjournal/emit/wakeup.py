"""Telling the sender's event loop something from any thread, cheaply."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from streamjournal.core.threads import into_this_loop


class Wakeup:
    """A flag that any thread sets and one task waits for.

    Setting it costs one call into the loop while a task waits, and nothing before the loop runs.
    """

    def __init__(self) -> None:
        self._flag = False
        self._event: anyio.Event | None = None
        self._call: Callable[[Callable[[], None]], None] | None = None

    def bind(self) -> None:
        """Belong to the running event loop from now on."""
        self._call = into_this_loop()
        self._flag = True  # who set it before now could not know of this loop: look once in any case

    def set(self) -> None:
        """Wake the waiting task, or the next one that waits."""
        self._flag = True
        if self._call is not None:  # a closed loop calls nothing; the flag stays for the next one
            self._call(self._fire)

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
