"""`write`: one entry from the command line, or many lines from a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Self

import typer

from streamjournal.cli.output import EXIT_NOTHING, EXIT_UNREACHABLE, notice, put

if TYPE_CHECKING:
    from streamjournal.client import Journal
    from streamjournal.core.settings import Settings

_MAX_TOLD = 20  # refused lines that are named one by one
_LOOK = 0.1  # seconds between two looks at what the stream took


def write(
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", help="The session's id.")] = None,
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="TOOL_START, NOTE, …")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="The tool's name.")] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "-l", "--level", metavar="LEVEL", help="DEBUG, INFO (if none is given), WARNING, ERROR, CRITICAL."
        ),
    ] = None,
    detail: Annotated[
        list[str] | None,
        typer.Option("-d", "--detail", metavar="KEY=VALUE", help="VALUE as JSON where it is, else as text."),
    ] = None,
    jsonl: Annotated[
        str | None, typer.Option("--jsonl", metavar="FILE|-", help="Write a file's lines, one entry each.")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="With --jsonl: take secrets out of details, as emit does.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds without any progress until it gives up.")
    ] = 10.0,
) -> None:
    """Write one entry, or with --jsonl a file of them; returns when the stream has them."""
    from streamjournal.client import Journal

    if jsonl is not None:
        if session is not None or event is not None:
            raise typer.BadParameter("with --jsonl, the lines say session and event", param_hint="SESSION")
        for option, given in (("--tool", tool), ("--level", level), ("--detail", detail or None)):
            if given is not None:
                raise typer.BadParameter("with --jsonl, the lines say it", param_hint=option)
        with (
            _open(jsonl) as (file, size),
            Journal(overflow="raise") as journal,
            _Waiting(journal, timeout) as waiting,
        ):
            raise typer.Exit(_Import(journal, waiting, redact=redact).run(file, size))
    if session is None or event is None:
        raise typer.BadParameter("give SESSION and EVENT, or --jsonl FILE", param_hint="SESSION")
    if redact:
        raise typer.BadParameter("only with --jsonl", param_hint="--redact")
    details = dict(_detail(pair) for pair in detail or ())
    with Journal() as journal, _Waiting(journal, timeout) as waiting:
        receipt = journal.emit(
            event, session_id=session, tool_name=tool, level=level or "INFO", details=details
        )
        if waiting.settle():
            raise typer.Exit(waiting.give_up())
        receipt.result(0)
    put(receipt.id or "")


def _detail(pair: str) -> tuple[str, Any]:
    import msgspec

    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--detail")
    try:
        return key, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return key, value


@contextmanager
def _open(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file and its size, or stdin."""
    from pathlib import Path

    if name == "-":
        yield sys.stdin.buffer, None
        return
    path = Path(name)
    try:
        file = path.open("rb")
    except OSError as problem:
        raise typer.BadParameter(f"{name}: {problem.strerror}", param_hint="--jsonl") from None
    with file:
        yield file, path.stat().st_size


class _Waiting(logging.Handler):
    """Waits for the stream to take entries, and knows from the sender's log why it does not.

    Args:
        patience: seconds without any acknowledgement after which to give up.
    """

    def __init__(self, journal: Journal, patience: float) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal
        self._patience = patience
        self._problem: object = "the stream does not answer"
        self._logger = logging.getLogger("streamjournal.emit")

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        self._logger.propagate = False  # one line at the end says it all
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Remember what the sender says of a failed call; hand on what else it says."""
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[0], Exception):
            self._problem = record.args[0]
        else:
            notice(record.getMessage())

    def progressed(self) -> bool:
        """Wait for the stream; whether it took anything. What time will not mend is not waited for."""
        from streamjournal.core.errors import NotConfiguredError

        before = self._journal.delivery.acknowledged
        waited = 0.0
        while waited < self._patience and not isinstance(self._problem, NotConfiguredError):
            delivery = self._journal.flush(_LOOK)
            if delivery.acknowledged > before or not delivery.pending:
                return True
            waited += _LOOK
        return False

    def settle(self) -> int:
        """Wait until everything is acknowledged; how many entries were left when nothing moved any more."""
        while self._journal.delivery.pending:
            if not self.progressed():
                break
        return self._journal.delivery.pending

    def give_up(self) -> int:
        """Say what is left where, and why; the exit code."""
        self._logger.removeHandler(self)  # closing would say half of this once more
        self._logger.addHandler(logging.NullHandler())
        spool = self._journal.background.emitter.spool
        spooled = spool is not None and spool.instance is not None
        left = self._journal.close(0.0).pending
        entries = "1 entry is" if left == 1 else f"{left} entries are"
        notice(
            f"{self._problem}; {entries} {_whereabouts(self._journal.settings, spooled=spooled)}", error=True
        )
        return EXIT_UNREACHABLE


def _whereabouts(settings: Settings, *, spooled: bool) -> str:
    if settings.spool_path is None:
        return "lost, since STREAMJOURNAL_SPOOL is off"
    if not spooled:
        return f"lost, since no spool could be made in {settings.spool_path}"
    return "in the spool only: `streamjournal recover` sends it, or the next write"


class _Import:
    """Brings a file's lines into journals, as fast as the stream takes them."""

    def __init__(self, journal: Journal, waiting: _Waiting, *, redact: bool) -> None:
        self._journal = journal
        self._waiting = waiting
        self._redact = redact
        self._accepted = 0
        self._refused = 0

    def run(self, file: BinaryIO, size: int | None) -> int:
        """Import, say how it went, and return the exit code."""
        whole = self._read(file, size)
        left = self._waiting.settle()
        put(f"accepted {self._accepted}, refused {self._refused}")
        if left or not whole:
            return self._waiting.give_up()
        return EXIT_NOTHING if self._refused else 0

    def _read(self, file: BinaryIO, size: int | None) -> bool:
        """Accept every line; False if the stream stood still until the buffer was full."""
        from streamjournal.core.errors import InvalidEntryError

        with _progress(size) as advance:
            for number, line in enumerate(file, 1):
                advance(len(line))
                if not line.strip():
                    continue
                try:
                    if not self._accept(line):
                        notice(f"stopped before line {number}: the buffer is full")
                        return False
                except InvalidEntryError as problem:
                    self._refused += 1
                    if self._refused <= _MAX_TOLD:
                        notice(f"line {number} refused: {problem}")
        if self._refused > _MAX_TOLD:
            notice(f"… and {self._refused - _MAX_TOLD} more lines refused")
        return True

    def _accept(self, line: bytes) -> bool:
        """Accept a line, waiting for room as long as the stream takes anything."""
        from streamjournal.core.errors import BufferFullError

        while True:
            try:
                self._journal.emit_line(line, redact=self._redact)
            except BufferFullError:
                if not self._waiting.progressed():
                    return False
            else:
                self._accepted += 1
                return True


@contextmanager
def _progress(size: int | None) -> Iterator[Any]:
    """A progress bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size)
        yield lambda count: progress.advance(task, count)
