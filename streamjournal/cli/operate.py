"""`worker`, `up`, `init`, `recover`, `demo`: what an operator runs."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamjournal.cli.output import EXIT_UNREACHABLE, notice, put, put_json

if TYPE_CHECKING:
    from streamjournal.ingest.stats import Stats
    from streamjournal.ingest.worker import Worker

_WOULD = {"created": "would create", "changed": "would change"}
_REFRESH = 0.2  # seconds between two looks of `up` at the worker's counters


class LogLevel(StrEnum):
    """The least severe lines that are logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class InitFormat(StrEnum):
    """`short`: a line for a person, and the variables to set; `json`: an object per step."""

    short = "short"
    json = "json"


def worker(
    drain: Annotated[
        bool, typer.Option("--drain", help="End once everything now on the stream is in the journals.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve /metrics, /healthz and /readyz there; 0 takes a free port and logs it.",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option("--log-level", help="The least severe lines to log; info unless set.")
    ] = None,
) -> None:
    """Move entries from the stream into the journals, until SIGTERM or Ctrl-C."""
    import logging

    import anyio

    from streamjournal.admin.worker_process import configure_logging, run_worker
    from streamjournal.core.settings import load

    settings = load(metrics_port=metrics_port, log_level=log_level)
    configure_logging(level=logging.getLevelNamesMapping()[settings.log_level.upper()])

    async def run() -> None:
        await run_worker(settings, drain=drain)

    anyio.run(run)


def up() -> None:
    """Run the worker in the foreground, with one line that shows what it does. Ctrl-C ends it."""
    import logging

    import anyio

    from streamjournal.admin.worker_process import configure_logging, run_worker
    from streamjournal.core.settings import load

    settings = load()
    configure_logging(level=logging.WARNING)
    where = settings.stream or str(settings.home_path)
    notice(f"moving entries from {where} into the journals; Ctrl-C ends it")

    async def run() -> None:
        async with anyio.create_task_group() as tasks:

            def show(stats: Stats, _: Worker) -> None:
                tasks.start_soon(_show, stats, name="status line")

            await run_worker(settings, on_stats=show)
            tasks.cancel_scope.cancel()

    anyio.run(run)
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


async def _show(stats: Stats) -> None:
    """The status line: redrawn on a terminal, elsewhere a line whenever something happened."""
    import anyio

    last = ""
    while True:
        lag = max(stats.lag_ms.values(), default=0)
        line = (
            f"{stats.entries:,} entries in {_count(stats.commits, 'commit')} · "
            f"{stats.buffered_bytes:,} B waiting · {lag:,} ms behind · {_count(stats.shards, 'shard')}"
        )
        if stats.dead_letters:
            line += f" · {_count(stats.dead_letters, 'dead letter')}"
        if line != last:
            last = line
            if sys.stderr.isatty():
                width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be redrawn
                sys.stderr.write(f"\r\x1b[2K{line[:width]}")
            else:
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        await anyio.sleep(_REFRESH if sys.stderr.isatty() else 5.0)


def init(
    retention_hours: Annotated[
        int | None,
        typer.Option("--retention-hours", min=24, max=8760, help="How long the stream keeps records."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="Provisioned shards; on-demand without it.")
    ] = None,
    archive_versions_after: Annotated[
        int | None,
        typer.Option(
            "--archive-versions-after",
            metavar="DAYS",
            min=1,
            help="Move old versions of journals to Glacier then, instead of deleting them after a day.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    output: Annotated[
        InitFormat, typer.Option("-o", "--output", help="How to print the steps.")
    ] = InitFormat.short,
) -> None:
    """Make the stream, the bucket and the lease table, where they are not there yet."""
    import anyio

    from streamjournal.admin.init import initialise
    from streamjournal.core.settings import load

    settings = load()

    async def run() -> None:
        result = await initialise(
            settings,
            retention_hours=retention_hours,
            archive_versions_after=archive_versions_after,
            shards=shards,
            dry_run=dry_run,
        )
        for step in result.steps:
            action = _WOULD.get(step.action, step.action) if dry_run else step.action
            if output is InitFormat.json:
                put_json({"resource": step.resource, "action": action, "detail": step.detail})
            else:
                put(f"{action:<12} {step.resource}" + (f": {step.detail}" if step.detail else ""))
        if output is InitFormat.short:
            put("")
            for line in result.environment:
                put(line)

    anyio.run(run)


def recover(
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the stream, for each spool.")
    ] = 30.0,
) -> None:
    """Send what dead processes left in their spools, each to the stream that it was meant for."""
    import logging

    import anyio

    from streamjournal.admin.recover import recover_all
    from streamjournal.core.settings import load

    settings = load()
    logging.getLogger("streamjournal.emit").setLevel(logging.CRITICAL)  # what it says, the result says too

    async def run() -> int:
        result = await recover_all(settings, timeout=timeout)
        entries = "1 entry" if result.entries == 1 else f"{result.entries:,} entries"
        put(f"recovered {entries} from {_count(result.spools, 'spool')}")
        for path, why in result.skipped:
            notice(f"left as it is: {path}: {why}")
        return EXIT_UNREACHABLE if result.skipped else 0

    code = anyio.run(run)
    if code:
        raise typer.Exit(code)


def demo(
    aws: Annotated[
        bool, typer.Option("--aws", help="Over the AWS APIs, at AWS_ENDPOINT_URL, instead of embedded.")
    ] = False,
) -> None:
    """Watch a small agent's entries go from emit to journal. No model, no network."""
    from streamjournal.cli.demo import run_demo

    raise typer.Exit(run_demo(aws=aws))
