"""The sender's thread: started by the first entry, stopped by close, flushed at interpreter exit.

The flush at exit has to run before the executors shut down, since connections resolve names in an
executor: a plain `atexit` handler comes too late for that. `threading._register_atexit` is what
`concurrent.futures` itself uses; callbacks run last-registered first, so ours is registered after.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import logging
import os
import threading
import weakref
from collections.abc import Callable

import anyio
from anyio.lowlevel import current_token

from streamjournal.core.clock import Clock
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.receipt import Delivery
from streamjournal.emit.recovery import recover_folder
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import Destination, Spool
from streamjournal.emit.wakeup import Wakeup
from streamjournal.store.port import Store
from streamjournal.stream.port import Stream

_log = logging.getLogger("streamjournal.emit")
_all: weakref.WeakSet[BackgroundSender] = weakref.WeakSet()


class BackgroundSender:
    """An emitter, and the thread on which its sender runs.

    Args:
        open_adapters: makes the stream and the store, on the sender's own event loop.
        destination: where the spool's entries go.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        open_adapters: Callable[[], tuple[Stream, Store]],
        destination: Destination,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._open_adapters = open_adapters
        self._destination = destination
        self._reset()
        self.emitter = Emitter(settings, clock, self._make_spool, self._wake, self._hurry)
        _all.add(self)

    def _reset(self) -> None:
        self._wakeup = Wakeup()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None
        self._scope: anyio.CancelScope | None = None
        self._token: object = None
        self._ready = threading.Event()
        self._ended = False

    def _make_spool(self) -> Spool | None:
        folder = self._settings.spool_path
        return None if folder is None else Spool(folder, self._destination, self._clock)

    def _wake(self) -> None:
        if self._thread is None:
            self._start()
        self._wakeup.set()

    def _hurry(self) -> None:
        if self._sender is not None:
            self._sender.hurry()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamjournal-sender", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend="asyncio")
        except Exception:  # noqa: BLE001  # it must not end the agent; the spool keeps the entries
            _log.exception("the sender's thread ended; entries stay in the spool")
        finally:
            self._ended = True
            self._ready.set()

    async def _main(self) -> None:
        stream, store = self._open_adapters()
        try:
            sender = Sender(self.emitter, stream, store, self._settings, self._clock, self._wakeup)
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                self._token = current_token()
                self._sender = sender
                self._ready.set()
                recovering = anyio.CancelScope()
                tasks.start_soon(self._recover, sender, recovering, name="recover orphaned spools")
                await sender.run()
                recovering.cancel()
        finally:
            with anyio.move_on_after(2, shield=True):
                await stream.aclose()
                await store.aclose()

    async def _recover(self, sender: Sender, scope: anyio.CancelScope) -> None:
        folder = self._settings.spool_path
        if folder is None:
            return
        with scope:
            try:
                await recover_folder(sender, folder, self._destination)
            except OSError as problem:
                _log.warning("orphaned spools in %s cannot be recovered now: %s", folder, problem)

    def flush(self, timeout: float | None = None) -> Delivery:
        """Send what is pending without lingering, and wait until the stream has it.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            What was acknowledged, is pending, was dropped, since this journal was opened.
        """
        done = threading.Event()
        if self.begin_flush(done.set):
            done.wait(timeout)
        return self.emitter.delivery()

    def begin_flush(self, done: Callable[[], None]) -> bool:
        """Like `flush`, but `done` is called from the sender's thread; False if nothing is pending."""
        emitter = self.emitter
        if self._thread is None or emitter.accepted == emitter.account.settled:
            return False
        self._ready.wait()
        if self._sender is None or self._ended:
            return False
        self._sender.flush(emitter.accepted, done)
        return True

    def close(self, timeout: float | None = None) -> Delivery:
        """Accept nothing more, send what is pending for at most `timeout` seconds, and stop.

        What is not acknowledged by then stays in the spool for the next start, or for
        `streamjournal recover`.
        """
        if self.emitter.closed:
            return self.emitter.delivery()
        self.emitter.tell_all_dropped()
        self.emitter.close()
        if self._thread is not None:
            self._stop(timeout)
        delivery = self.emitter.delivery()
        if self.emitter.spool is not None:
            self.emitter.spool.close()
        elif delivery.pending:
            _log.warning("%d entries were in memory only and are lost with this process", delivery.pending)
        _all.discard(self)
        return delivery

    def _stop(self, timeout: float | None) -> None:
        assert self._thread is not None
        self._ready.wait(timeout)
        if self._sender is not None and not self._ended:
            self._sender.stop()
            self._thread.join(timeout)
            if self._thread.is_alive() and self._scope is not None:
                self._cancel()
                self._thread.join(2)

    def _cancel(self) -> None:
        native = getattr(self._token, "native_token", None)
        assert native is not None
        assert self._scope is not None
        native.call_soon_threadsafe(self._scope.cancel)

    def after_fork(self) -> None:
        """In a forked child: no thread runs here, and nothing of the parent's is ours."""
        self._reset()
        self.emitter.after_fork()

    def exit(self) -> None:
        """The bounded flush at the interpreter's exit."""
        delivery = self.close(self._settings.exit_timeout)
        if delivery.pending:
            _log.warning(
                "%d entries were not acknowledged before the exit; they are in the spool, and the next "
                "start or `streamjournal recover` sends them",
                delivery.pending,
            )


def _after_fork_in_child() -> None:
    for background in list(_all):
        background.after_fork()


def _at_exit() -> None:
    for background in list(_all):
        background.exit()


def _register() -> None:
    assert concurrent.futures.thread is not None  # imported first, so that its callback runs after ours
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork_in_child)


_register()
