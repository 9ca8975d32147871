"""`streamjournal`: the commands, and what becomes of an error.

Nothing heavy is imported here or at the top of a command's module: `read`, `write` and `sessions`
are to answer before one notices that they are Python.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from streamjournal.cli import dead_letters, doctor, journal, mcp, operate, run, status, verify, write
from streamjournal.cli.output import EXIT_UNREACHABLE, EXIT_USAGE, notice
from streamjournal.core.errors import (
    CursorError,
    InvalidEntryError,
    NotConfiguredError,
    SettingsError,
    StreamjournalError,
    UnavailableError,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:  # noqa: FBT001  # typer calls it so
    if value:
        from importlib.metadata import version

        typer.echo(f"streamjournal {version('streamjournal')}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[  # its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A session journal for AI agents: write entries, read and tail them merged, run the worker.

    Everything is embedded (under ~/.streamjournal) unless STREAMJOURNAL_STREAM names a Kinesis stream.

    Exit codes: 0 done, 1 nothing found or something refused, 2 wrong usage, 3 not reachable.
    """


app.command("write")(write.write)
app.command("read")(journal.read)
app.command("tail")(journal.tail)
app.command("sessions")(journal.sessions)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("verify")(verify.verify)
app.command("worker")(operate.worker)
app.command("up")(operate.up)
app.command("status")(status.status)
app.command("init")(operate.init)
app.command("recover")(operate.recover)
app.command("doctor")(doctor.doctor)
app.command("dead-letters")(dead_letters.dead_letters)
app.command("mcp")(mcp.mcp)
app.command("demo")(operate.demo)


def main() -> None:
    """The console script: runs a command, and turns errors into a line on stderr and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseExceptionGroup as group:
        sys.exit(_exit_code(_first(group)))
    except StreamjournalError as problem:
        sys.exit(_exit_code(problem))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group wrapped: its first error of ours, else its first."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop(0)
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, StreamjournalError | typer.Exit)), leaves[0])


def _exit_code(problem: BaseException) -> int:
    if isinstance(problem, typer.Exit):
        return problem.exit_code
    if not isinstance(problem, StreamjournalError):
        raise problem
    notice(f"streamjournal: {problem}", error=True)
    if isinstance(problem, InvalidEntryError | SettingsError | CursorError):
        return EXIT_USAGE
    if isinstance(problem, UnavailableError | NotConfiguredError):
        return EXIT_UNREACHABLE
    return 1
