"""A worker as a process: logging, signals, exit code. The deployed consumer and the CLI both run this."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus
from structlog.typing import EventDict, Processor

from streamjournal import wiring
from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.settings import Settings
from streamjournal.ingest.service import WorkerService
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.watchdog import Watchdog
from streamjournal.ingest.worker import Worker
from streamjournal.store.port import Store

_log = structlog.get_logger("streamjournal.worker")
_PATIENCE = 10.0  # seconds that a drain waits for a store that does not answer


def configure_logging(*, level: int = logging.INFO, json: bool | None = None) -> None:
    """One line per event on stderr: readable on a terminal, else one JSON object (or as `json` says).

    Warnings of libraries, which speak through `logging`, come in the same form.

    Args:
        level: the least severe level shown.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    told: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shown: list[Processor] = [structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))]
    if as_json:
        shown = [structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*told, *shown],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=told,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _NamedLogger(structlog.PrintLogger):
    """Prints on stderr, and knows its name, as the loggers of `logging` do."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def _in_order(_: Any, __: str, fields: EventDict) -> EventDict:
    """When, how bad, who, what; then the rest, as in every line."""
    first = {name: fields.pop(name) for name in ("timestamp", "level", "logger", "event") if name in fields}
    return first | dict(fields)


async def run_worker(
    settings: Settings,
    *,
    drain: bool = False,
    clock: Clock = SYSTEM,
    on_stats: Callable[[Stats, Worker], None] | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT (or drained): it flushes, checkpoints and releases.

    Must run in the main thread, where signals arrive.

    Args:
        on_stats: given the worker's counters and the worker, once, before it starts.

    Raises:
        SettingsError: the metrics' port cannot be had.
        UnsafeStoreError: the store ignores conditional writes.
        NotConfiguredError: when draining; or a metrics port is set without prometheus-client.
        UnavailableError: only when draining.
    """
    async with AsyncExitStack() as opened:
        stream = wiring.open_stream(settings, clock)
        opened.push_async_callback(stream.aclose)
        store = wiring.open_store(settings, clock, cache_bytes=settings.worker_bytes // 4)
        opened.push_async_callback(store.aclose)
        leases = wiring.open_leases(settings)
        opened.push_async_callback(leases.aclose)
        service = WorkerService(stream, store, leases, settings, clock)
        watchdog = Watchdog(service.stats, service.trouble, stream, clock)
        if settings.metrics_port is not None:
            opened.callback(_serve_pages(watchdog, settings.metrics_address, settings.metrics_port, clock))
        stopping = _Stopping(watchdog)

        def started(worker: Worker) -> None:
            stopping.also(worker.stop)
            if on_stats is not None:
                on_stats(service.stats, worker)

        async with anyio.create_task_group() as tasks:
            await tasks.start(stopping.heed_signals, name="signals")
            tasks.start_soon(watchdog.run, name="watchdog")
            began = clock.monotonic()
            if await _store_is_safe(store, clock, stopping.asked, drain=drain):
                watchdog.probed = True
                await service.run(drain=drain, on_start=started)
            _say_last_word(service.stats, clock.monotonic() - began, drained=drain, stopped=stopping.asked)
            tasks.cancel_scope.cancel()


def _serve_pages(watchdog: Watchdog, address: str, port: int, clock: Clock) -> Callable[[], None]:
    """Serve `/metrics`, `/healthz` and `/readyz`; gives what ends it."""
    from streamjournal.admin.metrics_server import MetricsServer

    server = MetricsServer(watchdog, clock, address, port)
    _log.info("metrics_served", address=address, port=server.port)
    return server.close


def _say_last_word(stats: Stats, seconds: float, *, drained: bool, stopped: anyio.Event) -> None:
    """What this worker has done, in one line."""
    event = "drained" if drained and not stopped.is_set() else "worker_stopped"
    done = {"entries": stats.entries, "commits": stats.commits, "seconds": round(seconds, 1)}
    if stats.dead_letters:
        done["dead_letters"] = stats.dead_letters
    _log.info(event, **done)


class _Stopping:
    """The wish to stop, from a signal's arrival on, whoever is there to hear it by then."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self.asked = anyio.Event()
        self._stop: Callable[[], None] | None = None

    def also(self, stop: Callable[[], None]) -> None:
        """Have `stop` called when a signal arrives, or at once if one has."""
        self._stop = stop
        if self.asked.is_set():
            stop()

    async def heed_signals(self, *, task_status: TaskStatus[None]) -> None:
        """Wait for SIGTERM and SIGINT, from the moment that the task has started."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                _log.info("stopping", signal=signal.Signals(number).name)
                self._watchdog.stopping = True
                self.asked.set()
                if self._stop is not None:
                    self._stop()


async def _store_is_safe(store: Store, clock: Clock, stopped: anyio.Event, *, drain: bool) -> bool:
    """Wait until the store has shown that it refuses a write with a wrong version; False if stopped.

    Raises:
        UnsafeStoreError: it takes such a write.
        UnavailableError, NotConfiguredError: when draining, and it does not answer.
    """
    backoff = Backoff(clock, first=0.2, longest=2.0 if drain else 30.0)
    deadline = clock.monotonic() + _PATIENCE
    while not stopped.is_set():
        try:
            await store.probe()
        except (UnavailableError, NotConfiguredError) as problem:
            if drain and (isinstance(problem, NotConfiguredError) or clock.monotonic() >= deadline):
                raise
            wait = backoff.failed()
            _log.warning("not_reachable", problem=str(problem), retry_in_s=round(wait, 1))
            with anyio.move_on_after(wait):
                await stopped.wait()
        else:
            return True
    return False
