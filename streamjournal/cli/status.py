"""`status`: workers, shards, owners and lag, from outside."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamjournal.cli.output import flush, notice, put, put_json

if TYPE_CHECKING:
    from rich.table import Table

    from streamjournal.admin.status import ShardStatus, Status

EXIT_TROUBLE = 1
_STYLES = {"idle": "green", "moving": "green", "stands still": "bold red", "unheld": "red", "unknown": "red"}


class StatusFormat(StrEnum):
    """`table`: for a person; `json`: one object."""

    table = "table"
    json = "json"


def status(
    output: Annotated[
        StatusFormat, typer.Option("-o", "--output", help="How to print it.")
    ] = StatusFormat.table,
) -> None:
    """Show the workers, who holds which shard, and how far each is behind.

    Looks for 4 seconds at most; for 11 if a worker gives no sign of life.

    Exits with 1 if records wait that nobody moves, or if a worker that holds a shard gives no sign of life.
    """
    import anyio

    from streamjournal.admin.status import survey
    from streamjournal.core.settings import load

    settings = load()

    async def run() -> Status:
        return await survey(settings, on_wait=_tell_wait)

    found = anyio.run(run)
    if output is StatusFormat.json:
        put_json(found)
    else:
        _show(found)
    flush()
    if found.problems:
        raise typer.Exit(EXIT_TROUBLE)


def _tell_wait(seconds: float) -> None:
    if sys.stderr.isatty():
        notice(f"a worker has not shown that it lives, or moves; looking for {seconds:.0f} s more")


def _show(found: Status) -> None:
    if found.stream is None:
        put(f"nothing here yet: no entry was ever emitted with {found.place} as its home")
        put("`streamjournal demo` shows how it works; `streamjournal doctor` checks the settings")
        return
    where = f"{found.backend}, {found.place}" if found.backend == "embedded" else found.backend
    put(f"stream     {found.stream} ({where})")
    kept = "; what is in no journal yet stays" if found.backend == "embedded" else ""
    put(f"retention  {_duration((found.retention_seconds or 0) * 1000)}{kept}")
    put(f"looked     for {found.looked_seconds:.1f} s")
    put("")
    if found.workers:
        _print(_workers(found))
        put("")
    ended = [one for one in found.shards if one.state == "ended"]
    _print(_shards([one for one in found.shards if one.state != "ended"]))
    if ended:
        put(f"and {len(ended)} that have ended, and are drained")
    put("")
    totals = found.totals
    flush()
    for problem in found.problems:
        notice(problem, error=True)
    if not found.problems:
        lag = "" if not totals.lag_ms else f", the oldest for {_duration(totals.lag_ms)}"
        waiting = f"records wait on {totals.with_records_waiting}{lag}"
        put(
            f"all is well: {_held(found)}, "
            f"{waiting if totals.with_records_waiting else 'everything is in its journal'}"
        )


def _held(found: Status) -> str:
    totals = found.totals
    return f"{totals.held} of {totals.shards} shards held" if found.workers else "no worker runs"


def _workers(found: Status) -> Table:
    from rich.text import Text

    table = _table("worker", "*shards", "sign of life")
    for one in found.workers:
        seen = Text("yes", "green") if one.alive else Text(f"none in {found.looked_seconds:.1f} s", "yellow")
        table.add_row(one.worker, str(one.shards), seen)
    return table


def _shards(shards: list[ShardStatus]) -> Table:
    from rich.text import Text

    table = _table("shard", "state", "worker", "checkpoint", "*lag", "*of retention")
    for one in shards:
        table.add_row(
            one.shard,
            Text(one.state, _STYLES.get(one.state, "")),
            f"{one.worker or 'nobody'}{f' ({one.asked_by} asks)' if one.asked_by else ''}",
            _shortened(one.checkpoint),
            "?" if one.lag_ms is None else _duration(one.lag_ms),
            "?" if one.retention_share is None else f"{one.retention_share:.1%}",
        )
    return table


def _shortened(checkpoint: str) -> str:
    """A sequence number of Kinesis has 56 digits, and what tells two of them apart is at the end."""
    return checkpoint if len(checkpoint) <= 20 else f"{checkpoint[:4]}…{checkpoint[-12:]}"


def _table(*columns: str) -> Table:
    """A table as `sessions` has it; a column with a * is one of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        name = column.removeprefix("*")
        table.add_column(name, justify="right" if name != column else "left", no_wrap=True, overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    flush()
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _duration(milliseconds: float) -> str:
    if milliseconds < 10_000:
        return f"{milliseconds:,.0f} ms"
    for unit, size in (("s", 1000), ("min", 60_000), ("h", 3_600_000)):
        if milliseconds < 120 * size:
            return f"{milliseconds / size:,.0f} {unit}"
    return f"{milliseconds / 3_600_000:,.0f} h"
