"""Files with real processes: killed, stopped, and two at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamjournal.core.errors import CommitConflictError, StoreUnavailableError
from streamjournal.store.files import FilesStore
from tests.store.rigs import FilesRig, begin, read, some_meta

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def rig(tmp_path: Path) -> FilesRig:
    """A store in a folder of its own."""
    return FilesRig(tmp_path / "home")


@pytest.fixture
def start(rig: FilesRig) -> Iterator[Start]:
    """Start a writer process on the rig's home; it is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(name: str, count: int, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.store.writer_process"]
        process = subprocess.Popen(
            [*command, str(rig.home), "s", name, str(count), *more],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


async def test_kill_9_in_mid_append(rig: FilesRig, start: Start) -> None:
    """Killed at any instant: what was reported as committed is there, once, and nothing is torn."""
    reported: dict[str, int] = {}
    for attempt in range(6):
        name = f"w{attempt}"
        process = start(name, 10_000)
        assert process.stdout is not None
        for _ in range(3 + 7 * attempt):
            process.stdout.readline()
        process.kill()  # it writes all the time, so mostly in mid-append
        said = process.stdout.read().split()
        process.wait()
        reported[name] = int(said[-1]) if said else 3 + 7 * attempt

        lines = await _lines(rig.store)
        for writer, n in reported.items():
            numbers = [line["n"] for line in lines if line["by"] == writer]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) - n in (0, 1)  # one may be committed and not reported
    head = await rig.store.head("s")
    assert head is not None
    assert head.meta is not None
    assert head.meta.summary.entries == len(lines)
    await rig.store.append("s", head, b'{"by":"end","n":1}\n', some_meta(1, entries=len(lines) + 1))
    assert rig.raw("s") == await read(rig.store, "s")  # whatever the last one left is cut off


async def test_a_stopped_writer_keeps_others_out(rig: FilesRig, start: Start) -> None:
    """Stopped in mid-append it holds the lock: others time out, and nothing is written over when it
    wakes up.
    """
    first = await begin(rig.store, "s", b'{"by":"test","n":1}\n')
    process = start("stopped", 1, "--stop-at", "1")
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    process.send_signal(signal.SIGSTOP)

    impatient = FilesStore(rig.home, lock_timeout=0.05)
    with pytest.raises(StoreUnavailableError, match="lock"):
        await impatient.append("s", first, b'{"by":"test","n":2}\n', some_meta(2))
    assert await rig.store.head("s") == first
    assert await read(rig.store, "s") == b'{"by":"test","n":1}\n'

    process.send_signal(signal.SIGCONT)
    process.communicate("go on\n", timeout=30)
    with pytest.raises(CommitConflictError):
        await rig.store.append("s", first, b'{"by":"test","n":2}\n', some_meta(2))
    assert [line["by"] for line in await _lines(rig.store)] == ["test", "stopped"]


async def test_a_stopped_writer_that_is_killed(rig: FilesRig, start: Start) -> None:
    """The lock of a dead process is free, and its lines, never committed, are cut off."""
    first = await begin(rig.store, "s", b'{"by":"test","n":1}\n')
    process = start("stopped", 1, "--stop-at", "1")
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    assert len(rig.raw("s")) > first.size
    process.kill()
    process.wait()
    await rig.store.append("s", first, b'{"by":"test","n":2}\n', some_meta(2))
    assert rig.raw("s") == b'{"by":"test","n":1}\n{"by":"test","n":2}\n'


async def test_two_processes_lose_nothing(rig: FilesRig, start: Start) -> None:
    """Both append to the same journal: every line is there once, in each one's own order."""
    writers = [start(name, 150) for name in ("a", "b")]
    for process in writers:
        said, _ = process.communicate(timeout=60)
        assert said.split() == [str(n) for n in range(1, 151)]
    lines = await _lines(rig.store)
    for name in ("a", "b"):
        assert [line["n"] for line in lines if line["by"] == name] == list(range(1, 151))
    head = await rig.store.head("s")
    assert head is not None
    assert head.meta is not None
    assert head.meta.summary.entries == len(lines) == 300


async def _lines(store: FilesStore) -> list[Any]:
    data = await read(store, "s")
    assert data is not None
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]
