"""The processes of a round: started, replaced, killed, stopped and continued; what each left behind.

Every process is tied to the harness (`programs.tied`) and in a process group of its own, so Ctrl-C
reaches the harness alone. Its stderr goes to a file of the round's folder.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.backends import OURS
from tests.emulators.processes import ROOT


@dataclass
class Role:
    """A place in the cast; when its process ends, another one takes it.

    Args:
        kind: emitter, worker, tail or reader.
        command: the arguments after `python -m`, of the n-th process in this place.
        sign: the n-th process's file that has something in it once the process works; None: its stderr.
    """

    name: str
    kind: str
    command: Callable[[int], list[str]]
    sign: Callable[[int], Path] | None = None
    number: int = 0
    process: Process | None = None
    again_at: float | None = None


@dataclass
class Process:
    """One process, dead or alive.

    Args:
        sign: a file that it writes something into once it works.
        sent: signals that should end it.
    """

    name: str
    kind: str
    popen: subprocess.Popen[bytes]
    stderr: Path
    sign: Path
    stopped_until: float | None = None
    sent: list[signal.Signals] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it runs or is stopped."""
        return self.popen.poll() is None

    @property
    def works(self) -> bool:
        """Whether it has got beyond its start, which takes seconds on a busy machine."""
        return self.sign.exists() and self.sign.stat().st_size > 0

    def send(self, number: signal.Signals) -> None:
        """A signal; the ending ones are noted, since they explain the end."""
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.sent.append(number)
        self.popen.send_signal(number)


class Cast:
    """All processes of a round.

    Args:
        environment: what they get beside the harness's own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            **environment,
        }
        self.roles: list[Role] = []
        self.all: list[Process] = []

    def add(self, role: Role) -> None:
        """Start a place's first process."""
        self.roles.append(role)
        self._start(role)

    def alive(self, *kinds: str) -> list[Process]:
        """The living processes of these kinds, stopped ones too."""
        return [r.process for r in self.roles if r.process and r.process.alive and r.kind in kinds]

    def tend(self, rng: random.Random) -> None:
        """Continue what was stopped long enough, and replace what has ended after a while."""
        now = time.monotonic()
        for role in self.roles:
            process = role.process
            if process is not None and process.alive:
                if process.stopped_until is not None and now >= process.stopped_until:
                    self.resume(process)
            elif role.again_at is None:
                role.again_at = now + rng.uniform(0.0, 0.8)
            elif now >= role.again_at:
                self._start(role)

    def resume(self, process: Process) -> None:
        """SIGCONT."""
        process.stopped_until = None
        process.send(signal.SIGCONT)

    def run(self, *command: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
        """A command of `python -m`, to its end.

        Raises:
            subprocess.TimeoutExpired: it was killed after that time.
        """
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            process_group=0,
        )

    def end(self, kind: str, *, within: float) -> list[str]:
        """Ask all of a kind to end by SIGTERM, wait, and give those that had to be killed; nobody follows."""
        processes = self.alive(kind)
        self.roles = [role for role in self.roles if role.kind != kind]
        for process in processes:
            self.resume(process)
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + within
        late = []
        for process in processes:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(process.name)
                self.kill(process)
        return late

    def kill(self, process: Process) -> None:
        """SIGKILL, and wait for the end."""
        process.send(signal.SIGKILL)
        process.popen.wait()

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for process in self.all:
            if process.alive:
                self.kill(process)
            if process.popen.stdin is not None:
                process.popen.stdin.close()

    def _start(self, role: Role) -> None:
        role.number += 1
        role.again_at = None
        name = f"{role.name}.{role.number:03}"
        stderr = self._folder / "stderr" / f"{name}.txt"
        with stderr.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", *role.command(role.number)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                process_group=0,
            )
        sign = stderr if role.sign is None else role.sign(role.number)
        role.process = Process(name, role.kind, popen, stderr, sign)
        self.all.append(role.process)
