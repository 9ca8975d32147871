"""`streamjournal run`: output and exit code are the command's, and the journal has what happened."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streamjournal import Journal
from streamjournal.agents.command import without_secrets
from streamjournal.agents.markers import BEGIN, END
from streamjournal.core.entry import Entry
from tests.cli.conftest import Command
from tests.e2e.commands import STREAMJOURNAL, until

SCRIPT = """
import sys, os
sys.stdout.buffer.write(bytes(range(256)) * 500)
sys.stdout.flush()
sys.stderr.buffer.write(b"\\xff\\x00err")
"""


def entries(session: str = "s") -> list[Entry]:
    with Journal() as journal:
        return journal.read(session).all()


def events(session: str = "s") -> list[str]:
    return [entry.event_type for entry in entries(session)]


def block(**entry: Any) -> str:
    return f"{BEGIN}\n{json.dumps(entry)}\n{END}\n"


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own, for what concerns signals and pipes."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([STREAMJOURNAL, "run", "--session", "s", *arguments], **options)


def read_terminal(terminal: int) -> bytes:
    """The next bytes that a terminal shows; none when nobody has it any more."""
    try:
        return os.read(terminal, 1000)
    except OSError:  # how Linux says that
        return b""


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


def test_output_and_exit_code_are_the_commands(command: Command) -> None:
    """Entries are taken out of stdout; start, entries and end are in the journal, in one span."""
    printed = f"a\n{block(event_type='DATA_LOADED', details={'rows': 3})}b\n"
    outcome = command(
        "run",
        "--session",
        "s",
        "--tool",
        "job",
        *python(f"import sys; print({printed!r}, end=''); sys.exit(3)"),
    )
    assert (outcome.code, outcome.out, outcome.err) == (3, "a\nb\n", "")
    start, loaded, end = entries()
    assert [one.event_type for one in (start, loaded, end)] == ["TOOL_START", "DATA_LOADED", "TOOL_ERROR"]
    assert start.details["arguments"]["command"][0] == sys.executable
    assert (loaded.source, loaded.details, loaded.tool_name) == ("sandbox", {"rows": 3}, "job")
    assert start.span_id == loaded.span_id == end.span_id
    assert (end.details["exit_code"], end.details["entries"]) == (3, 1)
    assert end.details["duration_ms"] > 0
    assert end.details["error"]["message"] == "exit code 3"


@pytest.mark.parametrize("option", [(), ("--session", "")])
def test_a_session_of_its_own_begins_and_ends(command: Command, option: tuple[str, ...]) -> None:
    """Without --session, or with an empty one, stderr says which one it is; it ends as the command did."""
    outcome = command("run", *option, "sh", "-c", "exit 1")
    session = outcome.err.strip().removeprefix("session ")
    assert outcome.code == 1
    assert events(session) == ["SESSION_START", "TOOL_START", "TOOL_ERROR", "SESSION_END"]
    assert entries(session)[-1].details["status"] == "error"
    assert entries(session)[1].tool_name == "sh"


def test_the_command_knows_its_session(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """STREAMJOURNAL_SESSION: a command that emits by itself, or a `run` inside it, is in the same one."""
    outcome = command("run", "--session", "s", "sh", "-c", "echo $STREAMJOURNAL_SESSION")
    assert outcome.out == "s\n"
    monkeypatch.setenv("STREAMJOURNAL_SESSION", "outer")
    assert command("run", "true") == (0, "", "")
    assert events("outer") == ["TOOL_START", "TOOL_END"]


def test_output_passes_byte_for_byte() -> None:
    """Binary output of any length, on both streams."""
    process = started(*python(SCRIPT))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, bytes(range(256)) * 500, b"\xff\x00err")


def test_markers_on_stderr_are_ordinary_output(command: Command) -> None:
    """A traceback shows source code, which may hold markers."""
    text = block(event_type="A")
    outcome = command("run", "--session", "s", *python(f"import sys; sys.stderr.write({text!r})"))
    assert outcome.err == text
    assert events() == ["TOOL_START", "TOOL_END"]


def test_malformed_blocks_are_in_the_output_and_reported(command: Command) -> None:
    """The report belongs to the command's span, and comes before its end."""
    outcome = command("run", "--session", "s", "printf", f"{BEGIN}\noops\n{END}\n{BEGIN}")
    assert outcome.out == f"{BEGIN}\noops\n{END}\n{BEGIN}"
    start, report, end = entries()
    assert (report.event_type, report.details["malformed"]) == ("SANDBOX_MALFORMED", 2)
    assert (start.span_id, end.event_type) == (report.span_id, "TOOL_END")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [("no-such-command", 127, "command not found"), ("./folder", 126, "Permission denied")],
)
def test_a_command_that_cannot_be_started(
    command: Command, name: str, code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell's exit codes, one clear line, and an error in the journal."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    outcome = command("run", "--session", "s", name)
    assert outcome.code == code
    assert outcome.err == f"streamjournal: {name}: {text}\n"
    assert events() == ["TOOL_START", "TOOL_ERROR"]
    assert entries()[-1].details["exit_code"] == code


def test_options_after_the_command_are_its_own(command: Command) -> None:
    """With or without the two dashes; a second pair of them is the command's."""
    assert command("run", "--session", "s", "echo", "--tool", "x", "--", "-h").out == "--tool x -- -h\n"
    assert command("run", "--session", "s", "--", "echo", "--", "-n").out == "-- -n\n"


def test_a_name_that_no_entry_can_have_is_refused_before_the_command_runs(
    command: Command, tmp_path: Path
) -> None:
    """Exit code 2, as everywhere; nothing was started."""
    file = tmp_path / "ran"
    for option in (["--session", "x" * 300], ["--session", "s", "--tool", "a\nb"]):
        assert command("run", *option, "touch", str(file)).code == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["curl", "--password=a", "-v"], ["curl", "--password=<redacted>", "-v"]),
        (["mysql", "--password", "a", "db"], ["mysql", "--password", "<redacted>", "db"]),
        (["env", "API_KEY=a=b", "x=1"], ["env", "API_KEY=<redacted>", "x=1"]),
        (["mysql", "--password", "-dash", "db"], ["mysql", "--password", "<redacted>", "db"]),
        (["a", "--token", "--password", "b", "c"], ["a", "--token", "<redacted>", "<redacted>", "c"]),
        (["curl", "-H", "X-Api-Key: abc123", "u"], ["curl", "-H", "X-Api-Key: <redacted>", "u"]),
        (["curl", "-H", "Authorization: Basic YTpi"], ["curl", "-H", "Authorization: <redacted>"]),
        (["curl", "-Hauthorization:a=b"], ["curl", "-Hauthorization:<redacted>"]),
        (["curl", "--header=Cookie: a=b"], ["curl", "--header=Cookie: <redacted>"]),
        (["curl", "-H", "Accept: text/plain"], ["curl", "-H", "Accept: text/plain"]),
        (["curl", "https://example.org/?a=b"], ["curl", "https://example.org/?a=b"]),
        (["--token"], ["--token"]),
        (["token", "a"], ["token", "a"]),
        (["--max-tokens", "5"], ["--max-tokens", "5"]),
    ],
)
def test_secrets_in_the_command_line_are_not_journaled(words: list[str], shown: list[str]) -> None:
    """By the options' names; what has a secret's form is taken out as everywhere."""
    assert without_secrets(words) == shown


