"""The spools' folder: whether a spool can be made there, and what dead processes left in it."""

from __future__ import annotations

import fcntl
import os
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from anyio import to_thread

from streamjournal.admin.doctor.check import Check, Checks, ok, skipped, warning
from streamjournal.core.errors import SpoolBusyError, SpoolError
from streamjournal.core.settings import Settings
from streamjournal.emit.outbox import Account
from streamjournal.emit.recovery import Orphan
from streamjournal.emit.spool import Destination
from streamjournal.emit.spool_folder import spool_folders

_NO_SPOOL: Final = (
    "set STREAMJOURNAL_SPOOL to a folder on a local disk; until then entries wait in memory only"
)
_RECOVER: Final = "`streamjournal recover` sends it"


class _Spool(NamedTuple):
    """A spool.

    Args:
        state: `alive`, `dead`, or `unreadable`.
        entries: that the stream has not acknowledged; None where its process is alive.
        problem: why it is unreadable.
    """

    path: Path
    state: str
    size: int
    entries: int | None = None
    destination: Destination | None = None
    problem: str = ""


async def check_spools(
    settings: Settings, here: Destination | None, seconds: float, token: str
) -> list[Check]:
    """The folder, and one line for each spool of a dead process that is not empty.

    Args:
        here: where the settings' own entries go, None if that cannot be told.
        token: of a scratch file's name.
    """
    checks = Checks("the spools' folder", seconds)
    folder = settings.spool_path
    if folder is None:
        checks.add(
            warning("spool folder", "off: entries that wait are in memory only", "unset STREAMJOURNAL_SPOOL")
        )
        return checks.done
    await checks.run("spool folder", partial(to_thread.run_sync, _look_usable, folder, token))
    found: list[_Spool] = []

    async def look() -> Check:
        found.extend(await to_thread.run_sync(_look_at_all, folder, abandon_on_cancel=True))
        return _summary(found)

    await checks.run("spools", look)
    for spool in found:
        if spool.state == "unreadable":
            remedy = f"look at {spool.path} by hand"
            checks.add(warning(f"spool {spool.path.name}", spool.problem, remedy, **_facts(spool)))
        elif spool.entries:
            checks.add(_left_behind(spool, here))
    return checks.done


def _look_usable(folder: Path, token: str) -> Check:
    """A spool needs a lock that excludes and space that can be reserved, which some mounts only pretend."""
    if not folder.is_dir():
        return skipped("spool folder", f"{folder} is made at the first emit")
    path = folder / f".doctor-{token}"
    try:
        first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return _look_at_file(folder, path, first)
        finally:
            os.close(first)
            path.unlink()
    except OSError as problem:
        return warning("spool folder", f"{folder}: {problem.strerror}", _NO_SPOOL)


def _look_at_file(folder: Path, path: Path, first: int) -> Check:
    os.posix_fallocate(first, 0, 4096)
    second = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ok("spool folder", f"{folder} can be written", path=str(folder))
    finally:
        os.close(second)
    return warning("spool folder", f"{folder}: its file system keeps no locks", _NO_SPOOL)


def _look_at_all(folder: Path) -> list[_Spool]:
    return [_look_at_one(path) for path in (spool_folders(folder) if folder.is_dir() else [])]


def _look_at_one(path: Path) -> _Spool:
    """The lock says whether a spool's process is alive; it is given back at once."""
    size = sum(file.stat().st_size for file in path.glob("*.seg"))
    try:
        orphan = Orphan(path)
    except SpoolBusyError:
        return _Spool(path, "alive", size)
    except (SpoolError, OSError) as problem:
        return _Spool(path, "unreadable", size, problem=str(problem))
    try:
        orphan.outboxes(Account())
        return _Spool(path, "dead", size, orphan.entries, orphan.destination)
    except SpoolError as problem:
        return _Spool(path, "unreadable", size, problem=str(problem))
    finally:
        orphan.close()


def _summary(spools: list[_Spool]) -> Check:
    counts = {state: sum(it.state == state for it in spools) for state in ("alive", "dead", "unreadable")}
    size = sum(it.size for it in spools)
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state != "unreadable")
    return ok("spools", f"{told}, {size:,} B", count=len(spools), bytes=size, **counts)


def _left_behind(spool: _Spool, here: Destination | None) -> Check:
    where = spool.destination
    to = f" for stream {where.stream}" + (f", bucket {where.bucket}" if where.bucket else "") if where else ""
    other = " (not these settings')" if where is not None and where != here else ""
    entries = "1 entry" if spool.entries == 1 else f"{spool.entries:,} entries"
    found = f"{entries} of a dead process{to}{other}"
    return warning(f"spool {spool.path.name}", found, _RECOVER, **_facts(spool))


def _facts(spool: _Spool) -> dict[str, object]:
    where = spool.destination
    return {
        "path": str(spool.path),
        "state": spool.state,
        "bytes": spool.size,
        "entries": spool.entries,
        "stream": where and where.stream,
        "bucket": where and where.bucket,
    }
