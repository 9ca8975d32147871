"""Nothing configured, nothing there, nobody answers: one clear line, an exit code, and no entry lost."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.commands import done_well, objects, run, running
from tests.emulators.fixtures import unique_name

pytestmark = [pytest.mark.e2e, pytest.mark.aws]


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:  # bound, not listening: nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(params=["no credentials", "no answer", "no bucket", "no stream"])
def trouble(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is wrong in this test, and the words that say what to do about it, by command."""
    monkeypatch.setenv("STREAMJOURNAL_STREAM", unique_name("stream"))
    monkeypatch.setenv("STREAMJOURNAL_BUCKET", unique_name("bucket"))
    monkeypatch.setenv("STREAMJOURNAL_LEASE_TABLE", unique_name("leases"))
    if request.param == "no credentials":
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        return {"stream": "AWS_PROFILE", "store": "AWS_PROFILE"}
    if request.param == "no answer":
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("nowhere"))
        return {"stream": "127.0.0.1", "store": "127.0.0.1"}
    request.getfixturevalue("aws_emulator")
    if request.param == "no stream":
        monkeypatch.setenv("STREAMJOURNAL_BUCKET", request.getfixturevalue("aws_bucket")())
        return {"stream": "`streamjournal init`", "store": "`streamjournal init`"}
    return {"stream": "`streamjournal init`", "store": "STREAMJOURNAL_BUCKET"}


def test_commands_end_with_one_clear_line(trouble: dict[str, str]) -> None:
    """Exit code 3 within seconds, what to do on one line of stderr, nothing on stdout."""
    for arguments in (("read", "s"), ("sessions",), ("tail", "s", "--no-follow")):
        done = run(*arguments, timeout=30)
        assert (done.returncode, done.stdout) == (3, b""), arguments
        assert trouble["store"] in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1, done.stderr.decode()


def test_a_written_entry_stays_in_the_spool(trouble: dict[str, str]) -> None:
    """Exit code 3, the cause and the entry's whereabouts on one line; one by one and in bulk."""
    line = b'{"session_id":"s","event_type":"A"}\n'
    for arguments in (("write", "s", "A", "--timeout", "2"), ("write", "--jsonl", "-", "--timeout", "2")):
        done = run(*arguments, stdin=line, timeout=30)
        assert done.returncode == 3
        assert trouble["stream"] in done.stderr.decode()
        assert "1 entry is in the spool only: `streamjournal recover` sends it" in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1, done.stderr.decode()
    assert done.stdout == b"accepted 1, refused 0\n"


def test_a_worker_says_so_and_goes_on_trying(trouble: dict[str, str]) -> None:
    """Until it is told to stop, which is exit code 0."""
    with running("worker") as worker:
        for _ in range(2):
            assert trouble["store"] in worker.error_with("not_reachable")
        assert worker.end(signal.SIGTERM) == 0
        assert b"Unclosed" not in worker.stderr


def test_a_drain_gives_up(trouble: dict[str, str]) -> None:
    """Exit code 3, since somebody waits for it; the last line says why."""
    done = run("worker", "--drain", timeout=40)
    assert done.returncode == 3
    assert trouble["store"] in done.stderr.decode().splitlines()[-1]


def test_recover_sends_what_was_written_before_the_stream_was_there(
    aws_emulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the ids it had; `init` makes everything, and the second time changes nothing."""
    for name in ("stream", "bucket"):
        monkeypatch.setenv(f"STREAMJOURNAL_{name.upper()}", unique_name(name))
    monkeypatch.setenv("STREAMJOURNAL_LEASE_TABLE", unique_name("leases"))
    assert run("write", "s", "A").returncode == 3
    assert b"would create" in done_well("init", "--dry-run")
    assert run("write", "s", "B").returncode == 3  # a dry run has made nothing
    made = done_well("init")
    assert b"created" in made
    assert b"export STREAMJOURNAL_STREAM=" in made
    assert b"created" not in done_well("init")
    assert done_well("recover") == b"recovered 2 entries from 2 spools\n"
    found = objects(done_well("read", "s", "-o", "json"))
    assert sorted(one["event_type"] for one in found) == ["A", "B"]
    assert all(one["id"].endswith("-1") for one in found)


def test_a_spool_that_is_off_says_that_the_entry_is_lost(
    nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No promise that `recover` could not keep."""
    for name, value in {
        "STREAMJOURNAL_SPOOL": "off",
        "STREAMJOURNAL_STREAM": "x",
        "STREAMJOURNAL_BUCKET": "y",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": nowhere,
    }.items():
        monkeypatch.setenv(name, value)
    done = run("write", "s", "A", "--timeout", "1")
    assert done.returncode == 3
    assert b"lost" in done.stderr
    assert b"recover" not in done.stderr


def test_a_stream_without_a_bucket_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every command alike, before anything is asked of AWS."""
    monkeypatch.setenv("STREAMJOURNAL_STREAM", "agents")
    for arguments in (("read", "s"), ("write", "s", "A"), ("sessions",), ("worker",), ("init",)):
        done = run(*arguments)
        assert done.returncode == 3, arguments
        assert b"STREAMJOURNAL_BUCKET" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_tail_says_at_once_that_the_stream_does_not_answer(
    aws_emulator: str, aws_bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on waiting, and does not leave the reader to guess why nothing comes."""
    monkeypatch.setenv("STREAMJOURNAL_STREAM", unique_name("stream"))
    monkeypatch.setenv("STREAMJOURNAL_BUCKET", aws_bucket())
    with running("tail") as tail:
        assert "`streamjournal init`" in tail.error_with("incomplete (stream)")
        assert tail.end(signal.SIGINT) == 0