def test_redaction_off_shows_the_command_line_as_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's decision."""
    monkeypatch.setenv("STREAMJOURNAL_REDACT", "false")
    command("run", "--session", "s", "true", "--password=a")
    assert entries()[0].details["arguments"]["command"] == ["true", "--password=a"]


@pytest.mark.chaos
def test_a_killed_command(command: Command) -> None:
    """128 + the signal's number, and its name in the journal."""
    assert command("run", "--session", "s", "sh", "-c", "kill -9 $$").code == 137
    end = entries()[-1]
    assert (end.details["signal"], end.details["exit_code"]) == ("SIGKILL", 137)
    assert end.details["error"]["message"] == "killed by SIGKILL"


@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_go_on_to_the_command(number: signal.Signals) -> None:
    """It ends in its own way, and what it printed meanwhile is journaled."""
    code = f"""
import signal, sys, time
def stop(*_):
    print({block(event_type="STOPPED")!r}, end="")
    sys.exit(7)
signal.signal({int(number)}, stop)
print("ready", flush=True)
time.sleep(60)
"""
    process = started(*python(code))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 7
    assert events() == ["TOOL_START", "STOPPED", "TOOL_ERROR"]
    assert entries()[-1].details["received"] == [number.name]


@pytest.mark.chaos
def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """`nohup streamjournal run …` outlives its terminal, and so does the command."""
    process = subprocess.Popen(
        [
            "nohup",
            STREAMJOURNAL,
            "run",
            "--session",
            "s",
            "sh",
            "-c",
            "kill -HUP $PPID; kill -HUP $$; echo on",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"on\n")


@pytest.mark.chaos
def test_a_reader_that_leaves_loses_no_entries() -> None:
    """`streamjournal run … | head -1`: the command goes on, and its entries and its end are journaled."""
    code = f"""
for n in range(3000):
    print("x" * 100)
print({block(event_type="LATE")!r})
"""
    process = started(*python(code))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0
    assert events() == ["TOOL_START", "LATE", "TOOL_END"]
    process.communicate()


@pytest.mark.chaos
def test_a_process_left_behind_does_not_keep_it_waiting() -> None:
    """The output of the command itself is whole; what the other prints later is not waited for."""
    before = time.monotonic()
    process = started("--", "sh", "-c", "sleep 60 & echo $!; seq 1 20000")
    out, _ = process.communicate(timeout=20)
    left_behind, *numbers = out.split()
    os.kill(int(left_behind), signal.SIGKILL)
    assert time.monotonic() - before < 15
    assert numbers == [str(n).encode() for n in range(1, 20001)]
    assert entries()[-1].details["output_held"] is True


@pytest.mark.chaos
def test_a_line_without_its_end_shows_at_once() -> None:
    """Progress is live, and so are entries: both are there while the command still runs."""
    code = f"""
import sys
print({block(event_type="LOADED")!r}, end="")
print("50 %", end="", flush=True)
sys.stdin.read()
"""
    process = started(*python(code), stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 100) == b"50 %"
    until(lambda: events() == ["TOOL_START", "LOADED"])
    assert process.poll() is None
    process.communicate(timeout=20)
    assert events()[-1] == "TOOL_END"


@pytest.mark.chaos
def test_a_full_disk_under_stdout_is_told_and_ends_nothing() -> None:
    """The output is lost, which the log says once; entries and exit code are not."""
    with Path("/dev/full").open("wb") as full:
        code = f"for n in range(9): print('x' * 9999, flush=True)\nprint({block(event_type='LATE')!r})"
        process = started(*python(code), stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err.count(b"dropped from here on") == 1
    assert events() == ["TOOL_START", "LATE", "TOOL_END"]


@pytest.mark.chaos
def test_a_closed_stdout_is_nobodys() -> None:
    """Its number may be another file's by then; nothing is written there."""
    line = f"exec {STREAMJOURNAL} run --session s echo lost >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert events() == ["TOOL_START", "TOOL_END"]


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child only execs
def test_ctrl_c_on_a_terminal_reaches_the_command_once() -> None:
    """The terminal sends it to both; forwarding it would make it two, and the second often kills."""
    code = """
import signal, sys, time
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
print("ready", flush=True)
deadline = time.monotonic() + 20
while not count and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.5)
print("interrupts", len(count))
"""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(STREAMJOURNAL, [STREAMJOURNAL, "run", "--session", "s", *python(code)])
    shown = b""
    try:
        while b"ready" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while chunk := read_terminal(terminal):
            shown += chunk
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert b"interrupts 1" in shown, shown
    assert os.waitstatus_to_exitcode(status) == 0
    assert entries()[-1].details["received"] == ["SIGINT"]


def test_a_program_of_any_name_is_journaled(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's name may be no text; the tool's name is what is left of it, and the entries are kept."""
    program = tmp_path / os.fsdecode(b"a\xff\n" + b"b" * 100)
    program.write_text(f"#!/bin/sh\nprintf '{BEGIN}{{}}{END}'\n")
    program.chmod(0o755)
    assert command("run", "--session", "s", str(program)).code == 0
    assert events() == ["TOOL_START", "CODE_INTERPRETER_EVENT", "TOOL_END"]
    assert {one.tool_name for one in entries()} == {"a" + "b" * 63}


def test_entries_that_the_stream_does_not_take_are_told(
    command: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The command's own exit code stays; stderr says where the entries are."""
    for name, value in {
        "STREAMJOURNAL_STREAM": "s",
        "STREAMJOURNAL_BUCKET": "b",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("streamjournal.cli.run.CLOSE_SECONDS", 0.2)
    outcome = command("run", "--session", "s", "sh", "-c", "echo out; exit 5")
    assert (outcome.code, outcome.out) == (5, "out\n")
    assert "the stream did not take 2 entries in time; they are in the spool" in outcome.err
