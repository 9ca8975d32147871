"""Every command's options, what it prints where, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.e2e.commands import done_well


def lines_of(*entries: dict) -> bytes:
    """Entries as a file."""
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.fixture
def session(command: Command) -> str:
    """A session with five entries of several kinds."""
    entries = [
        {
            "event_type": "TOOL_START",
            "tool_name": "load",
            "timestamp": "2026-01-01T10:00:00Z",
            "details": {"path": "x"},
        },
        {
            "event_type": "TOOL_END",
            "tool_name": "load",
            "timestamp": "2026-01-01T10:00:01Z",
            "details": {"rows": 7},
        },
        {
            "event_type": "TOOL_START",
            "tool_name": "plot",
            "timestamp": "2026-01-01T10:00:02Z",
            "level": "DEBUG",
        },
        {
            "event_type": "TOOL_ERROR",
            "tool_name": "plot",
            "timestamp": "2026-01-01T10:00:03Z",
            "level": "ERROR",
            "details": {"error": "No Font"},
        },
        {"event_type": "NOTE", "tool_name": None, "timestamp": "2026-01-01T10:00:04Z", "level": "WARNING"},
    ]
    done = command("write", "--jsonl", "-", stdin=lines_of(*({**e, "session_id": "s"} for e in entries)))
    assert done == (0, "accepted 5, refused 0\n", "")
    return "s"


def test_write_prints_the_id_and_read_shows_the_entry(command: Command) -> None:
    """Details as JSON where they are JSON, else as text; all the contract's fields in the object."""
    pairs = ("-d", "n=1", "-d", "text=plain words", "-d", 'o={"x":[1,null]}', "-d", "eq=a=b", "-d", "empty=")
    written = command("write", "s", "NOTE", "--tool", "t", "-l", "ERROR", *pairs)
    assert written.code == 0
    read = command("read", "s", "-o", "json")
    assert read.code == 0
    assert read.err == ""
    entry = json.loads(read.out)
    assert entry["id"] == written.out.strip()
    assert (entry["session_id"], entry["event_type"], entry["tool_name"], entry["level"]) == (
        "s",
        "NOTE",
        "t",
        "ERROR",
    )
    assert entry["details"] == {
        "n": 1,
        "text": "plain words",
        "o": {"x": [1, None]},
        "eq": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("options", "events"),
    [
        ((), ["TOOL_START", "TOOL_END", "TOOL_START", "TOOL_ERROR", "NOTE"]),
        (("-n", "2"), ["TOOL_ERROR", "NOTE"]),
        (("-t", "TOOL_START"), ["TOOL_START", "TOOL_START"]),
        (("-t", "NOTE", "--type", "TOOL_END"), ["TOOL_END", "NOTE"]),
        (("--tool", "plot"), ["TOOL_START", "TOOL_ERROR"]),
        (("-l", "INFO"), ["TOOL_START", "TOOL_END", "TOOL_ERROR", "NOTE"]),
        (("--level", "WARNING"), ["TOOL_ERROR", "NOTE"]),
        (("-g", "no font"), ["TOOL_ERROR"]),
        (("-S", "2026-01-01T10:00:02Z", "-U", "2026-01-01T10:00:04Z"), ["TOOL_START", "TOOL_ERROR"]),
        (("-S", "2026-01-01T11:00:02+01:00", "-n", "1", "-t", "TOOL_ERROR"), ["TOOL_ERROR"]),
    ],
)
def test_filters_choose_entries(
    command: Command, session: str, options: tuple[str, ...], events: list[str]
) -> None:
    """In `read` and in `tail --no-follow` alike."""
    for name, more in (("read", ()), ("tail", ("--no-follow", *(() if "-n" in options else ("-n", "100"))))):
        done = command(name, session, *options, *more, "-o", "json")
        assert [json.loads(line)["event_type"] for line in done.out.splitlines()] == events
        assert (done.code, done.err) == (0, "")


def test_how_long_ago_is_a_time(command: Command) -> None:
    """Seconds to weeks, with or without `ago`."""
    command("write", "s", "NOW")
    for ago in ("10s", "5 min", "1.5h", "3d ago", "2w"):
        assert "NOW" in command("read", "s", "-S", ago).out
        assert command("read", "s", "-U", ago).code == 1


def test_read_has_three_forms(command: Command, session: str) -> None:
    """Lines for a person, a table, and objects; none has colours when it goes into a pipe."""
    short = command("read", session).out.splitlines()
    assert short[3].split() == ["2026-01-01", "10:00:03", "TOOL_ERROR", "ERROR", "plot", "error=No", "Font"]
    table = command("read", session, "-o", "table").out
    assert table.splitlines()[0].split() == ["time", "level", "event", "tool", "details"]
    assert len(table.splitlines()) == 6
    assert "\x1b" not in table + "".join(short)


