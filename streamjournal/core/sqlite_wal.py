"""Setting a SQLite file to write-ahead logging while others do the same at this moment."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

_STEP: Final = 0.01  # seconds between two tries


def use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Set the journal mode to WAL, waiting for whoever else is at it.

    SQLite's own busy timeout does not help here: the change needs the file for itself, and a second
    connection that wants it too is told SQLITE_BUSY at once, lest the two wait for each other.

    Args:
        seconds: how long to try.

    Raises:
        sqlite3.OperationalError: it is still locked by then, or something else is wrong.
    """
    for attempt in range(max(1, round(seconds / _STEP))):
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as problem:
            busy = problem.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or attempt + 1 >= round(seconds / _STEP):
                raise
            time.sleep(_STEP)
        else:
            return
