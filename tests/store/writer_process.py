"""A process that appends to one journal, for tests that stop it, kill it, or run two of them.

    python -m tests.store.writer_process HOME SESSION NAME COUNT [--stop-at N]

appends lines `{"by": NAME, "n": 1}` and so on, each in a commit of its own, and prints each number
once it is committed. At the n-th it stops in mid-append, the lock in its hands, prints `stopped`, and goes on
when it gets a line on its standard input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio

from streamjournal.core.errors import CommitConflictError
from streamjournal.store import journal_append
from streamjournal.store.files import FilesStore
from streamjournal.store.journal_folder import Committed
from tests.store.rigs import some_meta


async def main(arguments: argparse.Namespace) -> None:
    """Append, and go on from the newest head after a conflict."""
    store = FilesStore(arguments.home, lock_timeout=30)
    for n in range(1, arguments.count + 1):
        if n == arguments.stop_at:
            stop_before_publishing()
        line = b'{"by":"%s","n":%d,"details":"%s"}\n' % (arguments.name.encode(), n, b"x" * 20_000)
        while True:
            head = await store.head(arguments.session)
            entries = head.meta.summary.entries + 1 if head and head.meta else 1
            try:
                await store.append(
                    arguments.session, head, line, some_meta(n, generation=arguments.name, entries=entries)
                )
                break
            except CommitConflictError:
                continue
        print(n, flush=True)


def stop_before_publishing() -> None:
    """Wait once the lines are written and the metadata is not.

    For a line, and not by SIGSTOP to itself: that stops a process some time later.
    """
    publish = journal_append._write_new_meta

    def stopping(fd: int, committed: Committed) -> None:
        print("stopped", flush=True)
        sys.stdin.readline()
        publish(fd, committed)

    journal_append._write_new_meta = stopping


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("session")
    parser.add_argument("name")
    parser.add_argument("count", type=int)
    parser.add_argument("--stop-at", type=int)
    anyio.run(main, parser.parse_args())
