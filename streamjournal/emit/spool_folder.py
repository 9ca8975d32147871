"""The folders of the spools: made with their lock held, locked by who recovers them, removed whole.

`{spool}/{instance}/` holds a file `lock` and segments. A folder gets its name only after it is locked,
and loses it before its files are deleted, so whoever sees it under that name sees a whole spool:

- `.new-{instance}`: being made; its process was killed if it is an hour old and not locked.
- `.old-{instance}`: everything in it is acknowledged; being deleted.

Nothing is deleted that is not known to be ours: a person may point STREAMJOURNAL_SPOOL at a folder
that has other things in it.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from streamjournal.core.clock import Clock
from streamjournal.core.errors import SpoolBusyError, SpoolFormatError

MAGIC: Final = b"SJSPOOL\n"  # what a segment, and the file `lock`, begin with
LOCK: Final = "lock"
_NEW: Final = ".new-"
_OLD: Final = ".old-"
_SEGMENT: Final = re.compile(r"[0-9]{8,}\.seg")
_STALE_SECONDS: Final = 3600.0


def segment_name(number: int) -> str:
    """The file name of a spool's segment."""
    return f"{number:08d}.seg"


def segment_files(path: Path) -> list[Path]:
    """A spool's segments, by name."""
    return sorted(file for file in path.iterdir() if _SEGMENT.fullmatch(file.name))


def make_folder(parent: Path, instance: str) -> tuple[Path, int]:
    """A spool's folder and its locked file descriptor, put in place in one step."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = parent / f"{_NEW}{instance}"
    new.mkdir(mode=0o700)
    fd = os.open(new / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(fd, MAGIC)
        path = parent / instance
        new.rename(path)
    except BaseException:
        os.close(fd)
        _delete(new)
        raise
    return path, fd


def lock_folder(path: Path) -> int:
    """Lock a spool whose process is dead, and give the descriptor that holds the lock.

    Raises:
        SpoolBusyError: its process is alive, or another one recovers it or has just done so.
        SpoolFormatError: it is no spool.
    """
    fd = _try_lock(path)
    try:
        if os.pread(fd, len(MAGIC), 0) != MAGIC:
            raise SpoolFormatError(f"{path} is not a spool")
        for file in path.iterdir():
            if file.name != LOCK and not _SEGMENT.fullmatch(file.name):
                raise SpoolFormatError(f"{path} is not a spool: it holds {file.name}")
    except FileNotFoundError:
        os.close(fd)
        raise SpoolBusyError(f"{path} was recovered a moment ago") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(path: Path) -> int:
    try:
        fd = os.open(path / LOCK, os.O_RDWR)
    except FileNotFoundError:
        if path.is_dir():
            raise SpoolFormatError(f"{path} is not a spool: it has no file {LOCK}") from None
        raise SpoolBusyError(f"{path} is gone") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, there = os.fstat(fd), (path / LOCK).stat()
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        raise SpoolBusyError(f"{path} is in use") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove_folder(path: Path) -> None:
    """Delete a spool that the caller has locked: at once for everybody else, then file by file.

    Raises:
        OSError: no right to.
    """
    old = path.with_name(f"{_OLD}{path.name}")
    path.rename(old)
    _delete(old)


def spool_folders(folder: Path) -> list[Path]:
    """Every spool in the spools' folder, of living and of dead processes, oldest first."""
    found: list[tuple[int, str, Path]] = []
    for path in _subfolders(folder):
        if not path.name.startswith("."):
            try:
                found.append((path.stat().st_mtime_ns, path.name, path))
            except FileNotFoundError:  # recovered at this moment
                continue
    return [path for *_, path in sorted(found)]


def sweep(folder: Path, clock: Clock) -> int:
    """Delete what processes left that were killed while they made or deleted a spool.

    Returns:
        How many folders were deleted.
    """
    swept = 0
    for path in _subfolders(folder):
        if path.name.startswith((_NEW, _OLD)) and _is_left_behind(path, clock):
            _delete(path)
            swept += 1
    return swept


def _is_left_behind(path: Path, clock: Clock) -> bool:
    try:
        if path.name.startswith(_NEW) and clock.time() - path.stat().st_mtime < _STALE_SECONDS:
            return False
        os.close(_try_lock(path))
    except SpoolFormatError:
        return True  # killed before it made the lock, or after it deleted it
    except (SpoolBusyError, OSError):
        return False
    return True


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _delete(path: Path) -> None:
    """Delete our files, the lock last, since it says whose they are; then the folder."""
    try:
        for file in (*segment_files(path), path / LOCK):
            file.unlink(missing_ok=True)
        path.rmdir()
    except FileNotFoundError:  # somebody else sweeps too
        return
