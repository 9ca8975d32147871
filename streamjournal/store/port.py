"""What the pipeline needs of a store. Adapters: `s3`, `files` (embedded), `memory` (tests).

A journal only ever grows, and only by `append`: conditional on the version that the caller saw,
body and metadata in one atomic step. So bytes that were read once never change (as long as the
generation is the same), and a reader may fetch a journal in pieces without locking it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import msgspec

from streamjournal.core.errors import DeadLetterError
from streamjournal.store.meta import Meta


class Head(msgspec.Struct, frozen=True):
    """A journal's state at one version.

    Args:
        session_id: whose journal.
        size: bytes.
        version: opaque; changes with every commit (S3's ETag).
        modified: when it was committed, seconds since 1970.
        meta: None for a journal that an older tool wrote, or whose metadata somebody removed.
    """

    session_id: str
    size: int
    version: str
    modified: float
    meta: Meta | None


class Listed(NamedTuple):
    """A journal as a listing shows it: no metadata, since S3 lists none.

    Args:
        name: the session's name (`store.names`).
        session_id: None where only the journal's lines can tell it.
    """

    name: str
    session_id: str | None
    size: int
    version: str
    modified: float


class ListedLetter(NamedTuple):
    """A dead letter as a listing shows it.

    Args:
        size: bytes of the object.
        modified: when it was written, seconds since 1970.
    """

    key: str
    size: int
    modified: float


class Body(NamedTuple):
    """Bytes of a journal, and the head of exactly the version that they are of.

    Args:
        start: offset of the first byte.
        chunks: the bytes, in pieces of any size; can be gone through once.
        beyond: bytes after the committed ones, which are no part of the journal yet: being written just
            now, left by a writer that was killed, or put there by a person. Only files can have some.
    """

    head: Head
    start: int
    chunks: AsyncIterator[bytes]
    beyond: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """A record, or one of its entries, that is no entry.

    Args:
        stream: digest of the stream's identity (16 hex digits).
        index: place in an aggregated record; 0 for a whole record.
        reason: why, for a person.
        data: the bytes as they were.
        arrival_ms: when the stream took it, milliseconds since 1970; 0 if it never did.
    """

    stream: str
    shard: str
    sequence: str
    index: int
    partition_key: str
    reason: str
    data: bytes
    arrival_ms: int = 0


def decode_letter(key: str, data: bytes) -> DeadLetter:
    """The dead letter in an object, as every adapter writes it (JSON, the bytes in base64).

    Raises:
        DeadLetterError: somebody else wrote the object, or changed it.
    """
    try:
        return msgspec.json.decode(data, type=DeadLetter)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise DeadLetterError(key, str(problem)) from None


class Store(Protocol):
    """Journals, blobs and dead letters. Every method raises StoreUnavailableError when the store
    does not answer, and NotConfiguredError when there is no such bucket, or no credentials.
    """

    async def head(self, session_id: str) -> Head | None:
        """A journal's head; None if there is no journal."""
        ...

    async def was_deleted(self, session_id: str) -> bool:
        """Whether there was a journal of this session that somebody deleted, as far as the store still
        knows; False while there is one.
        """
        ...

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        """Make a journal longer, in one atomic step. Tried once: what an error means is resolved by
        the committer (`store.commit`).

        Args:
            base: the version to add to; None to begin a journal that must not exist yet.
            lines: whole lines, each with its newline. A body that lacks its last one gets it first.
            meta: the metadata of the new version.

        Raises:
            CommitConflictError: the journal is at another version, or exists; nothing was written.
            JournalGoneError: the journal of `base` does not exist any more; nothing was written.
            CommitUnknownError: no answer, or an ambiguous one.
            CommitRefusedError: this write will never work.
        """
        ...

    def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Body | None]:
        """Read a journal, or a part of it, with the head of the same version; None if there is none.

        Args:
            start: offset of the first byte; negative counts from the end. A start at or beyond the
                end gives no bytes.
            stop: offset after the last byte; None for the end.
        """
        ...

    def journals(self) -> AsyncIterator[Listed]:
        """Every journal, in the order of its keys (so `a-b/…` comes before `a/…`)."""
        ...

    async def head_named(self, name: str) -> Head | None:
        """The head of a listed journal, by its name; finds out the session id too."""
        ...

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        """Keep an entry's details that are too large for a record; the same call twice is harmless.

        Returns:
            The key for `get_blob`.
        """
        ...

    async def get_blob(self, key: str) -> bytes | None:
        """A blob's bytes, None if there is none."""
        ...

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        """Keep dead letters, and give their keys; the same letter again writes the same object."""
        ...

    def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        """Every dead letter, in the order of the keys. One that goes meanwhile may be listed or not."""
        ...

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        """A dead letter, None if there is none.

        Raises:
            DeadLetterError: the object is there, and is no dead letter.
        """
        ...

    async def remove_dead_letter(self, key: str) -> None:
        """Delete a dead letter; nothing happens if it is gone."""
        ...

    async def probe(self) -> None:
        """Make sure on a scratch object that a write with a wrong version is really refused.

        Raises:
            UnsafeStoreError: it is not.
        """
        ...

    async def aclose(self) -> None:
        """Free connections."""
        ...
