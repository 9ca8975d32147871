"""The example programs run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.mark.e2e
def test_three_tools_that_meet_in_the_journal() -> None:
    """The second finds the first one's job, the third waits for what the second saw, and sums up."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "training_pipeline.py", "demo"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, report, *entries = done.stdout.splitlines()
    assert status == "Completed"
    assert report.startswith(
        "demo-training completed, {'train:progress': 100.0}; calls: {'start_training': 1"
    )
    assert [line.split()[0] for line in entries] == [
        *("TOOL_START", "TRAINING_STARTED", "TOOL_END"),
        *("TOOL_START", "TRAINING_STATUS", "TOOL_END"),
        *("TOOL_START", "REPORT", "TOOL_END"),
    ]
