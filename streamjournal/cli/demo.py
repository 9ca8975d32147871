"""`streamjournal demo`: an agent, a worker process, and a live tail, from emit to journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streamjournal.cli.demo_agent import DemoAgent
from streamjournal.cli.output import plain_columns
from streamjournal.client import Journal
from streamjournal.core.clock import SYSTEM
from streamjournal.core.entry import Entry
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings, load
from streamjournal.store.names import journal_key

_STREAM = "streamjournal-demo"
_PATIENCE = 30.0  # seconds for the worker to write the journal
_STYLES = {"TOOL_START": "cyan", "TOOL_END": "green", "TOOL_ERROR": "bold red", "SESSION_END": "bold"}


def run_demo(*, aws: bool) -> int:
    """Run the demo; returns the exit code."""
    console = Console(highlight=False)
    settings = _settings(aws=aws)
    session_id = f"demo-{SYSTEM.draw_id(6)}"
    _say_what_comes(console, settings, session_id)
    if aws:
        _make_resources(console, settings)
    with _worker(settings), Journal(settings=settings) as journal:
        with _live_tail(console, journal, session_id):
            DemoAgent(journal, session_id).run()
        entries = _wait_for_journal(console, journal, session_id)
    if not entries:
        console.print("[red]the worker has not written the journal; see its messages above[/]")
        return 1
    _say_what_was(console, settings, session_id, entries)
    return 0


def _settings(*, aws: bool) -> Settings:
    """Embedded in a folder of its own; or what the environment says, with a demo's names as defaults."""
    if not aws:
        return load(home=tempfile.mkdtemp(prefix="streamjournal-"), flush_interval=2.0)
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        raise NotConfiguredError(
            "demo --aws works at AWS_ENDPOINT_URL only, so that it makes nothing in a real account by "
            "mistake: scripts/demo --aws starts an emulator and sets it"
        )
    known = load()
    return load(
        stream=known.stream or _STREAM,
        bucket=known.bucket or f"{_STREAM}-journals",
        home=tempfile.mkdtemp(prefix="streamjournal-"),
        flush_interval=2.0,
    )


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as variables, for another process and for the reader's shell."""
    found = {"STREAMJOURNAL_HOME": settings.home}
    if settings.stream:
        found |= {"STREAMJOURNAL_STREAM": settings.stream, "STREAMJOURNAL_BUCKET": settings.bucket or ""}
    return found


def _say_what_comes(console: Console, settings: Settings, session_id: str) -> None:
    where = "the Kinesis, S3 and DynamoDB APIs" if settings.stream else "SQLite and files, no service"
    console.print(
        Panel.fit(
            Text.assemble(
                ("streamjournal demo", "bold"),
                f"  ·  session {session_id}  ·  {where}\n",
                ("agent ─emit▶ spool ─▶ stream ─▶ worker ─▶ journal\n", "dim"),
                ("below: the live tail, which merges journal and stream", "dim"),
            ),
            border_style="cyan",
        )
    )


def _make_resources(console: Console, settings: Settings) -> None:
    from streamjournal.admin.init import initialise

    async def make() -> None:
        for step in (await initialise(settings)).steps:
            console.print(Text(f"{step.action:<10} {step.resource}", "dim"))

    anyio.run(make)


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    """A worker in a process of its own, as it would be deployed."""
    environment = {**os.environ, **_environment(settings), "STREAMJOURNAL_FLUSH_INTERVAL": "2"}
    command = [sys.executable, "-m", "streamjournal.cli.quiet_worker"]
    process = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _live_tail(console: Console, journal: Journal, session_id: str) -> Iterator[None]:
    """Print the session's entries as they come, in a thread, until its SESSION_END."""
    opened, left = threading.Event(), threading.Event()

    def follow() -> None:
        try:
            with journal.tail(session_id, history=None) as entries:
                opened.set()
                for entry in entries:
                    console.print(_line(entry), no_wrap=True, overflow="ellipsis")
                    if entry.event_type == "SESSION_END":
                        return
        except RuntimeError:
            if not left.is_set():  # Ctrl-C closes the journal under the tail; that is no trouble
                raise

    thread = threading.Thread(target=follow, name="demo-tail", daemon=True)
    thread.start()
    opened.wait(10)
    try:
        yield
        thread.join(10)
    finally:
        left.set()


def _line(entry: Entry) -> Text:
    when, text = plain_columns(entry)
    source = "sandbox ▸" if entry.source == "sandbox" else ""
    style = _STYLES.get(entry.event_type, "magenta" if entry.source == "sandbox" else "")
    return Text.assemble((f"{when[11:]} ", "dim"), (f"{source:<9} {text}", style))


def _wait_for_journal(console: Console, journal: Journal, session_id: str) -> list[Entry]:
    """The journal's own entries, once the worker has written the session's end."""
    with console.status("the worker writes the journal …"):
        deadline = time.perf_counter() + _PATIENCE
        while time.perf_counter() < deadline:
            entries = journal.read(session_id, journal_only=True).all()
            if entries and entries[-1].event_type == "SESSION_END":
                return entries
            time.sleep(0.1)
    return []


def _say_what_was(console: Console, settings: Settings, session_id: str, entries: list[Entry]) -> None:
    console.print(_times(entries))
    key = journal_key(settings.prefix, session_id)
    path = f"s3://{settings.bucket_name()}/{key}" if settings.stream else str(Path(settings.home) / key)
    console.print(f"\n[bold]{len(entries)} entries[/], one JSON object a line, in")
    console.print(Text(path, "cyan"), soft_wrap=True)
    if settings.stream:
        return  # the emulator ends with the demo
    variables = " ".join(f"{name}={value}" for name, value in _environment(settings).items())
    console.print("\nLook at it again:", style="dim")
    for command in (f"streamjournal read {session_id} -l ERROR", "streamjournal sessions"):
        console.print(Text(f"  {variables} {command}", "dim"), soft_wrap=True)


def _times(entries: list[Entry]) -> Table:
    """Calls, failures and time per tool."""
    calls: dict[str, list[Any]] = {}
    for entry in entries:
        if entry.tool_name and entry.event_type in ("TOOL_END", "TOOL_ERROR"):
            calls.setdefault(entry.tool_name, []).append(entry)
    table = Table(title="time per tool", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("tool", "calls", "failed", "ms", ""):
        table.add_column(name, justify="left" if name in ("tool", "") else "right", header_style="dim")
    times = {tool: sum(e.details["duration_ms"] for e in ended) for tool, ended in calls.items()}
    longest = max(times.values(), default=1.0)
    for tool, ended in calls.items():
        failed = sum(e.event_type == "TOOL_ERROR" for e in ended)
        bar = Text("█" * max(1, round(30 * times[tool] / longest)), "cyan")
        table.add_row(tool, str(len(ended)), Text(str(failed or ""), "red"), f"{times[tool]:.1f}", bar)
    return table
