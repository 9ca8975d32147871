"""Runs the installed command, as a user's shell would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

import msgspec

STREAMJOURNAL = str(Path(sys.executable).parent / "streamjournal")
PATIENCE = 20.0  # seconds that a test waits for what must happen much sooner


def run(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """A command, to its end; its traceback, if there is one, fails the test."""
    done = subprocess.run(
        [STREAMJOURNAL, *arguments],
        input=stdin,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def done_well(*arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
    """The stdout of a command that must work."""
    done = run(*arguments, stdin=stdin, environment=environment)
    assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode())
    return done.stdout


def objects(stdout: bytes) -> list[dict]:
    """The JSON objects on stdout, one a line; anything else on it fails the test."""
    found = [msgspec.json.decode(line) for line in stdout.splitlines()]
    assert all(isinstance(one, dict) for one in found)
    return found


class Running:
    """A command that goes on: its lines as they come, and its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._out: Queue[bytes | None] = Queue()
        self._err: Queue[bytes | None] = Queue()
        self.stderr = b""
        for pipe, lines in ((process.stdout, self._out), (process.stderr, self._err)):
            threading.Thread(target=_pump, args=(pipe, lines), daemon=True).start()

    def line(self) -> bytes:
        """The next line on stdout."""
        found = self._out.get(timeout=PATIENCE)
        assert found is not None, f"stdout ended; stderr: {self.stderr.decode()}"
        return found

    def error_with(self, text: str) -> str:
        """The first line on stderr from here on that holds `text`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                line = self._err.get(timeout=0.1)
            except Empty:
                continue
            assert line is not None, f"stderr ended without {text!r}: {self.stderr.decode()}"
            self.stderr += line
            if text.encode() in line:
                return line.decode()
        raise AssertionError(f"no {text!r} on stderr: {self.stderr.decode()}")

    def end(self, number: signal.Signals, *, within: float = 10.0) -> int:
        """Send a signal, and give the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(within)
        while (line := self._err.get(timeout=PATIENCE)) is not None:
            self.stderr += line
        assert b"Traceback" not in self.stderr, self.stderr.decode()
        return code


@contextmanager
def running(
    *arguments: str, environment: Mapping[str, str] | None = None, program: str = STREAMJOURNAL
) -> Iterator[Running]:
    """A command that is killed with the test, if it has not ended by then."""
    process = subprocess.Popen(
        [program, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what must become true soon."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def _pump(pipe, lines: Queue[bytes | None]) -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(None)
