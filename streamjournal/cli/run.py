"""`run`: a command with its output passed through, and its start, its entries and its end journaled."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, TextIO

import typer

from streamjournal.cli.output import notice

SESSION_VARIABLE = "STREAMJOURNAL_SESSION"
CLOSE_SECONDS = 10.0  # for the last entries to reach the stream


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD …", help="The command and its arguments.")],
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="S",
            envvar=SESSION_VARIABLE,
            help="The session; one of its own, if none is given.",
        ),
    ] = None,
    tool: Annotated[
        str | None, typer.Option("--tool", metavar="NAME", help="The tool's name; else the command's.")
    ] = None,
) -> None:
    """Run a command, and journal its start, the entries that it prints, and how it ended; live."""
    import anyio

    from streamjournal.agents.command import CommandFailedError, run_command
    from streamjournal.client import Journal
    from streamjournal.core.entry import check_optional

    check_optional("tool_name", tool)
    stdout, stderr = _descriptor(sys.stdout), _descriptor(sys.stderr)
    code = 0
    journal = Journal()
    try:
        handle = journal.session(session or f"run-{journal.clock.draw_id()}")
        around: AbstractContextManager[Any] = nullcontext()
        if not session:
            notice(f"session {handle.session_id}")
            around = handle
        environment = {**os.environ, SESSION_VARIABLE: handle.session_id}

        async def go() -> None:
            await run_command(
                handle, command, tool_name=tool, stdout=stdout, stderr=stderr, environment=environment
            )

        with around:
            try:
                anyio.run(go)
            except CommandFailedError as problem:
                raise problem.with_traceback(None) from None  # SESSION_END shows it
    except CommandFailedError as problem:
        code = problem.exit_code
        if not problem.started:
            notice(f"streamjournal: {problem}", error=True)
    finally:
        left = journal.close(CLOSE_SECONDS).pending
    if left:
        spooled = journal.settings.spool_path is not None
        where = (
            "in the spool: `streamjournal recover` sends them" if spooled else "lost, since the spool is off"
        )
        notice(f"the stream did not take {left} entries in time; they are {where}")
    raise typer.Exit(code)


def _descriptor(stream: TextIO | None) -> int | None:
    """A standard stream's, or None if it was closed when we began: its number may be a file's by now."""
    if stream is None:
        return None
    stream.flush()
    return stream.fileno()
