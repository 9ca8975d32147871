"""A job's entries in a second terminal, while it runs."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from streamjournal.agents.preamble import preamble
from tests.docs.pages import ROOT
from tests.e2e.commands import STREAMJOURNAL, done_well, running

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

JOB = ROOT / "docs" / "examples" / "sandbox_job.py"


def test_a_tail_shows_what_the_sandbox_job_prints_while_it_runs() -> None:
    """Two processes: `run` journals the example, `tail` has its entries before the job has ended."""
    done_well("write", "jobs", "NOTE")
    with running("tail", "jobs", "-o", "json") as tail:
        assert b"NOTE" in tail.line()  # it follows from here on
        job = subprocess.Popen(
            [STREAMJOURNAL, "run", "--session", "jobs", "--", sys.executable, str(JOB), "0.4"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            seen = [msgspec.json.decode(tail.line()) for _ in range(3)]
            assert [one["event_type"] for one in seen] == ["TOOL_START", "DATA_LOADED", "EPOCH_FINISHED"]
            assert job.poll() is None, "the job had ended before its first entries were seen"
            seen += [msgspec.json.decode(tail.line()) for _ in range(6)]
            out, err = job.communicate(timeout=20)
        finally:
            job.kill()
            job.wait()
    assert (job.returncode, err) == (0, b"")
    assert [one["event_type"] for one in seen[3:]] == [*["EPOCH_FINISHED"] * 4, "MODEL_SAVED", "TOOL_END"]
    assert {one.get("source") for one in seen[1:-1]} == {"sandbox"}
    assert seen[-1]["details"]["exit_code"] == 0
    assert out.startswith(b"\repoch 1/5 \repoch 2/5 ")
    assert b"JOURNAL" not in out


def test_the_examples_function_is_the_preamble() -> None:
    """What people copy from the example is what hosts put before code."""
    assert preamble() in JOB.read_text()