def test_an_entry_does_not_drive_the_terminal(command: Command) -> None:
    """Control and bidirectional characters are shown as their code points."""
    command(
        "write",
        "--jsonl",
        "-",
        stdin=lines_of({"session_id": "s", "event_type": "E", "details": {"x": "\x1b[31m\u202e"}}),
    )
    for form in ("short", "table"):
        out = command("read", "s", "-o", form).out
        assert "\x1b" not in out
        assert "\\u001b[31m\\u202e" in out


def test_nothing_found_is_exit_code_1_and_a_notice(command: Command, session: str) -> None:
    """And stdout stays empty."""
    for arguments in (("read", "nope"), ("read", session, "-t", "NOPE"), ("tail", "nope", "--no-follow")):
        done = command(*arguments, "-o", "json")
        assert (done.code, done.out) == (1, "")
    assert command("read", "nope").err == "there are no entries of session nope\n"
    assert command("read", session, "-t", "NOPE").err == "session s has no entries that match\n"
    assert command("tail", "nope", "--no-follow").err == "there are no entries of session nope\n"
    assert command("read", session, "-l", "LOUD").code == 2


def test_no_sessions_yet_says_how_to_get_one(command: Command) -> None:
    """Exit code 1, on stderr."""
    done = command("sessions")
    assert (done.code, done.out) == (1, "")
    assert "streamjournal demo" in done.err


def test_sessions_lists_what_there_is(command: Command, session: str) -> None:
    """As a table, as ids, as objects; -n limits it to the newest."""
    command("write", "newer/one", "SESSION_START")
    table = command("sessions").out.splitlines()
    assert table[0].split() == ["session", "status", "entries", "errors", "last", "size"]
    assert {line.split()[0] for line in table[1:]} == {session, "newer/one"}
    assert sorted(command("sessions", "-o", "short").out.splitlines()) == ["newer/one", session]
    found = {
        one["session_id"]: one for one in map(json.loads, command("sessions", "-o", "json").out.splitlines())
    }
    assert found[session] == {
        "session_id": "s",
        "entries": 5,
        "errors": 1,
        "first": "2026-01-01T10:00:00Z",
        "last": "2026-01-01T10:00:04Z",
        "status": "abandoned",
        "bytes": found[session]["bytes"],
    }
    assert found["newer/one"]["status"] == "running"
    assert len(command("sessions", "-n", "1", "-o", "json").out.splitlines()) == 1


def test_bad_lines_are_told_of_by_number_and_the_rest_goes_on(command: Command) -> None:
    """Exit code 1, and the last line says how many; empty lines are none."""
    file = b'{"event_type":"A","session_id":"s","tool_name":null}\n'
    file += b'{"event_type":\n\n{"event_type":"B"}\n[1]\n\xff\n'
    file += b'{"event_type":"C","session_id":"s"}'  # no newline at the end
    done = command("write", "--jsonl", "-", stdin=file)
    assert (done.code, done.out) == (1, "accepted 2, refused 4\n")
    assert [line.split(" refused:")[0] for line in done.err.splitlines()] == [
        "line 2",
        "line 4",
        "line 5",
        "line 6",
    ]
    assert [json.loads(x)["event_type"] for x in command("read", "s", "-o", "json").out.splitlines()] == [
        "A",
        "C",
    ]


def test_many_bad_lines_are_counted_not_listed(command: Command) -> None:
    """A wrong file must not flood the terminal."""
    done = command("write", "--jsonl", "-", stdin=b"nope\n" * 100)
    assert (done.code, done.out) == (1, "accepted 0, refused 100\n")
    assert len(done.err.splitlines()) == 21
    assert done.err.splitlines()[-1] == "… and 80 more lines refused"


def test_a_file_is_imported_with_its_own_timestamps_and_ids(command: Command, tmp_path: Path) -> None:
    """The timestamp character for character, the id as source_id."""
    file = tmp_path / "entries.jsonl"
    file.write_bytes(
        lines_of({"session_id": "s", "event_type": "A", "id": "x-1", "timestamp": "2026-01-01 00:00:00.5"})
    )
    assert command("write", "--jsonl", str(file)) == (0, "accepted 1, refused 0\n", "")
    entry = json.loads(command("read", "s", "-o", "json").out)
    assert (entry["timestamp"], entry["source_id"]) == ("2026-01-01 00:00:00.5", "x-1")


def test_a_cursor_goes_on_where_a_read_ended(command: Command, session: str) -> None:
    """Whatever the worker has done meanwhile; nothing new is exit code 1."""
    first = command("read", session, "--show-cursor")
    cursor = first.err.strip().removeprefix("cursor: ")
    assert command("read", session, "--after-cursor", cursor).code == 1
    command("write", session, "NEW")
    done_well("worker", "--drain")  # a process of its own, since it sets up logging
    went_on = command("read", session, "--after-cursor", cursor, "-o", "json", "--show-cursor")
    assert [json.loads(line)["event_type"] for line in went_on.out.splitlines()] == ["NEW"]
    assert command("read", session, "--after-cursor", went_on.err.strip().removeprefix("cursor: ")).code == 1


