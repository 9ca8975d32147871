"""Several connections that set one file to write-ahead logging at the same moment."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from streamjournal.core.sqlite_wal import use_wal


def test_everybody_gets_it(tmp_path: Path) -> None:
    """Of many threads on a new file, none is told that it is locked."""
    for attempt in range(20):
        path, problems = tmp_path / f"{attempt}.db", []
        barrier = threading.Barrier(8)

        def begin(path: Path = path, problems: list = problems, barrier: threading.Barrier = barrier) -> None:
            connection = sqlite3.connect(path, isolation_level=None)
            barrier.wait()
            try:
                use_wal(connection, 5.0)
                connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
            except sqlite3.OperationalError as problem:
                problems.append(problem)
            finally:
                connection.close()

        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []


def test_somebody_who_does_not_let_go_is_an_error_in_the_end(tmp_path: Path) -> None:
    """It is said after the time given, not waited for."""
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_wal(other, 0.03)
    other.close()
    holder.close()
