"""A tail that goes on, after each death, at the cursor that it wrote down with the last entry.

    python -m tests.chaos.programs.tail NAME.LIFE FOLDER [SESSION]

Each life has a file of its own, `{NAME}.{LIFE}.jsonl`, and goes on where the earlier ones ended. A line
holds an entry and the cursor after it, so that neither is known without the other. Without SESSION it
follows all sessions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streamjournal import Entry, Journal, UnavailableError
from streamjournal.read.results import SyncTail
from tests.chaos.ledger import append_line, whole_lines
from tests.chaos.programs.tied import end_with_parent

_PAUSE = 0.2  # seconds


class Given(msgspec.Struct, array_like=True):
    """An entry that the tail gave out, and its cursor after it."""

    session: str
    id: str
    cursor: str


def lives(folder: Path, name: str) -> list[list[Given]]:
    """What each life of a tail gave out, the first one first."""
    paths = sorted(folder.glob(f"{name}.*.jsonl"))
    return [[msgspec.json.decode(line, type=Given) for line in whole_lines(path)] for path in paths]


def main() -> None:
    """Follow until killed."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    session = sys.argv[3] if len(sys.argv) > 3 else None
    end_with_parent()
    given = [one for life in lives(folder, name.rpartition(".")[0]) for one in life]
    cursor = given[-1].cursor if given else None
    fd = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    with Journal() as journal:
        while True:
            with journal.tail(session, history=None, after=cursor) as entries:
                for entry in patiently(entries):
                    cursor = entries.cursor
                    append_line(fd, msgspec.json.encode(Given(entry.session_id, entry.id or "", cursor)))
            time.sleep(_PAUSE)  # its history could not be read: from the cursor again


def patiently(entries: SyncTail) -> Iterator[Entry]:
    """Ask the same tail again when a service did not answer: nothing may be missed by that."""
    while True:
        try:
            yield next(entries)
        except UnavailableError:
            time.sleep(_PAUSE)
        except StopIteration:
            return


if __name__ == "__main__":
    main()
