"""Leases of the embedded backend: one SQLite table in a file of its own.

Of its own, because heartbeats would otherwise change the `data_version` of the stream's file, by
which tails notice new records.

Each call opens a connection and closes it again, which takes about a millisecond and which a lease
needs every few seconds. A connection that stays open would not survive a fork: SQLite keeps a
process's file locks in a table that the child inherits while the locks themselves stay with the
parent. The child's *new* connection then believes that it holds them, and what it writes is lost
when the parent closes and unlinks the log (https://sqlite.org/howtocorrupt.html, section 2.6).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from anyio import to_thread

from streamjournal.core import fork_gate
from streamjournal.core.errors import (
    LeaseLostError,
    LeasesUnavailableError,
    NotConfiguredError,
    StreamjournalError,
)
from streamjournal.core.sqlite_wal import use_wal
from streamjournal.leases.port import Lease

T = TypeVar("T")

SCHEMA: Final = 2  # the file's user_version; format 1 had no columns after `sink`
_APPLICATION_ID: Final = 0x736A4C73  # "sjLs": tells our file from any other SQLite database
_TABLE: Final = """
CREATE TABLE lease (
    key TEXT PRIMARY KEY,
    owner TEXT,
    counter INTEGER NOT NULL,
    checkpoint TEXT NOT NULL,
    parents TEXT NOT NULL,
    owner_switches INTEGER NOT NULL,
    stream TEXT NOT NULL,
    sink TEXT NOT NULL,
    checkpoint_owner TEXT,
    children TEXT NOT NULL DEFAULT '[]',
    hashes TEXT NOT NULL DEFAULT 'null'
) WITHOUT ROWID"""
_TO_2: Final = (
    "ALTER TABLE lease ADD COLUMN checkpoint_owner TEXT",
    "ALTER TABLE lease ADD COLUMN children TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE lease ADD COLUMN hashes TEXT NOT NULL DEFAULT 'null'",
    "PRAGMA user_version = 2",
)
_COLUMNS: Final = (
    "key, owner, counter, checkpoint, parents, owner_switches, stream, sink, "
    "checkpoint_owner, children, hashes"
)

Row = tuple[str, str | None, int, str, str, int, str, str, str | None, str, str]


class SqliteLeases:
    """A table of leases in an SQLite file. Safe between threads, between processes, and after a fork.

    Args:
        path: the file; it and its folder are made at the first call.
        busy_timeout: seconds to wait for another process that is writing.
    """

    def __init__(self, path: Path, *, busy_timeout: float = 5.0) -> None:
        self._path = path
        self._busy_timeout = busy_timeout

    async def rows(self) -> list[Lease]:
        """Every row, in the order of the keys; none while nobody has made the file."""
        return await self._run(self._read)

    async def create(self, lease: Lease) -> bool:
        """Add a row; False if there is one of that key already."""
        return await self._run(lambda: self._write(lambda db: _insert(db, lease)))

    async def update(self, seen: Lease, changed: Lease) -> Lease:
        """Replace row `seen` by `changed`, if its owner and counter are still those of `seen`.

        Raises:
            LeaseLostError: the row is another by now, or is gone.
            LeasesUnavailableError: the file is locked or unreadable, or its disk is full; the row is
                as it was.
        """
        await self._run(lambda: self._write(lambda db: _replace(db, seen, changed)))
        return changed

    async def delete(self, lease: Lease) -> None:
        """Remove a row, whoever holds it; nothing happens if it is gone."""
        await self._run(lambda: self._write(lambda db: _delete(db, lease)))

    async def aclose(self) -> None:
        """Nothing to free: no connection outlives its call."""

    async def _run(self, call: Callable[[], T]) -> T:
        with self._explained():
            return await to_thread.run_sync(_keeping_forks_out, call)

    def _read(self) -> list[Lease]:
        """Without a write lock: readers look at checkpoints often, and must not hold up a worker."""
        if not self._path.exists():
            return []
        with closing(self._connect()) as db:
            db.execute("BEGIN")
            version = self._version(db)
            if version in (0, SCHEMA):
                return _select_all(db) if version else []
        return self._write(_select_all)  # an older format, which a write brings up to date

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as db:
            use_wal(db, self._busy_timeout)
            db.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes back is only read again
            db.execute("BEGIN IMMEDIATE")  # a lock that a transaction asks for later cannot wait its turn
            version = self._version(db)
            if version == 0:
                _create_table(db)
            elif version < SCHEMA:
                for statement in _TO_2:
                    db.execute(statement)
            outcome = change(db)
            db.execute("COMMIT")  # short of here, closing rolls back
            return outcome

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)

    def _version(self, db: sqlite3.Connection) -> int:
        """The format of the table in the file; 0 for a file that is still empty."""
        version, application = _pragma(db, "user_version"), _pragma(db, "application_id")
        if application == _APPLICATION_ID:
            if not 1 <= version <= SCHEMA:
                raise NotConfiguredError(
                    f"{self._path} holds leases in format {version}, and this version knows format "
                    f"{SCHEMA} only; upgrade streamjournal"
                )
            return version
        if version == 0 and _is_empty(db):
            return 0
        raise NotConfiguredError(
            f"{self._path} is a database of another program; choose another STREAMJOURNAL_HOME"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            raise self._explain(problem) from problem
        except OSError as problem:
            raise LeasesUnavailableError(
                f"leases in {self._path}: {problem}; make its folder writable, or choose another "
                "STREAMJOURNAL_HOME"
            ) from problem

    def _explain(self, problem: sqlite3.Error) -> StreamjournalError:
        code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without extended bits
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return NotConfiguredError(
                f"leases in {self._path}: {problem}; move the file away and start again: workers then "
                "read the stream from its oldest record, and journals skip what they hold already"
            )
        return LeasesUnavailableError(f"leases in {self._path}: {problem}; {_ADVICE.get(code, 'try again')}")


_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another process has been writing for long; try again",
    sqlite3.SQLITE_LOCKED: "another process has been writing for long; try again",
    sqlite3.SQLITE_FULL: "free some space on its disk, then try again",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_PERM: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make its folder writable, or choose another STREAMJOURNAL_HOME",
    sqlite3.SQLITE_IOERR: "look at its disk (full, or failing?), then try again",
}


def _keeping_forks_out(call: Callable[[], T]) -> T:
    """A fork in the middle of a call would leave the child a locked SQLite, see `core.fork_gate`."""
    with fork_gate.inside():
        return call()


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _is_empty(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _create_table(db: sqlite3.Connection) -> None:
    db.execute(_TABLE)
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def _select_all(db: sqlite3.Connection) -> list[Lease]:
    return [_decode(row) for row in db.execute(f"SELECT {_COLUMNS} FROM lease ORDER BY key")]  # noqa: S608


def _insert(db: sqlite3.Connection, lease: Lease) -> bool:
    values = _encode(lease)
    marks = ", ".join("?" * len(values))
    done = db.execute(f"INSERT INTO lease ({_COLUMNS}) VALUES ({marks}) ON CONFLICT DO NOTHING", values)  # noqa: S608
    return done.rowcount == 1


def _replace(db: sqlite3.Connection, seen: Lease, changed: Lease) -> None:
    done = db.execute(
        "UPDATE lease SET owner = ?, counter = ?, checkpoint = ?, parents = ?, owner_switches = ?, "
        "stream = ?, sink = ?, checkpoint_owner = ?, children = ?, hashes = ? "
        "WHERE key = ? AND owner IS ? AND counter = ?",
        (*_encode(changed)[1:], seen.key, seen.owner, seen.counter),
    )
    if done.rowcount != 1:
        row = db.execute("SELECT owner FROM lease WHERE key = ?", (seen.key,)).fetchone()
        raise LeaseLostError(seen.key, row[0] if row else None)


def _delete(db: sqlite3.Connection, lease: Lease) -> None:
    db.execute("DELETE FROM lease WHERE key = ?", (lease.key,))


def _encode(lease: Lease) -> Row:
    return (
        lease.key,
        lease.owner,
        lease.counter,
        lease.checkpoint,
        _json(lease.parents),
        lease.owner_switches,
        lease.stream,
        lease.sink,
        lease.checkpoint_owner,
        _json(lease.children),
        _json([str(hash_) for hash_ in lease.hashes] if lease.hashes else None),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decode(row: Row) -> Lease:
    key, owner, counter, checkpoint, parents, switches, stream, sink, checkpoint_owner, children, hashes = row
    return Lease(
        key,
        owner,
        counter,
        checkpoint,
        msgspec.json.decode(parents, type=tuple[str, ...]),
        switches,
        stream,
        sink,
        checkpoint_owner,
        msgspec.json.decode(children, type=tuple[str, ...]),
        _hashes(msgspec.json.decode(hashes, type=tuple[str, str] | None)),
    )


def _hashes(pair: tuple[str, str] | None) -> tuple[int, int] | None:
    """As text in the file: no 64 bits hold them."""
    return None if pair is None else (int(pair[0]), int(pair[1]))