def test_journal_only_leaves_out_what_the_worker_has_not_written(command: Command, session: str) -> None:
    """Before the drain there is nothing, after it everything."""
    assert command("read", session, "--journal-only").code == 1
    done_well("worker", "--drain")
    assert len(command("read", session, "--journal-only").out.splitlines()) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("write",),
        ("write", "s"),
        ("write", "", "E"),
        ("write", "s", ""),
        ("write", "s" * 257, "E"),
        ("write", "s", "E", "-d", "novalue"),
        ("write", "s", "E", "-d", "=1"),
        ("write", "s", "E", "--jsonl", "-"),
        ("write", "--jsonl", "-", "-d", "a=1"),
        ("write", "--jsonl", "-", "--tool", ""),
        ("write", "--jsonl", "-", "-l", "INFO"),
        ("write", "s", "E", "--redact"),
        ("write", "--jsonl", "/no/such/file"),
        ("write", "--jsonl", "/"),
        ("write", "s", "E", "--timeout", "soon"),
        ("read",),
        ("read", ""),
        ("read", "s", "-n", "0"),
        ("read", "s", "-S", "someday"),
        ("read", "s", "-o", "xml"),
        ("read", "s", "--after-cursor", "nonsense"),
        ("tail", "--no-follow", "--after-cursor", "nonsense"),
        ("sessions", "-n", "none"),
        ("init", "-o", "table"),
        ("init", "--shards", "2"),
        ("worker", "extra"),
        ("worker", "--metrics-port", "70000"),
        ("worker", "--log-level", "loud"),
        ("status", "-o", "short"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_code_2(command: Command, arguments: tuple[str, ...]) -> None:
    """With what is wrong on stderr, and nothing on stdout."""
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert "Traceback" not in done.err


def test_a_setting_that_cannot_be_used_names_its_variable(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, one line."""
    monkeypatch.setenv("STREAMJOURNAL_SHARDS", "many")
    done = command("read", "s")
    assert (done.code, done.out) == (2, "")
    assert "STREAMJOURNAL_SHARDS" in done.err
    assert len(done.err.splitlines()) == 1


def test_init_embedded_makes_the_folder_once(command: Command, tmp_path: Path) -> None:
    """And only says so with --dry-run."""
    said = command("init", "--dry-run")
    assert said.code == 0
    assert "would create" in said.out
    assert not (tmp_path / "home").exists()
    assert "created" in command("init").out
    assert "created" not in command("init").out
    steps = [json.loads(line) for line in command("init", "-o", "json").out.splitlines()]
    assert {step["action"] for step in steps} == {"unchanged"}


def test_status_shows_what_waits_and_for_whom(command: Command, session: str) -> None:
    """A table and an object say the same; nobody holds the shard, so the exit code is 1."""
    shown = command("status")
    assert shown.code == 1
    assert "nobody holds shardId-" in shown.err
    assert "unheld" in shown.out
    found = json.loads(command("status", "-o", "json").out)
    assert found["backend"] == "embedded"
    assert found["totals"]["with_records_waiting"] == 1
    assert sorted(one["state"] for one in found["shards"]) == ["idle", "idle", "idle", "unheld"]
    done_well("worker", "--drain")
    after = command("status")
    assert (after.code, after.err) == (0, "")
    assert "all is well: no worker runs, everything is in its journal" in after.out


def test_status_of_a_fresh_home_makes_nothing(command: Command, tmp_path: Path) -> None:
    """Exit code 0: that there is nothing yet is no trouble."""
    done = command("status")
    assert (done.code, done.err) == (0, "")
    assert "nothing here yet" in done.out
    assert not (tmp_path / "home").exists()


def test_recover_has_nothing_to_do(command: Command) -> None:
    """Exit code 0: that nothing was lost is no failure."""
    assert command("recover") == (0, "recovered 0 entries from 0 spools\n", "")


def test_demo_aws_makes_nothing_in_a_real_account(command: Command) -> None:
    """Without AWS_ENDPOINT_URL it refuses, and says what to run."""
    done = command("demo", "--aws")
    assert (done.code, done.out) == (3, "")
    assert "scripts/demo --aws" in done.err


@pytest.mark.parametrize(
    "name", ["write", "read", "tail", "sessions", "worker", "up", "status", "init", "recover", "demo"]
)
def test_every_option_of_every_command_is_explained(name: str, command: Command) -> None:
    """An option without a help text is one that nobody finds out about."""
    import typer

    from streamjournal.cli.main import app

    found = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert found.help
    assert [p.name for p in found.params if not getattr(p, "help", None)] == []
    assert command(name, "--help").code == 0
