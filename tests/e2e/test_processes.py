"""Commands that run on: they see what other processes write, and end cleanly when told to."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.e2e.commands import STREAMJOURNAL, done_well, objects, run, running, until
from tests.emulators.fixtures import unique_name

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The embedded journal's folder."""
    return tmp_path / "home"


def test_a_tail_of_all_sessions_sees_what_another_process_writes_within_a_second() -> None:
    """Whatever the session, and before any worker has run; Ctrl-C then ends the tail with exit code 0."""
    done_well("write", "before", "NOTE")
    with running("tail", "-o", "json", "-n", "1") as tail:
        assert msgspec.json.decode(tail.line())["session_id"] == "before"
        from streamjournal import Journal

        with Journal() as journal:
            for number in range(3):
                started = time.monotonic()
                receipt = journal.emit("NOTE", session_id=f"s{number}", details={"n": number})
                entry = msgspec.json.decode(tail.line())
                assert time.monotonic() - started < 1.0
                assert (entry["id"], entry["session_id"]) == (receipt.id, f"s{number}")
        assert tail.end(signal.SIGINT) == 0
        assert tail.stderr == b""


def test_ctrl_c_ends_a_tail_that_waits_and_it_still_gives_its_cursor() -> None:
    """The cursor on stderr is where the next tail goes on."""
    done_well("write", "s", "FIRST")
    with running("tail", "s", "-o", "json", "--show-cursor") as tail:
        tail.line()
        assert tail.end(signal.SIGINT) == 0
    cursor = tail.stderr.decode().strip().removeprefix("cursor: ")
    done_well("write", "s", "SECOND")
    went_on = objects(done_well("tail", "s", "--no-follow", "-o", "json", "--after-cursor", cursor))
    assert [one["event_type"] for one in went_on] == ["SECOND"]


