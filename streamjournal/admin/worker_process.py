"""A worker as a process: logging, signals, exit code. The deployed consumer and the CLI both run this."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

import anyio
import structlog

from streamjournal import wiring
from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.settings import Settings
from streamjournal.ingest.service import WorkerService
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.worker import Worker
from streamjournal.store.port import Store

_log = structlog.get_logger("streamjournal.worker")
_PATIENCE = 10.0  # seconds that a drain waits for a store that does not answer


def configure_logging(*, level: int = logging.INFO, json: bool | None = None) -> None:
    """One line per event on stderr: readable on a terminal, else one JSON object (or as `json` says).

    Args:
        level: the least severe level shown.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.types.Processor
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


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
        UnsafeStoreError: the store ignores conditional writes.
        UnavailableError, NotConfiguredError: only when draining.
    """
    stream = wiring.open_stream(settings, clock)
    store = wiring.open_store(settings, clock, cache_bytes=settings.worker_bytes // 4)
    leases = wiring.open_leases(settings)
    service = WorkerService(stream, store, leases, settings, clock)

    def started(worker: Worker) -> None:
        tasks.start_soon(_stop_on_signal, worker, name="signals")
        if on_stats is not None:
            on_stats(service.stats, worker)

    async with anyio.create_task_group() as tasks:
        stopped = anyio.Event()
        tasks.start_soon(_note_signal, stopped, name="signals before the start")
        if await _store_is_safe(store, clock, stopped, drain=drain):
            await service.run(drain=drain, on_start=started)
        tasks.cancel_scope.cancel()


async def _note_signal(stopped: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stopped.set()


async def _stop_on_signal(worker: Worker) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("stopping", signal=signal.Signals(number).name)
            worker.stop()


async def _store_is_safe(store: Store, clock: Clock, stopped: anyio.Event, *, drain: bool) -> bool:
    """Wait until the store has shown that it refuses a write with a wrong version; False if stopped.

    Raises:
        UnsafeStoreError: it takes such a write.
        UnavailableError, NotConfiguredError: when draining, and it does not answer.
    """
    backoff = Backoff(clock, first=0.2, longest=30.0)
    started = clock.monotonic()
    while not stopped.is_set():
        try:
            await store.probe()
        except (UnavailableError, NotConfiguredError) as problem:
            lasting = clock.monotonic() - started >= _PATIENCE or isinstance(problem, NotConfiguredError)
            if drain and lasting:
                raise
            wait = backoff.failed()
            _log.warning("not_reachable", problem=str(problem), retry_in_s=round(wait, 1))
            with anyio.move_on_after(wait):
                await stopped.wait()
        else:
            return True
    return False
