"""The demo's worker process: the same worker, saying only what goes wrong."""

import logging

import anyio

from streamjournal.admin.worker_process import configure_logging, run_worker
from streamjournal.core.settings import load

if __name__ == "__main__":
    configure_logging(level=logging.WARNING)
    anyio.run(run_worker, load())
