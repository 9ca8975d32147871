"""One journal on disk: its files, and how to read them. `journal_append` makes it longer.

=================  =========================================================================
file               holds
=================  =========================================================================
`journal.jsonl`    the lines, for `tail -f`, jq, DuckDB; only ever appended to
`.meta.json`       the committed size, version and metadata; replaced atomically, and
                   that replacement is the commit
`.lock`            the OS lock of whoever appends, and his intent; never unlinked
`.journal.new`     the first lines of a journal that is just being begun
=================  =========================================================================

Bytes beyond the committed size are no part of the journal yet. If the intent in the lock file
accounts for them, a writer died in mid-append, and the next one cuts them off. An intent names the
version that it adds to, so the commit itself makes it void: nothing has to be cleared, and nothing
can die in between. It also holds the first bytes that were to be written. If no intent accounts for
the bytes, a person or another tool wrote them: they stay, and the next commit takes them in.

Everything is opened relative to the folder's descriptor: if the folder is deleted and made anew
meanwhile, nothing of the old one can end up in the new one.

All of it survives the death of the process at any instant. Nothing is fsynced: against a power cut
the file system's own promises hold.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from streamjournal.core.errors import CommitRefusedError, StoreUnavailableError
from streamjournal.store.meta import Meta
from streamjournal.store.names import JOURNAL

META: Final = ".meta.json"
LOCK: Final = ".lock"
NEW_BODY: Final = ".journal.new"
FIRST: Final = 1  # the counter in the version of a journal that was just begun, for the first time
_MAX_META_FILE: Final = 64 * 1024
_MAX_LOOKS: Final = 8


class Committed(msgspec.Struct, frozen=True):
    """What `.meta.json` holds.

    Args:
        version: `counter.generation.commit`; of an adopted journal what `State.version` was before.
        size: bytes of the journal that are committed.
        modified: seconds since 1970.
        fields: `Meta.encode()`; empty for an adopted journal that nothing was added to yet.
    """

    version: str
    size: int
    modified: float
    fields: dict[str, str]


class State(NamedTuple):
    """A journal as it was found.

    Args:
        committed: None for a journal that only an older tool has written.
        file_size, mtime_ns: of `journal.jsonl`.
    """

    committed: Committed | None
    file_size: int
    mtime_ns: int

    @property
    def version(self) -> str:
        """Changes with every commit; of an adopted journal with every change that one can see."""
        return self.committed.version if self.committed else f"file-{self.mtime_ns}-{self.file_size}"

    @property
    def size(self) -> int:
        """Bytes that may be shown."""
        return min(self.committed.size, self.file_size) if self.committed else self.file_size

    @property
    def modified(self) -> float:
        """Seconds since 1970."""
        return self.committed.modified if self.committed else self.mtime_ns / 1e9

    @property
    def meta(self) -> Meta | None:
        """The metadata; None for an adopted journal.

        Raises:
            CommitRefusedError: it is of a newer version, or broken.
        """
        if self.committed is None:
            return None
        try:
            return Meta.decode(self.committed.fields)
        except (ValueError, KeyError) as problem:
            raise CommitRefusedError(f"journal metadata cannot be read: {problem}") from problem


def look(folder: Path) -> State | None:
    """A journal's state; None if there is none."""
    with opened(folder) as fd:
        if fd is None:
            return None
        committed = read_committed(fd)  # before the size: the body is written before its meta
        try:
            body = os.stat(JOURNAL, dir_fd=fd)
        except FileNotFoundError:
            return None
        return State(committed, body.st_size, body.st_mtime_ns)


def was_deleted(folder: Path) -> bool:
    """Whether there was a journal that is not there any more: its metadata is left."""
    with opened(folder) as fd:
        return fd is not None and left_behind(fd) is not None


def left_behind(fd: int) -> Committed | None:
    """The metadata of a journal that was deleted; None if there is a journal, or never was one.

    A writer that died while it began a journal leaves metadata without a journal, too; but then the
    lines that belong to it are still in `.journal.new`, and its version is the first. A journal that
    begins where one was deleted goes on counting, so such a death does not hide the deletion.
    """
    committed = read_committed(fd)
    if committed is None:
        return None
    begun = _size(NEW_BODY, fd) == committed.size and committed.version.startswith(f"{FIRST}.")
    # the journal is looked for last: whoever begins it just now makes it out of `.journal.new`
    return None if begun or _size(JOURNAL, fd) is not None else committed


def open_body(folder: Path) -> tuple[io.FileIO, State] | None:
    """A journal's open file, and the state that belongs to exactly that file."""
    with opened(folder) as fd:
        if fd is None:
            return None
        for _ in range(_MAX_LOOKS):
            before = read_committed(fd)
            with ExitStack() as closing:
                try:
                    file = closing.enter_context(io.FileIO(os.open(JOURNAL, os.O_RDONLY, dir_fd=fd)))
                except FileNotFoundError:
                    return None
                committed = read_committed(fd)
                status = os.fstat(file.fileno())
                if _generation(before) == _generation(committed):  # else it was begun again in between
                    closing.pop_all()
                    return file, State(committed, status.st_size, status.st_mtime_ns)
    raise StoreUnavailableError(f"{folder}: the journal is deleted and begun again all the time")


@contextmanager
def opened(folder: Path) -> Iterator[int | None]:
    """The folder's descriptor, to open everything in it by; None if there is no folder."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def read_committed(fd: int) -> Committed | None:
    """What was committed last in the folder; None if nothing of ours.

    Raises:
        CommitRefusedError: the file that says it is broken.
    """
    try:
        file = os.open(META, os.O_RDONLY, dir_fd=fd)
    except FileNotFoundError:
        return None
    try:
        text = os.read(file, _MAX_META_FILE)
    finally:
        os.close(file)
    try:
        return msgspec.json.decode(text, type=Committed)
    except msgspec.MsgspecError as problem:
        raise CommitRefusedError(f"{META} cannot be read: {problem}; delete it to go on without") from problem


def _size(name: str, fd: int) -> int | None:
    try:
        return os.stat(name, dir_fd=fd).st_size
    except FileNotFoundError:
        return None


def _generation(committed: Committed | None) -> str | None:
    return committed.fields.get("sj-generation") if committed else None