def test_up_says_what_it_does_and_ctrl_c_ends_it(home: Path) -> None:
    """One line with the counts, again whenever they change; what was written is in the journal."""
    done_well("write", "s", "NOTE")
    with running("up") as up:
        assert str(home) in up.error_with("journals")
        until((home / "journals" / "s" / "journal.jsonl").exists)
        assert up.end(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_flushes_first(
    number: signal.Signals, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 within ten seconds, and what it had read is in the journal, though not due yet."""
    monkeypatch.setenv("STREAMJOURNAL_FLUSH_INTERVAL", "600")
    with running("worker") as worker:
        worker.error_with("lease_taken")
        done_well("write", "s", "NOTE")
        time.sleep(0.5)  # it reads every 20 ms; nothing outside shows what it holds
        assert worker.end(number) == 0
    assert b'"NOTE"' in (home / "journals" / "s" / "journal.jsonl").read_bytes()


def test_the_deployed_worker_stops_on_sigterm(home: Path) -> None:
    """consumers/journal_worker is the same worker as a program of its own, with JSON logs."""
    done_well("write", "s", "NOTE")
    folder = Path(__file__).parents[2]
    with running(
        "-m", "consumers.journal_worker", program=sys.executable, environment={"PYTHONPATH": str(folder)}
    ) as worker:
        line = msgspec.json.decode(worker.error_with("worker_started"))
        assert (line["logger"], line["level"], line["event"]) == (
            "streamjournal.ingest",
            "info",
            "worker_started",
        )
        until((home / "journals" / "s" / "journal.jsonl").exists)
        assert worker.end(signal.SIGTERM) == 0


def test_a_reader_that_goes_away_ends_a_read_silently() -> None:
    """`streamjournal read … | head -1` says nothing about a broken pipe."""
    lines = b"".join(
        b'{"session_id":"s","event_type":"N","details":{"n":%d,"x":"%s"}}\n' % (n, b"x" * 500)
        for n in range(2000)
    )
    done_well("write", "--jsonl", "-", stdin=lines)
    piped = subprocess.run(
        ["bash", "-c", f"{STREAMJOURNAL} read s -o json | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert piped.stdout.count(b"\n") == 1
    assert piped.stderr == b""
    assert piped.returncode == 0


def test_a_reader_that_goes_away_ends_a_tail_silently() -> None:
    """`streamjournal tail … | head -1` ends with the next entry that nobody reads."""
    done_well("write", "s", "ONE")
    command = f"{STREAMJOURNAL} tail s -o json | head -1; echo ended with ${{PIPESTATUS[0]}}"
    with running("-c", command, program="bash") as piped:
        assert b'"ONE"' in piped.line()
        done_well("write", "s", "TWO")
        done_well("write", "s", "THREE")
        assert piped.line() == b"ended with 0\n"
        assert piped.stderr == b""


def test_kill_9_of_an_emitter_loses_nothing_that_it_accepted() -> None:
    """Its entries arrive with `recover`, in order, under their old ids, once."""
    program = (
        "import os, signal, streamjournal\n"
        "journal = streamjournal.Journal(linger=60)\n"
        "for n in range(500): journal.emit('N', session_id='s', details={'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert b"500 entries from 1 spool" in done_well("recover")
    assert b"0 entries" in done_well("recover")
    found = objects(done_well("read", "s", "-o", "json"))
    assert [one["details"]["n"] for one in found] == list(range(500))
    assert [one["id"].split("-")[1] for one in found] == [str(n) for n in range(1, 501)]


def test_a_spool_of_a_newer_format_is_told_of_and_left_as_it_is(home: Path) -> None:
    """Exit code 3, since its entries are not delivered; another spool is recovered all the same."""
    program = (
        "import os, streamjournal\n"
        "journal = streamjournal.Journal(linger=60)\n"
        "journal.emit('N', session_id='s')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    newer, _ = sorted(p for p in (home / "spool").iterdir() if p.is_dir())
    for segment in newer.glob("*.seg"):
        content = bytearray(segment.read_bytes())
        content[8] += 1  # the version stands after the eight bytes of the magic number
        segment.write_bytes(content)
    done = run("recover")
    assert done.returncode == 3
    assert b"recovered 1 entry from 1 spool" in done.stdout
    assert str(newer).encode() in done.stderr
    assert b"newer" in done.stderr
    assert newer.is_dir()


def test_two_workers_on_one_home_write_each_entry_once(home: Path) -> None:
    """One of them holds the shards; when it stops, the other goes on."""
    with running("worker") as first:
        first.error_with("lease_taken")
        with running("worker") as second:
            second.error_with("worker_started")
            done_well("write", "s", "ONE")
            until((home / "journals" / "s" / "journal.jsonl").exists)
            assert first.end(signal.SIGTERM) == 0
            second.error_with("lease_taken")
            done_well("write", "s", "TWO")
            until(lambda: b'"TWO"' in (home / "journals" / "s" / "journal.jsonl").read_bytes())
            assert second.end(signal.SIGTERM) == 0
    lines = (home / "journals" / "s" / "journal.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["event_type"] for line in lines] == ["ONE", "TWO"]


@pytest.mark.timeout(120)
def test_the_demo_shows_the_tail_the_path_and_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool fails and is retried, the sandbox's entries are in it, and the journal is where it says."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = done_well("demo").decode()
    for text in ("SESSION_START", "TOOL_ERROR", "sandbox ▸ STATISTICS", "SESSION_END", "time per tool"):
        assert text in out
    path = next(line for line in out.splitlines() if line.endswith("journal.jsonl"))
    events = [msgspec.json.decode(line)["event_type"] for line in Path(path).read_bytes().splitlines()]
    assert events.count("TOOL_ERROR") == 1
    assert events.count("TOOL_START") == 4
    assert "\x1b" not in out
    assert '"flushed_to_the_journal_yet":false' in Path(path).read_text()


@pytest.mark.aws
def test_the_demo_runs_over_the_aws_apis(aws_emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over Kinesis, S3 and DynamoDB, in resources that it makes."""
    bucket = unique_name("bucket")
    monkeypatch.setenv("STREAMJOURNAL_STREAM", unique_name("stream"))
    monkeypatch.setenv("STREAMJOURNAL_BUCKET", bucket)
    out = done_well("demo", "--aws").decode()
    assert f"s3://{bucket}/journals/demo-" in out
    assert "time per tool" in out


def test_the_console_script_is_installed() -> None:
    """Every test here runs it."""
    assert shutil.which(STREAMJOURNAL)
    assert done_well("--version").startswith(b"streamjournal ")
