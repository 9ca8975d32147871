"""What the commands print: results on stdout in one of three formats, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from streamjournal.core.visible import visible

if TYPE_CHECKING:
    from streamjournal.core.entry import Entry
    from streamjournal.read.words import Missing

EXIT_NOTHING = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

_WIDEST = 40  # of a table's columns but the last
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class Format(StrEnum):
    """`short`: a line for a person; `json`: the entry itself; `table`: columns."""

    short = "short"
    json = "json"
    table = "table"


def notice(text: str, *, error: bool = False) -> None:
    """A line on stderr."""
    colour = "31" if error else "33"
    print(paint(text, colour, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201


def tell_missing(missing: Iterable[Missing]) -> None:
    """Say on stderr what a result lacks, each thing once."""
    for what, why in dict.fromkeys(missing):
        notice(f"incomplete ({what}): {why}")


def exit_code(count: int, missing: Iterable[Missing]) -> int:
    """What a command ends with that found `count` things, and without those that are missing."""
    if any(one.what == "stream" for one in missing):
        return EXIT_UNREACHABLE
    return 0 if count else EXIT_NOTHING


def put_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    import msgspec

    put(value if isinstance(value, bytes) else msgspec.json.encode(value))


def put(line: bytes | str) -> None:
    """One line on stdout, as UTF-8 whatever the locale says."""
    data = line if isinstance(line, bytes) else line.encode("utf-8", "replace")
    with _reader_may_leave():
        sys.stdout.buffer.write(data + b"\n")


def flush() -> None:
    """Hand what was put to whoever reads stdout."""
    with _reader_may_leave():
        sys.stdout.buffer.flush()


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End the command, done, when whoever read stdout has what he wants: `streamjournal read … | head`."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes there at exit
        raise typer.Exit(0) from None


class EntryPrinter:
    """Prints entries in a format.

    Args:
        with_session: show each entry's session too.
    """

    def __init__(self, form: Format, *, with_session: bool = False) -> None:
        self._form = form
        self._with_session = with_session
        self._rows: list[Entry] = []
        self.count = 0

    def __call__(self, entries: list[Entry]) -> None:
        """Print entries; a table waits for `finish`."""
        self.count += len(entries)
        if self._form is Format.json:
            put(b"\n".join([entry.json_line() for entry in entries]))
        elif self._form is Format.table:
            self._rows += entries
        else:
            put("\n".join([short_line(entry, with_session=self._with_session) for entry in entries]))

    def finish(self) -> None:
        """Print what waited."""
        if self._rows:
            self._table()
        flush()

    def _table(self) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        columns = ["time", *(["session"] if self._with_session else []), "level", "event", "tool", "details"]
        rows = [[visible(cell) for cell in self._cells(entry)] for entry in self._rows]
        for i, column in enumerate(columns[:-1]):  # only the details give way when the terminal is narrow
            width = min(_WIDEST, max(len(column), *(len(cells[i]) for cells in rows)))
            table.add_column(column, overflow="ellipsis", no_wrap=True, min_width=width, max_width=width)
        table.add_column(columns[-1], overflow="ellipsis", no_wrap=True)
        styles = {"ERROR": "red", "CRITICAL": "bold red", "WARNING": "yellow"}
        for entry, cells in zip(self._rows, rows, strict=True):
            table.add_row(*map(Text, cells), style=styles.get(entry.level, ""))
        Console(width=None if sys.stdout.isatty() else 200).print(table)

    def _cells(self, entry: Entry) -> list[str]:
        session = [entry.session_id] if self._with_session else []
        tool = entry.tool_name or ""
        return [_time(entry.timestamp), *session, entry.level, entry.event_type, tool, _details(entry)]


def short_line(entry: Entry, *, with_session: bool = False) -> str:
    """`2026-11-22 13:12:01.123  TOOL_START  run_eda  path=s3://b/data.csv`, coloured on a terminal."""
    time, text = plain_columns(entry, with_session=with_session)
    colour = _COLOURS.get(entry.level)
    return f"{paint(time, '2', sys.stdout)}  {paint(text, colour, sys.stdout) if colour else text}"


def plain_columns(entry: Entry, *, with_session: bool = False) -> tuple[str, str]:
    """An entry's time and the rest of its short line, without colours."""
    session = f"{entry.session_id}  " if with_session else ""
    tool = f"{entry.tool_name}  " if entry.tool_name else ""
    level = "" if entry.level == "INFO" else f"{entry.level}  "  # a colour alone would be lost in a pipe
    text = visible(f"{session}{entry.event_type:<16} {level}{tool}{_details(entry)}").rstrip()
    return _time(entry.timestamp), text


def _time(timestamp: str) -> str:
    """Date, and time to the millisecond, without what a column of them repeats."""
    day, _, clock = timestamp.partition("T")
    return f"{day} {clock[:12].rstrip('Z')}" if clock else timestamp


def _details(entry: Entry) -> str:
    details = entry.details
    if isinstance(details, dict):
        return " ".join(f"{key}={_value(value)}" for key, value in details.items())
    return _value(details)


def _value(value: Any) -> str:
    import msgspec

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}…"


def paint(text: str, colour: str, stream: Any) -> str:
    """Text in a colour, where the stream is a terminal that wants one."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
