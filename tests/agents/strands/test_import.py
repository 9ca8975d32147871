"""The package without the package that it is for."""

from __future__ import annotations

import subprocess
import sys


def test_without_strands_the_import_says_how_to_install_it() -> None:
    """An ImportError, so that who can do without it may catch it."""
    code = (
        "import sys; sys.modules['strands'] = None\n"
        "try:\n    import streamjournal.agents.strands\n"
        "except ImportError as problem:\n    print(problem.name, problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("strands ")
    assert "pip install 'streamjournal[strands]'" in done.stdout
    assert done.stderr == ""
