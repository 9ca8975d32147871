"""`verify`: what it prints, where, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture
def edit(tmp_path: Path) -> Callable[..., None]:
    """`edit(session, change)`: changes a journal's file by hand."""

    def change_file(session: str, change: Callable[[bytes], bytes]) -> None:
        path = tmp_path / "home" / "journals" / session / "journal.jsonl"
        path.write_bytes(change(path.read_bytes()))

    return change_file


@pytest.fixture
def journals(command: Command) -> list[str]:
    """Three sessions with a journal each."""
    names = ["a", "b", "c"]
    for name in names:
        for _ in range(3):
            assert command("write", name, "NOTE").code == 0
    assert command("worker", "--drain").code == 0
    return names


def test_a_whole_session(command: Command, journals: list[str]) -> None:
    """It says so, with each writer; here each command was one."""
    done = command("verify", "a")
    assert (done.code, done.err) == (0, "")
    head, *writers = done.out.splitlines()
    assert head == "a: whole, 3 entries"
    assert len(writers) == 3
    assert all(line.endswith(": 1 entry, no interior gap") for line in writers)


def test_one_that_is_not(command: Command, journals: list[str], edit: Callable[..., None]) -> None:
    """What is wrong and where, and exit 1, though the others are whole."""
    edit("b", lambda body: body.replace(b'"NOTE"', b'"NOPE"', 1))
    done = command("verify", "a", "b", "c", "a")
    assert done.code == 1
    heads = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert heads == ["a: whole, 3 entries", "b: NOT WHOLE, 3 entries", "c: whole, 3 entries"]
    assert "  ! the body was changed" in done.out


def test_all(command: Command, journals: list[str], edit: Callable[..., None]) -> None:
    """Only those with something to say, and one line at the end."""
    assert command("verify", "--all") == (0, "3 journals: all whole\n", "")
    edit("c", lambda body: body + b'{"event_type":"BY_HAND"}\n')
    done = command("verify", "--all")
    assert done.code == 0
    assert done.out.splitlines()[0] == "c: whole, 3 entries"
    assert "  - 25 bytes follow the committed ones" in done.out
    assert done.out.splitlines()[-1] == "3 journals: all whole, 1 with remarks"
    edit("b", lambda body: body[: body.index(b"\n") + 1] + b"x" + body[body.index(b"\n") + 2 :])
    done = command("verify", "--all")
    assert done.code == 1
    assert "  ! line 2 (byte " in done.out
    assert done.out.splitlines()[-1] == "3 journals: 1 not whole, 1 with remarks"


def test_as_json(command: Command, journals: list[str], edit: Callable[..., None]) -> None:
    """One object per session, whole or not, and nothing else."""
    edit("b", lambda body: body.replace(b'"NOTE"', b'"NOPE"', 1))
    done = command("verify", "--all", "-o", "json")
    assert done.code == 1
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["session_id"], one["whole"], one["checksum"]) for one in found] == [
        ("a", True, "agrees"),
        ("b", False, "differs"),
        ("c", True, "agrees"),
    ]
    assert set(found[0]) == {
        "session_id",
        "whole",
        "where",
        "entries",
        "unnumbered",
        "dropped",
        "bytes",
        "checksum",
        "writers",
        "findings",
        "left_out",
    }
    assert set(found[0]["writers"][0]) == {"writer", "entries", "highest", "missing", "state"}
    assert set(found[1]["findings"][0]) == {
        "kind",
        "damage",
        "text",
        "line",
        "byte",
        "writer",
        "first",
        "last",
    }


def test_not_in_its_journal_yet(command: Command) -> None:
    """No worker has run; nothing is wrong."""
    command("write", "s", "NOTE")
    done = command("verify", "s")
    assert (done.code, done.out) == (0, "s: it is not in its journal yet; a worker brings it there\n")


def test_a_journal_of_the_older_one_file_tool(command: Command, tmp_path: Path) -> None:
    """It is no damage that it says nothing of itself; a worker adopts it, and then it does."""
    path = tmp_path / "home" / "journals" / "old" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    old = b'{"timestamp":"2024-01-01 10:00:00","event_type":"A","tool_name":null}'
    path.write_bytes(old + b"\n" + old)
    done = command("verify", "old")
    assert done.code == 0
    assert done.out.splitlines()[0] == "old: whole, 2 entries (2 without a number)"
    assert "  - it has no metadata: an older tool wrote it" in done.out
    command("write", "old", "NOTE")
    command("worker", "--drain")
    assert len(command("read", "old").out.splitlines()) == 3
    done = command("verify", "old")
    assert (done.code, done.out.splitlines()[0]) == (0, "old: whole, 3 entries (2 without a number)")
    assert "!" not in done.out
    assert path.read_bytes().startswith(old + b"\n" + old + b"\n")


def test_no_such_session(command: Command, journals: list[str]) -> None:
    """Exit 1, and it says that it looked everywhere."""
    done = command("verify", "nobody", "a")
    assert done.code == 1
    assert done.out.startswith("nobody: there is no such session: no journal, and nothing on the stream\n")
    assert "a: whole" in done.out


def test_nothing_to_check(command: Command) -> None:
    """A wrong folder or prefix must not look like a success."""
    done = command("verify", "--all")
    assert (done.code, done.out) == (1, "")
    assert "there are no journals to check" in done.err


@pytest.mark.parametrize("arguments", [(), ("s", "--all"), ("",), ("s", "-o", "table")])
def test_wrong_usage(command: Command, arguments: tuple[str, ...]) -> None:
    """Neither or both of sessions and --all; an id that cannot be one."""
    assert command("verify", *arguments).code == 2


def test_not_reachable(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A store that cannot be read is exit 3, not a finding."""
    home = tmp_path / "no-folder"
    home.write_text("a file")
    monkeypatch.setenv("STREAMJOURNAL_HOME", str(home))
    monkeypatch.setenv("STREAMJOURNAL_SPOOL", "off")
    for arguments in (("--all",), ("s",)):
        done = command("verify", *arguments)
        assert (done.code, done.out) == (3, "")
        assert "streamjournal:" in done.err


def test_a_name_that_would_drive_the_terminal(command: Command) -> None:
    """It is printed as code points."""
    command("write", "a\u202eb", "NOTE")
    assert command("verify", "a\u202eb").out.startswith("a\\u202eb: ")
