"""`doctor` as a command: what it prints where, its exit codes, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamjournal.core.settings import load
from tests.cli.conftest import Command
from tests.emulators import processes


def objects(out: str) -> list[dict]:
    return [json.loads(one) for one in out.splitlines()]


def test_a_line_for_each_check_and_the_remedy_under_it(command: Command) -> None:
    """Aligned; the counts on stderr; 0 as long as nothing failed."""
    assert command("write", "s", "NOTE").code == 0
    done = command("doctor")
    assert done.code == 0
    lines = done.out.splitlines()
    checks = [one for one in lines if not one.startswith(" ")]
    assert {one.split()[0] for one in checks} == {"ok", "warning", "skipped"}
    assert all(one[41:43] == "  " and one[43] != " " for one in checks)
    (lagging,) = [i for i, one in enumerate(lines) if one.startswith("warning")]
    assert lines[lagging + 1] == "         start a worker: `streamjournal worker`"
    assert done.err.endswith("1 warning, 1 skipped\n")
    assert command("worker", "--drain").code == 0
    assert "warning" not in command("doctor").out


def test_an_object_for_each_check(command: Command) -> None:
    """The same for a program, and nothing else."""
    done = command("doctor", "-o", "json")
    assert (done.code, done.err) == (0, "")
    found = objects(done.out)
    assert all(set(one) == {"name", "result", "found", "remedy", "facts"} for one in found)
    assert len({one["name"] for one in found}) == len(found)
    home = next(one for one in found if one["name"] == "setting home")
    assert home["facts"] == {"value": str(load().home_path), "source": "STREAMJOURNAL_HOME"}


def test_something_that_failed_is_1(command: Command) -> None:
    """A stream file that is none."""
    load().home_path.mkdir()
    (load().home_path / "stream.db").write_bytes(b"no database" * 1000)
    done = command("doctor", "-o", "json")
    assert done.code == 1
    assert [one["name"] for one in objects(done.out) if one["result"] == "failed"] == ["stream.db"]


def test_a_backend_that_cannot_be_reached_is_3(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that cannot be one; a network where nobody answers."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMJOURNAL_HOME", str(tmp_path / "file"))
    assert command("doctor").code == 3
    monkeypatch.setenv("STREAMJOURNAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STREAMJOURNAL_STREAM", "agents")
    monkeypatch.setenv("STREAMJOURNAL_BUCKET", "journals")
    for name, value in processes.aws_environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    done = command("doctor", "--timeout", "2")
    assert done.code == 3
    assert "look at the network" in done.out
    assert "Traceback" not in done.err


def test_a_setting_that_cannot_be_used_is_2(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every command."""
    monkeypatch.setenv("STREAMJOURNAL_SHARDS", "many")
    assert command("doctor").code == 2


def test_control_characters_do_not_reach_the_terminal(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting's value may be anything."""
    monkeypatch.setenv("STREAMJOURNAL_PREFIX", "a\x1b[31m/")
    done = command("doctor")
    assert "\x1b" not in done.out
    assert "\\u001b[31m" in done.out


def test_embedded_it_needs_no_aws_package(tmp_path: Path) -> None:
    """Who works embedded may not have them."""
    code = (
        "import sys; from streamjournal.cli.main import main; sys.argv = ['streamjournal', 'doctor']\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code\n"
        "assert not {'aiobotocore', 'botocore', 'boto3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
