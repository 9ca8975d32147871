"""The home folder, its disk, and the embedded backend's files in it. Nothing is made that was not there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from anyio import to_thread

from streamjournal.admin.doctor.check import Check, Checks, failed, ok, skipped, warning
from streamjournal.core.settings import Settings

_GIB: Final = 2**30
_MIB: Final = 2**20
_LITTLE_ROOM: Final = _GIB
_NO_ROOM: Final = 64 * _MIB  # what the emit buffer may put into spools
_LONG_LOG: Final = 256 * _MIB  # four times what is copied into the file at once
_ANOTHER: Final = "set STREAMJOURNAL_HOME to a folder that this user may write"
STREAM: Final = "stream.db"
_FILES: Final = (STREAM, "leases.db")


async def check_home(settings: Settings, seconds: float, token: str) -> tuple[list[Check], bool]:
    """The folder and its disk.

    Args:
        token: of a scratch file's name.

    Returns:
        The checks, and whether the folder can be used.
    """
    checks = Checks("the home folder", seconds)
    usable = await checks.run("home", partial(_in_thread, _look_writable, settings.home_path, token))
    await checks.run("free space", partial(_in_thread, _look_at_room, settings.home_path))
    if settings.embedded:
        return checks.done, usable
    return [_less_severe(check) for check in checks.done], usable


def _less_severe(check: Check) -> Check:
    """On AWS only emitters write there, into their spools; a worker's container need not have a home."""
    if check.result != "failed":
        return check
    return warning(
        check.name, f"{check.found}; emitters keep their spools there", check.remedy, **check.facts
    )


async def check_databases(settings: Settings, seconds: float) -> list[Check]:
    """The embedded stream's and leases' files: readable, sound, and with write-ahead logging."""
    checks = Checks("the home folder", seconds)
    for name in _FILES:
        path = settings.home_path / name
        if await anyio.Path(path).exists():
            await checks.run(name, partial(_in_thread, _look_into, path, seconds / 2))
        else:
            checks.add(skipped(name, "not made yet; it is at first use"))
    return checks.done


async def _in_thread(look: Any, *arguments: Any) -> Check:
    found: Check = await to_thread.run_sync(look, *arguments, abandon_on_cancel=True)
    return found


def _look_writable(home: Path, token: str) -> Check:
    where = _existing(home)
    if not where.is_dir():
        return failed("home", f"{where} is no folder", _ANOTHER)
    if where != home:
        if os.access(where, os.W_OK | os.X_OK):
            return ok("home", f"{home} is not there yet, and can be made", path=str(home))
        return failed("home", f"{home} is not there, and {where} may not be written", _ANOTHER)
    scratch = home / f".doctor-{token}"
    try:
        scratch.write_bytes(b"scratch\n")
    except OSError as problem:
        return failed("home", f"{home}: {problem.strerror}", _ANOTHER)
    finally:
        with suppress(OSError):  # it was not made, or will do no harm
            scratch.unlink()
    return ok("home", f"{home} can be written", path=str(home))


def _look_at_room(home: Path) -> Check:
    free = shutil.disk_usage(_existing(home)).free
    found = f"{free / _GIB:,.1f} GiB" if free >= _GIB else f"{free / _MIB:,.0f} MiB"
    if free < _NO_ROOM:
        return failed("free space", found, f"free some on the disk of {home}", free_bytes=free)
    if free < _LITTLE_ROOM:
        return warning("free space", found, f"free some on the disk of {home}", free_bytes=free)
    return ok("free space", found, free_bytes=free)


def _existing(path: Path) -> Path:
    """The path, or what there is of it."""
    return next(it for it in (path, *path.parents) if it.exists())


def _look_into(path: Path, seconds: float) -> Check:
    """By SQLite itself: whoever else opens and closes the file would drop this process's locks on it."""
    uri = f"{path.resolve().as_uri()}?mode=rw"  # rw never makes a file
    advice = f"stop what uses it, and move {path} away"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as db:
            (mode,) = db.execute("PRAGMA journal_mode").fetchone()
            problem = _unsound(db, seconds)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return warning(path.name, "locked by another process", "run doctor again in a moment")
        return failed(path.name, str(error), advice)
    if problem is None:
        return skipped(path.name, f"opened; too large to be checked within {seconds:g} s")
    if problem:
        return failed(path.name, problem, advice)
    size = path.stat().st_size
    log = path.with_name(f"{path.name}-wal")
    waiting = log.stat().st_size if log.exists() else 0
    facts = {"bytes": size, "wal_bytes": waiting, "journal_mode": mode}
    found = f"sound, {size / _MIB:,.1f} MiB, log {waiting / _MIB:,.1f} MiB"
    if mode != "wal":
        remedy = "its file system keeps SQLite from it; set STREAMJOURNAL_HOME to a local disk"
        return warning(path.name, f"{found}; no write-ahead logging ({mode})", remedy, **facts)
    if waiting > _LONG_LOG:
        remedy = "some process has been reading for very long; end it, and the log is copied back"
        return warning(path.name, found, remedy, **facts)
    return ok(path.name, found, **facts)


def _unsound(db: sqlite3.Connection, seconds: float) -> str | None:
    """What is wrong with a database, an empty string if nothing is; None if the time did not suffice."""
    stop = threading.Timer(seconds, db.interrupt)
    stop.start()
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        stop.cancel()
        stop.join()  # else it could interrupt a connection that is closed
    return "" if found == "ok" else str(found)
