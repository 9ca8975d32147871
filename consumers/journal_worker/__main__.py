"""The process that people deploy: settings from the environment, logs to stderr, SIGTERM to stop.

The same as `streamjournal worker`; here it is a program of its own, with its container beside it.
"""

import logging
import sys

import anyio

from streamjournal.admin.worker_process import configure_logging, run_worker
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import load


def main() -> int:
    """Run the worker until it is told to stop."""
    configure_logging(json=True)  # also for what goes wrong with the settings
    try:
        settings = load()
        configure_logging(level=logging.getLevelNamesMapping()[settings.log_level.upper()], json=True)
        anyio.run(run_worker, settings)
    except StreamjournalError as problem:
        sys.stderr.write(f"journal_worker: {problem}\n")
        return 3
    except BaseExceptionGroup as group:
        ours, others = group.split(StreamjournalError)
        if ours is None or others is not None:
            raise
        sys.stderr.write(f"journal_worker: {ours.exceptions[0]}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
