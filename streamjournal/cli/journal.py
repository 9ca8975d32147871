"""`read`, `tail` and `sessions`: what people look at."""

from __future__ import annotations

import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from streamjournal.cli.output import (
    EntryPrinter,
    Format,
    exit_code,
    flush,
    notice,
    put,
    put_json,
    tell_missing,
)

if TYPE_CHECKING:
    from streamjournal.client.base import Tests
    from streamjournal.read.results import AsyncTail
    from streamjournal.read.words import Missing

_LOOK = 0.2  # seconds between two looks at what a tail misses
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)")
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Since = Annotated[
    str | None,
    typer.Option(
        "-S", "--since", metavar="TIME", help="From then on: 2026-11-22T13:00Z, or 10m, 2h, 3d ago."
    ),
]
Until = Annotated[str | None, typer.Option("-U", "--until", metavar="TIME", help="Before then.")]
Types = Annotated[
    list[str] | None, typer.Option("-t", "--type", metavar="EVENT", help="Only these event types.")
]
Tool = Annotated[str | None, typer.Option("--tool", metavar="NAME", help="Only this tool.")]
Level = Annotated[str | None, typer.Option("-l", "--level", metavar="LEVEL", help="At least this level.")]
Grep = Annotated[
    str | None, typer.Option("-g", "--grep", metavar="TEXT", help="Only entries that hold this text.")
]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to print entries.")]


def read(
    session: SessionId,
    number: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="Only the last so many.")
    ] = None,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    tool: Tool = None,
    level: Level = None,
    grep: Grep = None,
    output: Output = Format.short,
    journal_only: Annotated[
        bool, typer.Option("--journal-only", help="Leave out what is on the stream only.")
    ] = False,
    after_cursor: Annotated[
        str | None, typer.Option("--after-cursor", metavar="CURSOR", help="Only what follows it.")
    ] = None,
    show_cursor: Annotated[
        bool, typer.Option("--show-cursor", help="Print the end's cursor on stderr.")
    ] = False,
) -> None:
    """Print a session: its journal, and what is not in it yet."""
    from streamjournal.client import Journal

    printer = EntryPrinter(output)
    with Journal() as journal:
        tests = _tests(since, until, types, tool, level, grep)
        result = journal.read(session, last=number, after=after_cursor, journal_only=journal_only, **tests)
        for block in result.blocks():
            if block:
                printer(block)
        printer.finish()
        tell_missing(result.missing)
        if show_cursor:
            notice(f"cursor: {result.cursor}")
    if not printer.count and not result.missing:
        notice(_nothing(session, tests))
    raise typer.Exit(exit_code(printer.count, result.missing))


def tail(
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="The session's id; all sessions without it.")
    ] = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=0, help="Entries of history to begin with.")
    ] = 10,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    tool: Tool = None,
    level: Level = None,
    grep: Grep = None,
    output: Output = Format.short,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on after the history.")] = True,
    after_cursor: Annotated[
        str | None, typer.Option("--after-cursor", metavar="CURSOR", help="Begin after it, whatever -n says.")
    ] = None,
    show_cursor: Annotated[
        bool, typer.Option("--show-cursor", help="Print the last entry's cursor on stderr at the end.")
    ] = False,
) -> None:
    """Print entries as they come, of a session or of all. Ctrl-C ends it."""
    import anyio

    from streamjournal.client import AsyncJournal

    printer = EntryPrinter(output, with_session=session is None)
    tests = _tests(since, until, types, tool, level, grep)

    async def run() -> AsyncTail:
        async with AsyncJournal() as journal:
            opened = journal.tail(session, history=number, after=after_cursor, follow=follow, **tests)
            async with opened as entries:
                await _follow(entries, printer, at_once=output is not Format.table)
            return entries

    entries = anyio.run(run)
    printer.finish()
    if show_cursor:
        notice(f"cursor: {entries.cursor}")
    if not follow:
        if not printer.count and not entries.missing:
            notice(_nothing(session, tests))
        raise typer.Exit(exit_code(printer.count, entries.missing))


def _nothing(session: str | None, tests: Tests) -> str:
    """What to say when there was nothing to print."""
    if session is None:
        matching = "that matches " if any(tests.values()) else ""
        return f"nothing {matching}waits on the stream"
    if any(tests.values()):
        return f"session {session} has no entries that match"
    return f"there are no entries of session {session}"


async def _follow(entries: AsyncTail, printer: EntryPrinter, *, at_once: bool) -> None:
    """Print a tail's entries until it ends, or Ctrl-C; and what it misses, when that happens."""
    import anyio

    told: set[Missing] = set()

    def tell() -> None:
        tell_missing(news := [one for one in entries.missing if one not in told])
        told.update(news)

    async def end_on_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()

    async def keep_telling() -> None:
        while True:  # the next entry may be long in coming
            tell()
            await anyio.sleep(_LOOK)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_on_signal)
        tasks.start_soon(keep_telling)
        async for entry in entries:
            printer([entry])
            if at_once:
                flush()
        tasks.cancel_scope.cancel()
    tell()


def sessions(
    number: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="At most so many, the newest.")
    ] = None,
    output: Annotated[Format, typer.Option("-o", "--output", help="How to print them.")] = Format.table,
) -> None:
    """List the sessions with a summary each, the one written to last first."""
    from streamjournal.client import Journal

    with Journal() as journal:
        found = journal.sessions(number)
    if output is Format.json:
        for one in found.sessions:
            put_json(one)
    elif output is Format.short:
        for one in found.sessions:
            put(one.session_id)
    elif found.sessions:
        _sessions_table(found.sessions)
    flush()
    tell_missing(found.missing)
    if not found.sessions and not found.missing:
        notice("no sessions yet; `streamjournal demo` makes one")
    raise typer.Exit(exit_code(len(found.sessions), found.missing))


def _sessions_table(found: list) -> None:  # type: ignore[type-arg]  # list[Session], not imported at the top
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("session", overflow="fold")
    table.add_column("status")
    table.add_column("entries", justify="right")
    table.add_column("errors", justify="right")
    table.add_column("last", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    styles = {"failed": "red", "running": "green", "abandoned": "yellow"}
    for one in found:
        table.add_row(
            Text(one.session_id),
            Text(one.status, styles.get(one.status, "")),
            f"{one.entries:,}",
            Text(f"{one.errors:,}" if one.errors else "", "red"),
            Text(one.last[:19].replace("T", " "), "dim"),
            decimal(one.bytes),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _tests(
    since: str | None,
    until: str | None,
    types: list[str] | None,
    tool: str | None,
    level: str | None,
    grep: str | None,
) -> Tests:
    return {
        "since": _moment("--since", since),
        "until": _moment("--until", until),
        "event_types": types or None,
        "tool": tool,
        "level": level,
        "text": grep,
    }


def _moment(option: str, text: str | None) -> datetime | None:
    """A moment, written out or as how long ago."""
    from streamjournal.core.clock import SYSTEM, parse_timestamp

    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip().removesuffix("ago").strip())
    if ago is not None:
        now = datetime.fromtimestamp(SYSTEM.time(), UTC)
        return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    moment = parse_timestamp(text)
    if moment is None:
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-11-22T13:00Z, or 10m, 2h, 3d", param_hint=option
        )
    return moment
