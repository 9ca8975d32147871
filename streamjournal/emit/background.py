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
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.receipt import Delivery
from streamjournal.emit.recovery import recover_folder
from streamjournal.emit.redaction import Redaction, UserRedaction
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import Destination, Spool
from streamjournal.emit.wakeup import Wakeup
from streamjournal.store.port import Store
from streamjournal.stream.port import Stream

_START_SECONDS = 5.0  # that a fork waits for a thread to start
_CANCEL_SECONDS = 2.0  # that the adapters get to close

_log = logging.getLogger("streamjournal.emit")
_all: weakref.WeakSet[BackgroundSender] = weakref.WeakSet()


class BackgroundSender:
    """An emitter, and the thread on which its sender runs.

    Args:
        open_adapters: makes the stream and the store, on the sender's own event loop.
        destination: where the spool's entries go.
        redact_with: the user's own redaction, after ours.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        open_adapters: Callable[[], tuple[Stream, Store]],
        destination: Destination,
        redact_with: UserRedaction | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._open_adapters = open_adapters
        self._destination = destination
        self._reset()
        self.redaction = Redaction(redact_with)
        self.emitter = Emitter(
            settings,
            clock,
            self._make_spool,
            self._wake,
            self._hurry,
            self.after_fork,
            self.redaction if settings.redact or redact_with is not None else None,
        )
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
        self._told_pending = 0

    def _make_spool(self) -> Spool | None:
        folder = self._settings.spool_path
        return None if folder is None else Spool(folder, self._destination, self._clock)

    def _wake(self) -> None:
        if self._thread is None:
            self._start()
        self._wakeup.set()

    def _hurry(self) -> None:
        if self._thread is None:
            self._wake()
        elif self._sender is not None:
            self._sender.hurry()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="streamjournal-sender", daemon=True)
            try:
                self._thread.start()
            except BaseException as problem:
                if self._thread.ident is None:
                    self._thread = None
                    self.emitter.awake = False  # so that the next entry, or whoever waits, tries again
                if not isinstance(problem, RuntimeError):
                    raise
                # No thread can be started any more, because the interpreter exits, or none now: emit
                # must not raise for that. The entry is in the spool.

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend="asyncio")
        except StreamjournalError as problem:
            _log.error("%s; entries stay in the spool", problem)
        except Exception:  # noqa: BLE001  # it must not end the agent; the spool keeps the entries
            _log.exception("the sender's thread ended; entries stay in the spool")
        finally:
            self._ended = True
            self._ready.set()
            if self._sender is not None:
                self._sender.give_up()

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
            except Exception:  # noqa: BLE001  # a bug with somebody else's spool must not end our sender
                _log.exception("orphaned spools in %s cannot be recovered", folder)

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
        if emitter.accepted == emitter.account.settled:
            return False
        self._hurry()
        if self._thread is None:
            return False
        self._ready.wait()
        sender = self._sender
        if sender is None or self._has_ended():
            return False
        sender.flush(emitter.accepted, done)
        if self._has_ended():  # meanwhile: it may have called all that it knew of before it knew of this one
            sender.give_up()
        return True

    def _has_ended(self) -> bool:
        return self._ended

    def close(self, timeout: float | None = None) -> Delivery:
        """Accept nothing more, send what is pending for at most `timeout` seconds, and stop.

        What is not acknowledged by then stays in the spool for the next start, or for
        `streamjournal recover`.
        """
        if not self.emitter.closed:
            self.emitter.close()
            self._finish(timeout)
            self._tell_pending("close")
            _all.discard(self)
        return self.emitter.delivery()

    def finish_at_exit(self) -> None:
        """The bounded flush at the interpreter's exit. What is emitted after it, by somebody's own exit
        handler, gets into the spool.
        """
        self.emitter.tell_all_dropped(even_if_full=True)
        self._finish(self._settings.exit_timeout)
        self._tell_pending("the exit")

    def _finish(self, timeout: float | None) -> None:
        """Stop the sender once it has sent everything, and give the spool up."""
        if self._thread is None and self.emitter.ready:
            self._wake()  # it could not be started before
        if self._thread is not None:
            self._stop(timeout)
        spool = self.emitter.spool
        if spool is not None and (self._thread is None or not self._thread.is_alive()):
            self.emitter.leave_spool()

    def _stop(self, timeout: float | None) -> None:
        assert self._thread is not None
        end = None if timeout is None else self._clock.monotonic() + timeout
        self._ready.wait(timeout)
        if self._sender is not None and not self._ended:
            self._sender.stop()
            self._thread.join(None if end is None else max(0.0, end - self._clock.monotonic()))
            if self._thread.is_alive() and self._scope is not None:
                self._cancel()
        self._thread.join(_CANCEL_SECONDS)

    def _cancel(self) -> None:
        native = getattr(self._token, "native_token", None)
        assert native is not None
        assert self._scope is not None
        try:
            native.call_soon_threadsafe(self._scope.cancel)
        except RuntimeError:  # it ended at this moment, and closed its event loop
            return

    def _tell_pending(self, before: str) -> None:
        pending = self.emitter.delivery().pending
        if pending <= self._told_pending:
            return
        self._told_pending = pending
        if self._settings.spool_path is None:
            what = "they were in memory only and are lost with this process"
        else:
            what = "they are in the spool, and the next start or `streamjournal recover` sends them"
        _log.warning("%d entries were not acknowledged before %s; %s", pending, before, what)

    def before_fork(self) -> None:
        """Wait until the thread has started: it imports modules, and a child that is forked meanwhile
        would have them half-imported for ever.
        """
        if self._thread is not None:
            self._ready.wait(_START_SECONDS)

    def after_fork(self) -> None:
        """In a forked child: no thread runs here, and nothing of the parent's is ours."""
        self._reset()
        self.emitter.after_fork()


def _before_fork() -> None:
    for background in list(_all):
        background.before_fork()


def _after_fork_in_child() -> None:
    for background in list(_all):
        background.after_fork()


def _flush_at_exit() -> None:
    for background in list(_all):
        background.finish_at_exit()


def _close_at_exit() -> None:
    for background in list(_all):
        background.close(0.0)


def _register() -> None:
    assert concurrent.futures.thread is not None  # imported first, so that its callback runs after ours
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_flush_at_exit)
    atexit.register(_close_at_exit)  # registered early, so it runs after other people's handlers
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


_register()
