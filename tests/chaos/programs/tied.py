"""Run a module as `python -m` does, in a process that ends when its standard input closes.

    python -m tests.chaos.programs.tied MODULE [ARGUMENT …]

The harness holds the other end, so none of its processes outlives it, not even if it is killed.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

ORPHANED = 70  # exit code


def end_with_parent() -> None:
    """End this process when its standard input closes."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin: the interpreter's exit would wait for its lock
            pass
        os._exit(ORPHANED)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
