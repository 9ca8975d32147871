"""Everything in the documentation that can be run is run, each block in a home of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, all_blocks, printed_by

ON_AWS = "run on AWS"
NOT_RUN = "not run: "


def environment() -> dict[str, str]:
    """The test's own, with the commands of this checkout first, and the checkout's package."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.name)
def test_python(block: Block, tmp_path: Path) -> None:
    """A Python block runs without an error or a warning, and prints what the page says."""
    done = run([sys.executable, "-W", "error", "-c", block.text], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = printed_by(block)
    if expected is not None:
        pattern = ".*".join(map(re.escape, expected.split("…")))
        assert re.fullmatch(pattern, done.stdout), done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize("block", all_blocks("sh"), ids=lambda block: block.name)
def test_shell(block: Block, tmp_path: Path) -> None:
    """A shell block's commands all succeed, in the order of the page."""
    done = run(["bash", "-euo", "pipefail", "-c", block.text], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.aws
@pytest.mark.e2e
@pytest.mark.parametrize("block", all_blocks("sh", ON_AWS), ids=lambda block: block.name)
def test_shell_on_aws(block: Block, tmp_path: Path, aws_emulator: str) -> None:
    """A shell block for AWS succeeds against the emulator (moto)."""
    assert os.environ["AWS_ENDPOINT_URL"] == aws_emulator
    done = run(["bash", "-euo", "pipefail", "-c", block.text], tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_is_not_run_says_why() -> None:
    """A block that is left out gives its reason; any other comment is a slip of the pen."""
    from tests.docs.pages import PAGES, blocks

    for page in PAGES:
        for block in blocks(page):
            assert block.note in ("", ON_AWS) or re.fullmatch(rf"{NOT_RUN}\w.+", block.note), block.name


def test_json_is_json() -> None:
    """A block of JSON can be decoded."""
    import json

    for block in all_blocks("json"):
        json.loads(block.text)
