"""Two workers as real processes on one home: SQLite and files, SIGKILL and SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from streamjournal import wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.settings import Settings, load
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.port import PutRecord
from tests.sim.rig import ids_in, line

WORKER = """
import signal, anyio
from streamjournal import wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.settings import load
from streamjournal.ingest.service import WorkerService

async def main():
    settings = load()
    stream = wiring.open_stream(settings, SYSTEM)
    store = wiring.open_store(settings, SYSTEM)
    service = WorkerService(stream, store, wiring.open_leases(settings), settings, SYSTEM)
    workers = []
    async with anyio.create_task_group() as tasks:
        async def stop():
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    workers[0].stop()
        tasks.start_soon(stop)
        await service.run(on_start=workers.append)
        tasks.cancel_scope.cancel()

anyio.run(main)
"""
SESSIONS = ("a", "b", "c", "d", "e", "f")


class Home:
    """An embedded home, and the worker processes on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: Settings = load(home=str(path), flush_interval=0.05, lease_seconds=1.0, shards=3)
        self.environment = {
            **os.environ,
            "STREAMJOURNAL_HOME": str(path),
            "STREAMJOURNAL_FLUSH_INTERVAL": "0.05",
            "STREAMJOURNAL_LEASE_SECONDS": "1.0",
            "STREAMJOURNAL_SHARDS": "3",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.count = 0

    def start(self) -> subprocess.Popen[bytes]:
        """A worker process."""
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def put(self, count: int) -> None:
        """So many records more for every session."""

        async def put_all() -> None:
            stream = wiring.open_stream(self.settings, SYSTEM)
            for _ in range(count):
                self.count += 1
                n = 2 * self.count - 1
                await stream.put([PutRecord(s, aggregate(s, [line(s, n), line(s, n + 1)])) for s in SESSIONS])
                await anyio.sleep(0.002)
            await stream.aclose()

        anyio.run(put_all)

    def numbers(self, session: str) -> list[int]:
        """What is in a session's journal."""
        journal = self.path / "journals" / session / "journal.jsonl"
        if not journal.exists():
            return []
        body = journal.read_bytes()
        return [int(name.rpartition("-")[2]) for name in ids_in(body[: body.rfind(b"\n") + 1])]

    def is_whole(self) -> bool:
        """Whether everything put so far is there."""
        return all(len(self.numbers(session)) >= 2 * self.count for session in SESSIONS)

    def check(self) -> None:
        """Each entry once, in order."""
        for session in SESSIONS:
            assert self.numbers(session) == list(range(1, 2 * self.count + 1))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose workers end with the test."""
    home = Home(tmp_path / "home")
    yield home
    for process in home.processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Look until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.chaos
def test_the_second_worker_takes_over_when_the_first_is_killed(home: Home) -> None:
    """Killed in the middle of its work, again and again: nothing is lost, doubled or reordered."""
    home.put(5)
    first = home.start()
    wait_until(home.is_whole)
    second = home.start()
    for _ in range(3):
        home.put(30)
        first.kill()
        first.wait()
        home.put(30)
        wait_until(home.is_whole)
        first, second = second, home.start()
    home.check()


@pytest.mark.chaos
def test_a_stopped_worker_hands_over_at_once(home: Home) -> None:
    """SIGTERM: exit 0, what it had read is flushed, and the successor waits for no lease to expire."""
    worker = home.start()
    home.put(20)
    wait_until(lambda: home.numbers("a") != [])
    home.put(20)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=10)
    assert (worker.returncode, errors) == (0, b"")
    for session in SESSIONS:  # what was put in its last milliseconds it may not have read
        assert home.numbers(session) == list(range(1, len(home.numbers(session)) + 1))
    home.start()
    wait_until(home.is_whole)
    home.check()


@pytest.mark.chaos
def test_a_paused_worker_that_wakes_up_changes_nothing(home: Home) -> None:
    """Stopped for longer than its lease while another works, and continued: a zombie doubles no entry."""
    first = home.start()
    home.put(10)
    wait_until(home.is_whole)
    home.put(10)
    first.send_signal(signal.SIGSTOP)
    home.put(10)
    home.start()
    # Stopped in the middle of an append it holds that journal's lock, and the other waits for it there.
    with suppress(AssertionError):
        wait_until(home.is_whole, seconds=8)
    first.send_signal(signal.SIGCONT)
    home.put(10)
    wait_until(home.is_whole)
    home.check()
