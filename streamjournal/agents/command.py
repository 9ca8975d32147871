"""A command as a tool's call: its output passes through as it comes, and its entries are journaled.

The command's stdout and stderr are pipes that are read here. Stdout is searched for entries; stderr
passes as it is, since tracebacks show source code. Standard input is the command's own.
"""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from streamjournal.agents.sandbox_entries import SandboxOutput
from streamjournal.emit.redaction import REDACTED, bounded_json, is_secret_name
from streamjournal.emit.spans import MAX_RESULT_BYTES, Span

if TYPE_CHECKING:
    from streamjournal.client.session import AsyncSession, Session

_log = logging.getLogger("streamjournal.agents")

NOT_FOUND: Final = 127  # the shell's codes: of a command that is not there,
NOT_RUN: Final = 126  # and of one that cannot be run
AFTERMATH_SECONDS: Final = 2.0  # to read on, once the command ended and others hold its output
_CHUNK: Final = 65_536  # a pipe's capacity on Linux
_MAX_AFTERMATH_BYTES: Final = 2**20  # what the largest pipe can hold at the command's end
_MAX_TOOL_CHARS: Final = 64
_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HEADER: Final = re.compile(r"(?P<prefix>-H|)(?P<name>[\w-]+)(?P<colon>:\s*)(?P<value>.*)", re.DOTALL)
_OPTION: Final = re.compile(r"(?P<name>--?[\w-]+|\w+)(?P<equals>=?)(?P<value>.*)", re.DOTALL)


class CommandFailedError(Exception):
    """A command did not end well.

    Args:
        exit_code: as a shell says it: the command's own, or 128 + the signal's number.
        started: whether it ran at all.
    """

    def __init__(self, problem: str, exit_code: int, *, started: bool = True) -> None:
        super().__init__(problem)
        self.exit_code = exit_code
        self.started = started


