"""One SQLite file, used by many threads and processes: its connections, forks, and errors in our words.

Connections are kept, since opening one takes a millisecond, as long as a put. That needs care with
fork: SQLite keeps a process's file locks in a table that a child inherits, while the locks themselves
stay with the parent. A child's new connection would then believe that it holds them, and what it
writes would be lost once the parent closes the file and unlinks the log
(https://sqlite.org/howtocorrupt.html, section 2.6). So before a fork (`os.fork`, multiprocessing) the
calls in flight are waited for and every connection is closed; both sides open new ones when they
need them. A fork that Python is not told about (an embedding server's own) is noticed by the pid: the
child then leaves the parent's connections alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from streamjournal.core import fork_gate
from streamjournal.core.errors import NotConfiguredError, StreamjournalError, StreamUnavailableError
from streamjournal.core.sqlite_wal import use_wal

T = TypeVar("T")

Version = tuple[int, int]  # (which opening of the file, PRAGMA data_version)

_PAGE_BYTES: Final = 8192  # larger pages take large records faster, and make a small put write more
_WAL_BYTES: Final = 64 * 2**20  # of log are copied into the file at once; by default every 4 MB are


@dataclass(slots=True)
class Opening(Generic[T]):
    """The file as it was opened; one that was deleted and made anew is another.

    Args:
        number: counts the openings of this process.
        info: what `prepare` returned.
    """

    number: int
    info: T
    pid: int
    inode: tuple[int, int]
    idle: list[sqlite3.Connection] = field(default_factory=list)
    watch: sqlite3.Connection | None = None
    watching: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def close(self) -> None:
        """Close what no call uses; what one uses is closed when it is given back."""
        self.closed = True
        while self.idle:
            self.idle.pop().close()
        with self.watching:
            if self.watch is not None:
                self.watch.close()
                self.watch = None


class SqliteFile(Generic[T]):
    """A database file in WAL mode.

    Args:
        path: made at first use, and so is its folder.
        prepare: makes or checks the schema on a connection inside a write transaction, and returns
            what `connect` hands out beside the connection.
        busy_seconds: how long to wait for another process's write.
    """

    def __init__(
        self, path: Path, prepare: Callable[[sqlite3.Connection], T], *, busy_seconds: float = 5.0
    ) -> None:
        self.path = path
        self._prepare = prepare
        self._busy_seconds = busy_seconds
        self._opening: Opening[T] | None = None
        self._openings = 0
        self._lock = threading.Lock()
        self._inherited: list[Opening[T]] = []
        fork_gate.close_before_fork(self)

    @contextmanager
    def connect(self) -> Iterator[tuple[sqlite3.Connection, Opening[T]]]:
        """A connection for one call, in autocommit mode. Blocks: not for the event loop's thread.

        Raises:
            StreamUnavailableError: the file is locked, or the disk is full.
            NotConfiguredError: the folder or file cannot be used; the text says what to do.
        """
        with fork_gate.inside(), self._explained():
            opening = self._current()
            try:
                connection = opening.idle.pop()
            except IndexError:
                connection = self._open()
            try:
                yield connection, opening
            except BaseException:
                connection.close()  # also rolls back
                raise
            self._give_back(opening, connection)

    def version(self, *, may_open: bool = False) -> Version | None:
        """A value that changes with every commit of any process; None if it is not known.

        Takes some 10 µs, asks a connection that never writes (a commit does not change the value for
        the connection that made it), and waits for nothing unless `may_open`: so the event loop's
        thread may call it, which costs far less than a thread's turn every 20 ms.

        Raises:
            StreamUnavailableError, NotConfiguredError: as for `connect`, with `may_open`.
        """
        with fork_gate.inside(), self._explained():
            if may_open:
                return self._ask(self._current(), may_open=True)
            opening = self._opening
            if opening is None or not self._is_current(opening):
                return None
            try:
                return self._ask(opening, may_open=False)
            except sqlite3.OperationalError:
                return None  # busy: the caller then reads in a thread, where waiting is allowed

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        with fork_gate.inside():
            self.close_idle()

    def close_idle(self) -> None:
        """Close what no call uses. For `close` and before a fork."""
        with self._lock:
            self._drop_opening()

    def _current(self) -> Opening[T]:
        opening = self._opening
        if opening is not None and self._is_current(opening):
            return opening
        if opening is not None and opening.pid != os.getpid():
            self._lock = threading.Lock()  # a thread that does not exist here may hold the other
        with self._lock:
            if self._opening is None or not self._is_current(self._opening):
                self._drop_opening()
                self._opening = self._open_first()
            return self._opening

    def _drop_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        if opening.pid == os.getpid():
            opening.close()
        else:
            self._inherited.append(opening)  # see the module's docstring

    def _is_current(self, opening: Opening[T]) -> bool:
        return opening.pid == os.getpid() and opening.inode == self._inode()

    def _inode(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open_first(self) -> Opening[T]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._open()
        try:
            with writing(connection):
                info = self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._openings += 1
        inode = self._inode() or (0, 0)
        return Opening(self._openings, info, os.getpid(), inode, [connection])

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # counts for a new file only
            use_wal(connection, self._busy_seconds)
            connection.execute("PRAGMA synchronous = NORMAL")  # survives any process's death
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // _PAGE_BYTES}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, opening: Opening[T], *, may_open: bool) -> Version | None:
        if not opening.watching.acquire(blocking=may_open):
            return None
        try:
            if opening.watch is None:
                if opening.closed or not may_open:
                    return None
                opening.watch = self._open()
                opening.watch.execute("PRAGMA busy_timeout = 0").fetchall()
            # fetchall, not fetchone: a statement that is not finished keeps its read transaction open
            (row,) = opening.watch.execute("PRAGMA data_version").fetchall()
            return opening.number, row[0]
        finally:
            opening.watching.release()

    def _give_back(self, opening: Opening[T], connection: sqlite3.Connection) -> None:
        with self._lock:
            if not opening.closed:
                opening.idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as problem:
            if type(problem) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise explain(problem, self.path) from problem
            raise  # a mistake of ours (ProgrammingError, IntegrityError), which no waiting mends
        except OSError as problem:
            raise NotConfiguredError(f"stream {self.path}: {problem}; {_CHOOSE_HOME}") from problem


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction; its lock is taken at once, since one asked for later cannot wait its turn."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A read transaction: what several queries see is of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()


_CHOOSE_HOME: Final = "set STREAMJOURNAL_HOME to a folder that this process may write to"
_NOT_USABLE: Final = {
    sqlite3.SQLITE_CANTOPEN: _CHOOSE_HOME,
    sqlite3.SQLITE_PERM: _CHOOSE_HOME,
    sqlite3.SQLITE_AUTH: _CHOOSE_HOME,
    sqlite3.SQLITE_READONLY: _CHOOSE_HOME,
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away, and a new stream is begun",
    sqlite3.SQLITE_NOTADB: "the file is no stream; move it away, or set another STREAMJOURNAL_HOME",
}
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_FULL: "free space on its disk, then try again; nothing was written",
    sqlite3.SQLITE_BUSY: "another process keeps the file locked; try again",
    sqlite3.SQLITE_LOCKED: "another process keeps the file locked; try again",
}


def explain(problem: sqlite3.Error, path: Path) -> StreamjournalError:
    """An SQLite error as one of ours, saying what to do."""
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extension
    if code in _NOT_USABLE:
        return NotConfiguredError(f"stream {path}: {problem}; {_NOT_USABLE[code]}")
    advice = _UNAVAILABLE.get(code, "look at its disk (full, or failing?), then try again")
    return StreamUnavailableError(f"stream {path}: {problem}; {advice}")
