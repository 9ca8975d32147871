"""The one way to make a journal on disk longer: under its lock, by an intent, in one commit.

`journal_folder` describes the files and the rules. The lock is held from the check of the version
to the end of the commit, so a writer that is stopped in mid-append and wakes up an hour later still
holds it, and finds everything as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from streamjournal.core.errors import (
    CommitConflictError,
    CommitUnknownError,
    JournalGoneError,
)
from streamjournal.store.extra_lines import counting_extra
from streamjournal.store.journal_folder import (
    FIRST,
    LOCK,
    META,
    NEW_BODY,
    Committed,
    State,
    left_behind,
    opened,
    read_committed,
)
from streamjournal.store.meta import Meta
from streamjournal.store.names import JOURNAL

_NEW_META: Final = ".meta.new"
_MODE: Final = 0o666  # the umask decides
_BEGINNING: Final = 96  # bytes; an entry's id and time are in them
_INTENT_BYTES: Final = 512  # always as long, so that a full disk cannot cut one short


class _Intent(msgspec.Struct, frozen=True, array_like=True):
    """What a writer is about to append.

    Args:
        version: the version that it adds to.
        offset, length: of the bytes in the file.
        beginning: the first of them; bytes that do not begin so are not this writer's.
    """

    version: str
    offset: int
    length: int
    beginning: bytes


def append(folder: Path, base: str | None, lines: bytes, meta: Meta, now: float) -> State | None:
    """Make a journal longer by whole lines; None if somebody else holds its lock just now.

    Args:
        base: the version to add to; None to begin the journal.
        now: seconds since 1970.

    Raises:
        CommitConflictError, JournalGoneError, CommitRefusedError, CommitUnknownError: see `store.port`.
        OSError: nothing was committed.
    """
    if base is None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with opened(folder) as fd:
            if fd is None:
                raise JournalGoneError(f"{folder} does not exist any more")
            with lock(fd) as lock_fd:
                if lock_fd is None:
                    return None
                if base is None:
                    return _begin(folder, fd, lines, meta, now)
                return _extend(folder, fd, lock_fd, base, lines, meta, now)
    except FileNotFoundError:  # nothing can be made in a folder that was deleted
        raise JournalGoneError(f"{folder} was deleted meanwhile") from None


@contextmanager
def lock(folder_fd: int) -> Iterator[int | None]:
    """Hold a journal's lock; gives the lock file's descriptor, or None if it is held elsewhere.

    Open file descriptions, not processes, hold it: two tasks of one process exclude each other too.
    """
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT, _MODE, dir_fd=folder_fd)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            # a lock file that somebody deleted excludes nobody; the next try makes another
            yield fd if os.fstat(fd).st_nlink else None
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do, if a fork has the descriptor too
    finally:
        os.close(fd)


def _begin(folder: Path, fd: int, lines: bytes, meta: Meta, now: float) -> State:
    """The metadata comes first and says nothing as long as there is no body: so there is no instant
    at which a reader finds a body without metadata and takes it for an older tool's.
    """
    if _exists(fd):
        raise CommitConflictError(f"{folder} has a journal already")
    before = left_behind(fd)
    version = _next_version(before, meta) if before else _version(FIRST, meta)
    body = os.open(NEW_BODY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE, dir_fd=fd)
    try:
        _write_all(body, lines)
    finally:
        os.close(body)
    committed = Committed(version, len(lines), now, meta.encode())
    _write_new_meta(fd, committed)
    _replace(fd, _NEW_META, META)
    _replace(fd, NEW_BODY, JOURNAL)
    return State(committed, len(lines), 0)


def _extend(folder: Path, fd: int, lock_fd: int, base: str, lines: bytes, meta: Meta, now: float) -> State:
    try:
        body = os.open(JOURNAL, os.O_RDWR | os.O_APPEND, dir_fd=fd)
    except FileNotFoundError:
        raise JournalGoneError(f"{folder} has no journal any more") from None
    try:
        status = os.fstat(body)
        state = State(read_committed(fd), status.st_size, status.st_mtime_ns)
        if state.version != base:
            raise CommitConflictError(f"{folder} is at version {state.version}, not {base}")
        before = state.committed or _adopt(fd, state, now)
        start = _cut_torn_bytes(body, lock_fd, before, status.st_size)
        if start < before.size:  # the journal goes on after what is left; `verify` tells what is missing
            import structlog  # it takes as long to import as a whole read may take

            _log = structlog.get_logger("streamjournal.store")
            _log.error("journal_was_cut", journal=f"{folder}/{JOURNAL}", size=start, committed=before.size)
        data = lines if _ends_with_newline(body, before, start) else b"\n" + lines
        _write_intent(lock_fd, _Intent(before.version, start, len(data), data[:_BEGINNING]))
        try:
            end = _write_at_end(body, data)
            known = Meta.decode(before.fields)
            meta = counting_extra(meta, known, body, min(before.size, start), end - len(lines), lines)
            committed = Committed(_next_version(before, meta), end, now, meta.encode())
            _write_new_meta(fd, committed)
        except OSError:
            _undo(body, lock_fd, start, len(data))
            raise
        _replace(fd, _NEW_META, META)
        return State(committed, end, 0)
    finally:
        os.close(body)


def _adopt(fd: int, state: State, now: float) -> Committed:
    """Say how long an older tool's journal is, before anything is added: from here on torn bytes are
    told from its own.
    """
    committed = Committed(state.version, state.file_size, now, {})
    _write_new_meta(fd, committed)
    _replace(fd, _NEW_META, META)
    return committed


def _ends_with_newline(body: int, before: Committed, size: int) -> bool:
    if size == 0 or (before.fields and size == before.size):  # what we committed does
        return True
    return os.pread(body, 1, size - 1) == b"\n"


def _write_at_end(body: int, data: bytes) -> int:
    """Append, and give the file's size then; it is more than expected if another tool, which knows
    of no lock, came in between: O_APPEND lets neither write over the other.
    """
    _write_all(body, data)
    return os.lseek(body, 0, os.SEEK_CUR)


def _cut_torn_bytes(body: int, lock_fd: int, before: Committed, size: int) -> int:
    """Cut off what a dead writer left beyond the committed bytes; gives the size then."""
    if size <= before.size:
        return size
    intent = _read_intent(lock_fd)
    if intent is None or intent.version != before.version:
        return size
    if not before.size <= intent.offset <= size <= intent.offset + intent.length:
        return size  # more than the dead writer meant to write: somebody else wrote as well
    found = os.pread(body, min(_BEGINNING, size - intent.offset), intent.offset)
    if not intent.beginning.startswith(found):
        return size  # the writer died before it wrote anything, and then somebody else wrote
    os.ftruncate(body, intent.offset)
    return intent.offset


def _undo(body: int, lock_fd: int, start: int, length: int) -> None:
    # if this fails too, the intent stays, and the next commit does the same
    with suppress(OSError):
        if os.fstat(body).st_size <= start + length:
            os.ftruncate(body, start)
            os.ftruncate(lock_fd, 0)


def _write_intent(lock_fd: int, intent: _Intent) -> None:
    os.pwrite(lock_fd, msgspec.json.encode(intent).ljust(_INTENT_BYTES), 0)


def _read_intent(lock_fd: int) -> _Intent | None:
    try:
        return msgspec.json.decode(os.pread(lock_fd, _INTENT_BYTES, 0), type=_Intent)
    except msgspec.MsgspecError:  # none was ever written, or it was withdrawn
        return None


def _write_new_meta(fd: int, committed: Committed) -> None:
    file = os.open(_NEW_META, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE, dir_fd=fd)
    try:
        _write_all(file, msgspec.json.encode(committed))
    finally:
        os.close(file)


def _replace(fd: int, new: str, name: str) -> None:
    try:
        os.replace(new, name, src_dir_fd=fd, dst_dir_fd=fd)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise CommitUnknownError(f"{name} may or may not have been replaced: {problem}") from problem


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.write(fd, rest)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


def _exists(fd: int) -> bool:
    try:
        os.stat(JOURNAL, dir_fd=fd)
    except FileNotFoundError:
        return False
    return True


def _next_version(before: Committed, meta: Meta) -> str:
    counter = before.version.partition(".")[0]
    return _version(int(counter) + 1 if counter.isdigit() else 1, meta)


def _version(counter: int, meta: Meta) -> str:
    return f"{counter}.{meta.generation}.{meta.commit}"
