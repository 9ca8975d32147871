"""An event loop on a thread of its own, for calling async code from sync code.

anyio's `start_blocking_portal` runs its loop on an executor's thread, which the interpreter joins at
exit: a portal that nobody closed hangs the exit. This thread is a daemon.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")
_UNWINDING = 5.0  # seconds that an interrupted call may take to end


class LoopThread:
    """A portal that is started when it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._starting = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the loop has been started, and not stopped."""
        return self._portal is not None

    def portal(self) -> BlockingPortal:
        """The running portal."""
        with self._starting:
            if self._portal is None:
                ready = threading.Event()
                self._thread = threading.Thread(
                    target=anyio.run, args=(self._main, ready), name=self._name, daemon=True
                )
                self._thread.start()
                ready.wait()
            assert self._portal is not None
            return self._portal

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function on the loop, and wait for its result.

        If the waiting itself is interrupted (Ctrl-C), the function is cancelled, and has ended when this
        raises: whoever cleans up afterwards finds nothing running.
        """
        ended = threading.Event()

        async def run() -> T:
            try:
                return await function()
            finally:
                ended.set()

        future = self.portal().start_task_soon(run)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(_UNWINDING)
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the loop's own thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    async def _main(self, ready: threading.Event) -> None:
        async with BlockingPortal() as portal:
            self._portal = portal
            ready.set()
            await portal.sleep_until_stopped()

    def stop(self) -> None:
        """Stop the loop, if it runs."""
        with self._starting:
            portal, self._portal = self._portal, None
        if portal is not None and self._thread is not None:
            portal.start_task_soon(partial(portal.stop, cancel_remaining=True))
            self._thread.join(2)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._starting = threading.Lock()
        self._portal = self._thread = None