async def run_command(
    session: Session | AsyncSession,
    command: Sequence[str],
    *,
    tool_name: str | None = None,
    stdout: int | None,
    stderr: int | None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end as a span, with its output and its entries live.

    SIGINT, SIGTERM and SIGHUP go on to it. A reader of `stdout` that leaves does not end it.

    Args:
        command: the program and its arguments.
        tool_name: else the program's file name.
        stdout, stderr: where its output goes, as file descriptors; None is nowhere.
        environment: else this process's.

    Raises:
        CommandFailedError: it could not be started, or ended with another code than 0.
    """
    name = tool_name or _tool_name(command[0])
    arguments = without_secrets(command) if session.journal.settings.redact else list(command)
    span = session.tool(name, command=bounded_json(arguments, MAX_RESULT_BYTES))
    span.start()
    try:
        await _Run(span, SandboxOutput(session, span=span)).run(command, stdout, stderr, environment)
    except CommandFailedError as problem:
        span.end(problem.with_traceback(None))  # where it was found out says nothing of the command
        raise
    except BaseException as problem:
        span.end(problem)
        raise
    span.end()


def without_secrets(command: Sequence[str]) -> list[str]:
    """A command line whose secrets are taken out: of `--password=…`, `--password …`, `TOKEN=…`, and of
    headers: `X-Api-Key: …`. What follows a secret's option is its value, whatever it looks like.
    """
    shown: list[str] = []
    value_next = False
    for word in command:
        text, takes_next = _without_secret(word)
        shown.append(REDACTED if value_next else text)
        # also where this was a value: if it was an option after all, the next one is the secret
        value_next = takes_next
    return shown


def _without_secret(word: str) -> tuple[str, bool]:
    """A word without its secret, and whether the next word is one."""
    header = _HEADER.fullmatch(word)
    if header is not None and is_secret_name(header["name"]):
        if not header["value"]:
            return word, True
        return f"{header['prefix']}{header['name']}{header['colon']}{REDACTED}", False
    option = _OPTION.fullmatch(word)
    if option is None:
        return word, False
    if not option["equals"]:
        return word, word.startswith("-") and is_secret_name(option["name"])
    if is_secret_name(option["name"]):
        return f"{option['name']}={REDACTED}", False
    return f"{option['name']}={_without_secret(option['value'])[0]}", False


class _Run:
    """One run of a command."""

    def __init__(self, span: Span, entries: SandboxOutput) -> None:
        self._span = span
        self._entries = entries
        self._received: list[str] = []
        self._pumps: list[_Pump] = []

    async def run(
        self,
        command: Sequence[str],
        stdout: int | None,
        stderr: int | None,
        environment: Mapping[str, str] | None,
    ) -> None:
        # What was ignored when we began (nohup) is not ours to take, and the command ignores it, too.
        taken = [one for one in _FORWARDED if signal.getsignal(one) is not signal.SIG_IGN]
        with (
            anyio.open_signal_receiver(*taken) as signals,  # first: no signal may come in between
            _start(command, environment, self._span) as process,
        ):
            async with anyio.create_task_group() as tasks:

                async def forward() -> None:
                    async for number in signals:
                        self._forward(process, number)

                tasks.start_soon(forward, name="signals")
                await self._read_to_the_end(process, stdout, stderr)
                tasks.cancel_scope.cancel()
        self._tell_end(process.returncode)

    async def _read_to_the_end(
        self, process: subprocess.Popen[bytes], stdout: int | None, stderr: int | None
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        out = _Pump(process.stdout.fileno(), _Output(stdout), self._entries.feed, self._entries.finish)
        err = _Pump(process.stderr.fileno(), _Output(stderr), bytes, bytes)
        self._pumps = [out, err]
        async with anyio.create_task_group() as tasks:
            for pump in self._pumps:
                tasks.start_soon(pump.run, name="pump")
            await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            tasks.start_soon(self._end_aftermath, name="aftermath")
        if not all(pump.ended for pump in self._pumps):
            self._span.note(output_held=True)

    async def _end_aftermath(self) -> None:
        """A process that the command left behind may hold its output for ever: read on for a while."""
        with anyio.move_on_after(AFTERMATH_SECONDS):
            for pump in self._pumps:
                await pump.done.wait()
        for pump in self._pumps:
            pump.stop()

    def _forward(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        self._received.append(number.name)
        if process.poll() is not None:  # only what it left behind is waited for
            for pump in self._pumps:
                pump.stop()
        elif not (number is signal.SIGINT and _is_foreground()):  # the terminal has sent it to both
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _tell_end(self, returncode: int) -> None:
        """Note how the command ended; raises if that was not well."""
        if self._received:
            self._span.note(received=self._received)
        if self._entries.entries:
            self._span.note(entries=self._entries.entries)
        code = returncode if returncode >= 0 else 128 - returncode
        self._span.note(exit_code=code)
        if returncode < 0:
            name = _signal_name(-returncode)
            self._span.note(signal=name)
            raise CommandFailedError(f"killed by {name}", code)
        if returncode:
            raise CommandFailedError(f"exit code {returncode}", code)


class _Output:
    """A file descriptor that may stop taking anything; the rest is dropped then."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        """Write all of the data, on a thread: whoever reads it may be slow."""
        if data and self._descriptor is not None:
            try:
                await anyio.to_thread.run_sync(_write_all, self._descriptor, data)
            except OSError as problem:  # the reader left, or a disk is full: the entries still count
                self._descriptor = None
                if not isinstance(problem, BrokenPipeError):
                    _log.warning("the command's output is dropped from here on: %s", problem)


class _Pump:
    """Reads a pipe to its end, and writes what is left of it by `feed` and `finish`."""

    def __init__(
        self, source: int, output: _Output, feed: Callable[[bytes], bytes], finish: Callable[[], bytes]
    ) -> None:
        os.set_blocking(source, False)
        self._source = source
        self._output = output
        self._feed = feed
        self._finish = finish
        self._waiting = anyio.CancelScope()
        self._stopping = False
        self._left = _MAX_AFTERMATH_BYTES
        self.ended = False  # whether the pipe did, rather than we
        self.done = anyio.Event()

    async def run(self) -> None:
        while chunk := await self._read():
            await self._output.write(self._feed(chunk))
        await self._output.write(self._finish())
        self.done.set()

    async def _read(self) -> bytes:
        """The next bytes as soon as there are any; none at the end, or when stopped and nothing is there."""
        while not (self._stopping and self._left <= 0):
            try:
                chunk = os.read(self._source, _CHUNK)
            except BlockingIOError:
                if self._stopping:
                    return b""
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._source)
                continue
            self.ended = not chunk
            self._left -= len(chunk) if self._stopping else 0
            return chunk
        return b""

    def stop(self) -> None:
        """Read what is in the pipe now, and no more."""
        self._stopping = True
        self._waiting.cancel()


def _tool_name(program: str) -> str:
    """A program's file name, as far as an entry can have it: a file's name may be any bytes."""
    base = program.rpartition("/")[2]
    return "".join(filter(str.isprintable, base))[:_MAX_TOOL_CHARS] or "command"


def _start(
    command: Sequence[str], environment: Mapping[str, str] | None, span: Span
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=environment
        )
    except OSError as problem:
        code = NOT_FOUND if isinstance(problem, FileNotFoundError) else NOT_RUN
        span.note(exit_code=code)
        text = "command not found" if code == NOT_FOUND else (problem.strerror or str(problem))
        raise CommandFailedError(f"{command[0]}: {text}", code, started=False) from None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody who shares it has made it so
            select.select([], [descriptor], [])


def _is_foreground() -> bool:
    """Whether Ctrl-C on our terminal reaches the command without us."""
    for descriptor in range(3):
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:  # no terminal, or not ours
            continue
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
