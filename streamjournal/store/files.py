"""The embedded store: plain files under one folder, safe between any number of processes.

A journal is `{home}/{prefix}{session}/journal.jsonl`, which other tools read as it is; see
`journal_folder` for what lies beside it. Blocking calls run in a worker thread, one hop per call.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import msgspec
from anyio.to_thread import run_sync

from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import CommitConflictError, StoreUnavailableError, UnsafeStoreError
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.summary import Summary
from streamjournal.store import journal_append, journal_folder
from streamjournal.store.first_line import MAX_FIRST_LINE, session_id_in
from streamjournal.store.journal_folder import State
from streamjournal.store.meta import Meta
from streamjournal.store.names import (
    DEAD_LETTERS,
    SCRATCH,
    blob_key,
    dead_letter_key,
    is_blob_key,
    is_dead_letter_key,
    session_name,
    session_of,
)
from streamjournal.store.os_errors import explained
from streamjournal.store.port import Body, DeadLetter, Head, Listed, ListedLetter, decode_letter

CHUNK: Final = 2**20  # bytes per read, and so the memory that a reader needs
_LISTED_AT_ONCE: Final = 256
_LONGEST_PAUSE: Final = 0.05

T = TypeVar("T")


class FilesStore:
    """Journals, blobs and dead letters as files.

    Args:
        home: the folder of all embedded data; it is made when something is written.
        prefix: what the journals' names under `home` start with.
        clock: for commit times and waits.
        lock_timeout: seconds to wait for another process that appends to the same journal.
    """

    def __init__(
        self,
        home: Path,
        *,
        prefix: str = "journals/",
        clock: Clock = SYSTEM,
        lock_timeout: float = 5.0,
    ) -> None:
        self.home = home
        self._prefix = prefix
        self._clock = clock
        self._lock_timeout = lock_timeout

    async def head(self, session_id: str) -> Head | None:
        """See `store.port.Store.head`."""
        state = await self._run(journal_folder.look, self._folder(session_name(session_id)))
        return _head(session_id, state)

    async def was_deleted(self, session_id: str) -> bool:
        """See `store.port.Store.was_deleted`; a folder that was deleted as a whole leaves no trace."""
        return await self._run(journal_folder.was_deleted, self._folder(session_name(session_id)))

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        """See `store.port.Store.append`.

        Raises:
            StoreUnavailableError: the disk is full, or another process kept the lock too long; nothing
                was written.
        """
        folder = self._folder(session_name(session_id))
        state = await self._append(folder, base.version if base else None, lines, meta)
        head = _head(session_id, state)
        assert head is not None
        return head

    @asynccontextmanager
    async def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body | None]:
        """See `store.port.Store.open`."""
        opened = await self._run(journal_folder.open_body, self._folder(session_name(session_id)))
        if opened is None:
            yield None
            return
        file, state = opened
        with file:
            head = _head(session_id, state)
            assert head is not None
            first = max(0, head.size + start) if start < 0 else min(start, head.size)
            end = head.size if stop is None else min(stop, head.size)
            async with aclosing(self._pieces(file.fileno(), first, end)) as pieces:
                yield Body(head, first, pieces, state.file_size - state.size)

    async def journals(self) -> AsyncIterator[Listed]:
        """See `store.port.Store.journals`."""
        folder, stem = self._listed_folder()
        names = await self._run(_names, folder, stem)
        for i in range(0, len(names), _LISTED_AT_ONCE):
            for listed in await self._run(self._list, names[i : i + _LISTED_AT_ONCE]):
                yield listed

    async def head_named(self, name: str) -> Head | None:
        """See `store.port.Store.head_named`."""
        if "/" in name or name in ("", ".", ".."):
            return None
        return await self._run(_look_named, self._folder(name), name)

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        """See `store.port.Store.put_blob`."""
        key = blob_key(session_id, entry_id)
        await self._run(_write_atomically, self.home / key, data, self._clock.draw_id())
        return key

    async def get_blob(self, key: str) -> bytes | None:
        """See `store.port.Store.get_blob`."""
        return await self._run(_read, self.home / key) if is_blob_key(key) else None

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        """See `store.port.Store.put_dead_letters`."""
        keys = [dead_letter_key(it.stream, it.shard, it.sequence, it.index) for it in letters]
        files = [(self.home / key, msgspec.json.encode(it)) for key, it in zip(keys, letters, strict=True)]
        await self._run(_write_each, files, self._clock.draw_id())
        return keys

    async def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        """See `store.port.Store.list_dead_letters`."""
        for letter in await self._run(_letters, self.home):
            yield letter

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        """See `store.port.Store.get_dead_letter`."""
        data = await self._run(_read, self.home / key) if is_dead_letter_key(key) else None
        return None if data is None else decode_letter(key, data)

    async def remove_dead_letter(self, key: str) -> None:
        """See `store.port.Store.remove_dead_letter`."""
        if is_dead_letter_key(key):
            await self._run(partial((self.home / key).unlink, missing_ok=True))

    async def probe(self) -> None:
        """See `store.port.Store.probe`; makes sure of the OS lock too, which some mounts only pretend."""
        folder = self.home / SCRATCH / self._clock.draw_id()
        try:
            await self._probe_versions(folder)
            await self._run(_probe_lock, folder)
        finally:
            with anyio.CancelScope(shield=True):
                await self._run(partial(shutil.rmtree, folder, ignore_errors=True))

    async def aclose(self) -> None:
        """See `store.port.Store.aclose`; no file stays open between calls."""

    async def _append(self, folder: Path, base: str | None, lines: bytes, meta: Meta) -> State:
        """Try until the lock is free. The waits are not the thread's, so they can be cancelled."""
        deadline = self._clock.monotonic() + self._lock_timeout
        pause = 0.001
        while True:
            now = self._clock.time()
            state = await self._run(journal_append.append, folder, base, lines, meta, now)
            if state is not None:
                return state
            if self._clock.monotonic() >= deadline:
                raise StoreUnavailableError(
                    f"{folder}: another process has held the journal's lock for {self._lock_timeout:g} s; "
                    f"see who it is with: fuser {folder / journal_folder.LOCK}"
                )
            await anyio.sleep(self._clock.jitter(pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _pieces(self, file: int, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        while start < stop:
            piece = await self._run(os.pread, file, min(CHUNK, stop - start), start)
            if not piece:
                raise StoreUnavailableError(f"a journal under {self.home} was cut while it was read")
            start += len(piece)
            yield piece

    async def _probe_versions(self, folder: Path) -> None:
        meta = Meta("probe", self._clock.draw_id(), None, WriterNumbers(), Summary())
        first = await self._append(folder, None, b"{}\n", meta)
        await self._append(folder, first.version, b"{}\n", meta)
        for base, what in ((first.version, "an old version"), (None, "no journal at all")):
            try:
                await self._append(folder, base, b"{}\n", meta)
            except CommitConflictError:
                continue
            raise UnsafeStoreError(f"{self.home}: an append that expected {what} was not refused")

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        with explained(self.home):
            return await run_sync(partial(function, *args))

    def _folder(self, name: str) -> Path:
        return self.home / f"{self._prefix}{name}"

    def _listed_folder(self) -> tuple[Path, str]:
        folder, _, stem = self._prefix.rpartition("/")
        return self.home / folder, stem

    def _list(self, names: list[str]) -> list[Listed]:
        found = ((name, journal_folder.look(self._folder(name))) for name in names)
        return [
            Listed(name, session_of(name), state.size, state.version, state.modified)
            for name, state in found
            if state is not None
        ]


def _head(session_id: str, state: State | None) -> Head | None:
    if state is None:
        return None
    return Head(session_id, state.size, state.version, state.modified, state.meta)


def _look_named(folder: Path, name: str) -> Head | None:
    session_id = session_of(name)
    if session_id is not None:
        return _head(session_id, journal_folder.look(folder))
    opened = journal_folder.open_body(folder)
    if opened is None:
        return None
    file, state = opened
    with file:
        line = os.pread(file.fileno(), min(MAX_FIRST_LINE, state.size), 0).partition(b"\n")[0]
    return _head(session_id_in(line, name), state)


def _names(folder: Path, stem: str) -> list[str]:
    """Folders that may be journals', in the order of S3's keys, so that every store lists alike.

    Hidden ones count: a session's id may begin with a dot. Names that are no UTF-8 are nobody's.
    """
    try:
        with os.scandir(folder) as found:
            names = [it.name[len(stem) :] for it in found if it.name.startswith(stem) and it.is_dir()]
    except FileNotFoundError:
        return []
    ours = (name for name in names if name and not any("\ud800" <= c <= "\udfff" for c in name))
    return sorted(ours, key=lambda name: name.encode() + b"/")


def _letters(home: Path) -> list[ListedLetter]:
    """The dead letters' files, in the order of S3's keys; one that is removed meanwhile is left out."""
    found = []
    for path in (home / DEAD_LETTERS).glob("*/*/*.json"):
        key = path.relative_to(home).as_posix()
        if is_dead_letter_key(key):
            try:
                known = path.stat()
            except FileNotFoundError:
                continue
            found.append(ListedLetter(key, known.st_size, known.st_mtime))
    return sorted(found)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_each(files: list[tuple[Path, bytes]], token: str) -> None:
    for path, data in files:
        _write_atomically(path, data, token)


def _write_atomically(path: Path, data: bytes, token: str) -> None:
    """`token` keeps two writers of the same file apart until one of them has replaced it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.parent / f".new-{token}"
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _probe_lock(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with journal_append.lock(fd) as first, journal_append.lock(fd) as second:
            if first is None or second is not None:
                raise UnsafeStoreError(
                    f"{folder.parent}: this file system does not keep locks; "
                    "set STREAMJOURNAL_HOME to a folder on a local disk"
                )
    finally:
        os.close(fd)
