"""A short chaos on each backend; `scripts/chaos --minutes M` plays long ones."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos import backends
from tests.chaos.cast import Cast, Role
from tests.chaos.run import Report, play
from tests.emulators.processes import ROOT, missing_for_kinesis_local

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]  # of a busy machine
SECONDS = 6.0


def play_once(name: str, folder: Path) -> Report:
    """A round with a seed of its own, which the folder's name and a failure show."""
    seed = str(random.SystemRandom().randrange(10**6))
    with backends.servers(name) as reach:
        report = play(name, reach, folder / f"seed-{seed}", SECONDS, seed, pause=0.5)
    assert report.violations == [], f"seed {seed}, {folder}"
    assert report.figures["kill"] > 0
    assert report.figures["journals"] >= report.figures["accepted"] > 0
    return report


def test_embedded(tmp_path: Path) -> None:
    """Processes killed and stopped on one home: each accepted entry is in its journal once, in order."""
    play_once("embedded", tmp_path)


@pytest.mark.aws
def test_emulator(tmp_path: Path) -> None:
    """The same over kinesis-local, with reshards, and moto's S3 and DynamoDB."""
    if missing := missing_for_kinesis_local():
        pytest.skip(f"kinesis-local needs {missing}")
    play_once("emulator", tmp_path)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_no_time_is_a_usage_error(minutes: str) -> None:
    """A duration of nothing, or nonsense, is told of, and nothing starts."""
    done = command("--minutes", minutes)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--minutes" in done.stderr


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """`--keep` writes only where nothing is, and where it can."""
    (tmp_path / "mine").touch()
    done = command("--minutes", "1", "--keep", str(tmp_path))
    assert done.returncode == 2
    assert b"is not empty" in done.stderr
    done = command("--minutes", "1", "--keep", str(tmp_path / "mine"))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_without_node_it_says_what_to_do() -> None:
    """kinesis-local needs node: a message, not a traceback."""
    done = command("--minutes", "1", "--backend", "emulator", environment={"PATH": "/nonexistent"})
    assert done.returncode == 3
    assert done.stderr.startswith(b"chaos: kinesis-local needs node and npm")


def test_interrupt_checks_all_the_same(tmp_path: Path) -> None:
    """Ctrl-C ends the faults and every process, and what there is by then is checked."""
    arguments = ["--minutes", "5", "--backend", "embedded", "--keep", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    reads = tmp_path / "run" / "embedded-1" / "reads"
    deadline = time.monotonic() + 20
    while not any(reads.glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert out.endswith(b"no violation; interrupted\n"), err.decode()
    assert [line.split(b",")[0] for line in out.splitlines()] == [out.split(b",")[0]], "one line"


def test_no_process_outlives_the_harness(tmp_path: Path) -> None:
    """Even if it is killed: its processes end with their standard input, stopped ones too."""
    with subprocess.Popen(
        [sys.executable, "-c", _HARNESS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as harness:
        assert harness.stdout is not None
        pids = [int(pid) for pid in harness.stdout.readline().split()]
        harness.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} go on"
        time.sleep(0.05)


_HARNESS = """
import signal, sys, time
from pathlib import Path
from tests.chaos.cast import Cast, Role
folder = Path(sys.argv[1])
(folder / "stderr").mkdir()
cast = Cast(folder, {"STREAMJOURNAL_HOME": str(folder / "home")})
for name in ("worker-0", "worker-1"):
    cast.add(Role(name, "worker", lambda _: ["tests.chaos.programs.tied", "streamjournal", "worker"]))
while not all(b"worker_started" in p.stderr.read_bytes() for p in cast.all):
    time.sleep(0.05)
cast.all[0].send(signal.SIGSTOP)
while Path(f"/proc/{cast.all[0].popen.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
    time.sleep(0.01)
print(*[process.popen.pid for process in cast.all], flush=True)
time.sleep(60)
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """A place in the cast is taken again, by a process with the next number."""
    (tmp_path / "stderr").mkdir()
    cast = Cast(tmp_path, {})
    try:
        cast.add(
            Role(
                "a",
                "worker",
                lambda n: ["tests.chaos.programs.tied", "timeit", f"import time; time.sleep({n})"],
            )
        )
        cast.kill(cast.all[0])
        deadline = time.monotonic() + 10
        while len(cast.all) < 2 and time.monotonic() < deadline:
            cast.tend(random.Random(0))
            time.sleep(0.01)
        assert [process.name for process in cast.all] == ["a.001", "a.002"]
    finally:
        cast.kill_all()


def command(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """scripts/chaos, without the script's preparations."""
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
