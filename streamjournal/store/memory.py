"""A store in memory, for tests and the simulation: it keeps every version of every journal.

It holds what a real store would hold, metadata as text included, so that what does not survive
encoding does not survive here either. It uses no threads and never waits, so that it runs under
virtual time; faults are a wrapper's business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import NamedTuple

import msgspec
from anyio.lowlevel import checkpoint

from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import CommitConflictError, JournalGoneError
from streamjournal.store.first_line import session_id_in
from streamjournal.store.meta import Meta
from streamjournal.store.names import blob_key, dead_letter_key, is_blob_key, session_name, session_of
from streamjournal.store.port import Body, DeadLetter, Head, Listed, ListedLetter, decode_letter

_CHUNK = 2**20


class Version(NamedTuple):
    """One version of a journal, as it was committed.

    Args:
        fields: the metadata as text; None for a journal of an older tool.
    """

    body: bytes
    fields: dict[str, str] | None
    version: str
    modified: float

    @property
    def meta(self) -> Meta | None:
        """The metadata, decoded anew, since callers go on counting in it."""
        return None if self.fields is None else Meta.decode(self.fields)


class MemoryStore:
    """Journals, blobs and dead letters in dicts.

    Args:
        clock: for the time of a commit.

    Attributes:
        versions: name of a session -> the versions of its journal, oldest first.
        deleted: the versions of journals that `delete_journal` took away.
        blobs: key -> bytes.
        dead_letters: key -> the letter.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._numbers = count(1)
        self.versions: dict[str, list[Version]] = {}
        self.deleted: list[list[Version]] = []
        self._deleted_names: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self._letters_written: dict[str, float] = {}

    # The port

    async def head(self, session_id: str) -> Head | None:
        """See `store.port.Store.head`."""
        await checkpoint()
        return self._head(session_id, self._latest(session_name(session_id)))

    async def was_deleted(self, session_id: str) -> bool:
        """See `store.port.Store.was_deleted`; it never forgets."""
        await checkpoint()
        name = session_name(session_id)
        return name in self._deleted_names and name not in self.versions

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        """See `store.port.Store.append`. Atomic: nothing is awaited between check and write."""
        await checkpoint()
        name = session_name(session_id)
        latest = self._latest(name)
        if base is not None and latest is None:
            raise JournalGoneError(f"journal {session_id} does not exist any more")
        if (base and base.version) != (latest and latest.version):
            raise CommitConflictError(f"journal {session_id} is at version {latest and latest.version}")
        body = latest.body if latest else b""
        if body and not body.endswith(b"\n"):
            body += b"\n"
        committed = self._add(name, body + lines, meta.encode())
        head = self._head(session_id, committed)
        assert head is not None
        return head

    @asynccontextmanager
    async def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body | None]:
        """See `store.port.Store.open`."""
        await checkpoint()
        latest = self._latest(session_name(session_id))
        head = self._head(session_id, latest)
        if head is None or latest is None:
            yield None
            return
        first = max(0, head.size + start) if start < 0 else min(start, head.size)
        async with aclosing(_pieces(latest.body[first:stop])) as pieces:
            yield Body(head, first, pieces)

    async def journals(self) -> AsyncIterator[Listed]:
        """See `store.port.Store.journals`."""
        for name in sorted(self.versions, key=lambda name: name.encode() + b"/"):
            await checkpoint()
            if latest := self._latest(name):
                yield Listed(name, session_of(name), len(latest.body), latest.version, latest.modified)

    async def head_named(self, name: str) -> Head | None:
        """See `store.port.Store.head_named`."""
        await checkpoint()
        latest = self._latest(name)
        if latest is None:
            return None
        session_id = session_of(name)
        if session_id is None:
            session_id = session_id_in(latest.body.partition(b"\n")[0], name)
        return self._head(session_id, latest)

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        """See `store.port.Store.put_blob`."""
        await checkpoint()
        key = blob_key(session_id, entry_id)
        self.blobs[key] = data
        return key

    async def get_blob(self, key: str) -> bytes | None:
        """See `store.port.Store.get_blob`."""
        await checkpoint()
        return self.blobs.get(key) if is_blob_key(key) else None

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        """See `store.port.Store.put_dead_letters`."""
        await checkpoint()
        keys = [dead_letter_key(it.stream, it.shard, it.sequence, it.index) for it in letters]
        for key, letter in zip(keys, letters, strict=True):
            self.dead_letters[key] = decode_letter(key, msgspec.json.encode(letter))
            self._letters_written[key] = self._clock.time()
        return keys

    async def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        """See `store.port.Store.list_dead_letters`."""
        for key in sorted(self.dead_letters):
            await checkpoint()
            if letter := self.dead_letters.get(key):
                size = len(msgspec.json.encode(letter))
                yield ListedLetter(key, size, self._letters_written.get(key, 0.0))

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        """See `store.port.Store.get_dead_letter`."""
        await checkpoint()
        return self.dead_letters.get(key)

    async def remove_dead_letter(self, key: str) -> None:
        """See `store.port.Store.remove_dead_letter`."""
        await checkpoint()
        self.dead_letters.pop(key, None)
        self._letters_written.pop(key, None)

    async def probe(self) -> None:
        """See `store.port.Store.probe`; conditions always hold here."""
        await checkpoint()

    async def aclose(self) -> None:
        """See `store.port.Store.aclose`."""
        await checkpoint()

    # Test controls

    def delete_journal(self, session_id: str) -> None:
        """Take a journal away behind everybody's back."""
        name = session_name(session_id)
        self.deleted.append(self.versions.pop(name))
        self._deleted_names.add(name)

    def adopt_journal(self, session_id: str, body: bytes) -> None:
        """Put a journal of an older tool there: a body without metadata."""
        self._add(session_name(session_id), body, None)

    def body(self, session_id: str) -> bytes:
        """A journal's bytes; empty if there is no journal."""
        latest = self._latest(session_name(session_id))
        return latest.body if latest else b""

    def _latest(self, name: str) -> Version | None:
        versions = self.versions.get(name)
        return versions[-1] if versions else None

    def _add(self, name: str, body: bytes, fields: dict[str, str] | None) -> Version:
        version = Version(body, fields, str(next(self._numbers)), self._clock.time())
        self.versions.setdefault(name, []).append(version)
        return version

    def _head(self, session_id: str, version: Version | None) -> Head | None:
        if version is None:
            return None
        return Head(session_id, len(version.body), version.version, version.modified, version.meta)


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), _CHUNK):
        await checkpoint()
        yield data[start : start + _CHUNK]
