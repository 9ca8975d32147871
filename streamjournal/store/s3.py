"""The store on S3: journals as objects, made longer by conditional writes (see `s3_append`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import anyio
import msgspec

from streamjournal.core.aws import AwsClient, error_code
from streamjournal.core.clock import Clock
from streamjournal.core.errors import (
    CommitRefusedError,
    NotConfiguredError,
    StoreUnavailableError,
    StreamjournalError,
)
from streamjournal.store.body_cache import BodyCache
from streamjournal.store.first_line import MAX_FIRST_LINE, session_id_in
from streamjournal.store.meta import Meta
from streamjournal.store.names import (
    DEAD_LETTERS,
    JOURNAL,
    SCRATCH,
    blob_key,
    dead_letter_key,
    is_blob_key,
    is_dead_letter_key,
    journal_key,
    name_in_key,
    session_of,
)
from streamjournal.store.port import Body, DeadLetter, Head, Listed, ListedLetter, decode_letter
from streamjournal.store.s3_append import Appender
from streamjournal.store.s3_errors import (
    S3_ERRORS,
    explain_s3,
    explained,
    is_beyond_end,
    is_delete_marker,
    is_missing,
)
from streamjournal.store.s3_probe import probe
from streamjournal.store.s3_ranges import content_range, first_byte, http_range, may_have_bytes

CHUNK: Final = 2**20
_READ_ATTEMPTS: Final = 4
_COMMIT_TIMEOUT: Final = 60.0  # seconds; S3 copies up to a gigabyte within one call
_MAX_LOOKS: Final = 4
_AT_ONCE: Final = 16  # dead letters being written


class _BeyondEndError(Exception):
    """No byte of the object is in the range."""


class S3Store:
    """Journals, blobs and dead letters in one bucket.

    Args:
        bucket: its name.
        prefix: what the journals' keys start with.
        clock: for a commit's time, and the scratch object's name.
        client: used for everything, its SDK retries off; by default two clients are opened, one
            without retries for commits, one with them for everything else.
        cache_bytes: bytes of journals' bodies kept to be uploaded again with the next lines.
        append_threshold: bytes from which on a commit uploads only the new lines; at least 5 MiB.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "journals/",
        clock: Clock,
        client: AwsClient | None = None,
        cache_bytes: int = 64 * 2**20,
        append_threshold: int = 8 * 2**20,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._clock = clock
        commits = client or AwsClient("s3", attempts=1, timeout=_COMMIT_TIMEOUT)
        self._client = client or AwsClient("s3", attempts=_READ_ATTEMPTS)
        self._clients = {commits, self._client}
        self._commits = commits
        self._appender = Appender(commits, bucket, BodyCache(cache_bytes), threshold=append_threshold)
        self._bucket_seen = False

    async def head(self, session_id: str) -> Head | None:
        """See `store.port.Store.head`; one HeadObject."""
        return await self._head(journal_key(self._prefix, session_id), session_id)

    async def was_deleted(self, session_id: str) -> bool:
        """See `store.port.Store.was_deleted`; one HeadObject. Only a bucket with versioning knows."""
        s3 = await self._client.get()
        try:
            await s3.head_object(Bucket=self._bucket, Key=journal_key(self._prefix, session_id))
        except S3_ERRORS as problem:
            if is_missing(problem):
                return is_delete_marker(problem)
            raise explain_s3(problem, self._bucket) from problem
        return False

    async def append(self, session_id: str, base: Head | None, lines: bytes, meta: Meta) -> Head:
        """See `store.port.Store.append`. A 409 counts as a conflict: S3 has written nothing."""
        key = journal_key(self._prefix, session_id)
        written = await self._appender.append(key, base, lines, meta.encode())
        return Head(session_id, written.size, written.etag, self._clock.time(), meta)

    @asynccontextmanager
    async def open(
        self, session_id: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body | None]:
        """See `store.port.Store.open`; one GetObject, streamed."""
        key = journal_key(self._prefix, session_id)
        answer = await self._find(key, session_id, start, stop)
        if answer is None:
            yield None
            return
        if isinstance(answer, Head):
            yield Body(answer, first_byte(start, answer.size), _nothing())
            return
        async with answer["Body"] as stream:
            first, size = content_range(answer)
            head = self._head_of(answer, session_id, size)
            length = size - first if stop is None else max(0, min(stop, size) - first)
            async with aclosing(self._pieces(stream, length)) as pieces:
                yield Body(head, first, pieces)

    async def journals(self) -> AsyncIterator[Listed]:
        """See `store.port.Store.journals`; one ListObjectsV2 per 1,000 objects."""
        async with aclosing(self._listed(self._prefix)) as objects:
            async for found in objects:
                name = name_in_key(self._prefix, found["Key"])
                if name is not None:
                    modified = found["LastModified"].timestamp()
                    yield Listed(name, session_of(name), found["Size"], found["ETag"], modified)

    async def head_named(self, name: str) -> Head | None:
        """See `store.port.Store.head_named`; also reads the first line, if the name is a hash."""
        key = f"{self._prefix}{name}/{JOURNAL}"
        if name_in_key(self._prefix, key) is None:
            return None
        session_id = session_of(name)
        if session_id is not None:
            return await self._head(key, session_id)
        answer = await self._get(key, None)
        if answer is None:
            return None
        async with answer["Body"] as stream:
            session_id = session_id_in(await self._first_line(stream, answer["ContentLength"]), name)
        return self._head_of(answer, session_id, answer["ContentLength"])

    async def put_blob(self, session_id: str, entry_id: str, data: bytes) -> str:
        """See `store.port.Store.put_blob`."""
        key = blob_key(session_id, entry_id)
        await self._put(key, data)
        return key

    async def get_blob(self, key: str) -> bytes | None:
        """See `store.port.Store.get_blob`."""
        return await self._read(key) if is_blob_key(key) else None

    async def put_dead_letters(self, letters: Sequence[DeadLetter]) -> list[str]:
        """See `store.port.Store.put_dead_letters`."""
        keys = [dead_letter_key(it.stream, it.shard, it.sequence, it.index) for it in letters]
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        failures: list[StreamjournalError] = []

        async def put(key: str, letter: DeadLetter) -> None:
            async with limiter:
                try:
                    await self._put(key, msgspec.json.encode(letter))
                except StreamjournalError as problem:
                    failures.append(problem)

        async with anyio.create_task_group() as tasks:
            for key, letter in zip(keys, letters, strict=True):
                tasks.start_soon(put, key, letter)
        if failures:
            raise failures[0]
        return keys

    async def list_dead_letters(self) -> AsyncIterator[ListedLetter]:
        """See `store.port.Store.list_dead_letters`; one ListObjectsV2 per 1,000 objects."""
        async with aclosing(self._listed(DEAD_LETTERS)) as objects:
            async for found in objects:
                if is_dead_letter_key(found["Key"]):
                    yield ListedLetter(found["Key"], found["Size"], found["LastModified"].timestamp())

    async def get_dead_letter(self, key: str) -> DeadLetter | None:
        """See `store.port.Store.get_dead_letter`."""
        data = await self._read(key) if is_dead_letter_key(key) else None
        return None if data is None else decode_letter(key, data)

    async def remove_dead_letter(self, key: str) -> None:
        """See `store.port.Store.remove_dead_letter`; `init` turns versioning on, so the bytes stay."""
        if is_dead_letter_key(key):
            s3 = await self._client.get()
            with explained(self._bucket):
                await s3.delete_object(Bucket=self._bucket, Key=key)

    async def probe(self) -> None:
        """See `store.port.Store.probe`; asks with the client that commits."""
        await probe(await self._commits.get(), self._bucket, SCRATCH + self._clock.draw_id())

    async def aclose(self) -> None:
        """See `store.port.Store.aclose`."""
        for client in self._clients:
            await client.aclose()

    async def _head(self, key: str, session_id: str) -> Head | None:
        s3 = await self._client.get()
        try:
            answer = await s3.head_object(Bucket=self._bucket, Key=key)
        except S3_ERRORS as problem:
            if not is_missing(problem):
                raise explain_s3(problem, self._bucket) from problem
            await self._check_bucket(s3)
            return None
        return self._head_of(answer, session_id, answer["ContentLength"])

    async def _check_bucket(self, s3: Any) -> None:
        """Tell a missing bucket from a missing object, once: the answer to a HEAD does not."""
        if self._bucket_seen:
            return
        try:
            await s3.head_bucket(Bucket=self._bucket)
        except S3_ERRORS as problem:
            if is_missing(problem) or error_code(problem) == "NoSuchBucket":
                raise NotConfiguredError(
                    f"bucket {self._bucket} does not exist; make it with `streamjournal init`, "
                    "or set STREAMJOURNAL_BUCKET"
                ) from problem
            raise explain_s3(problem, self._bucket) from problem
        self._bucket_seen = True

    async def _find(
        self, key: str, session_id: str, start: int, stop: int | None
    ) -> dict[str, Any] | Head | None:
        """GetObject's answer; a head where no byte of the journal is asked for; None if there is none."""
        for _ in range(_MAX_LOOKS):
            if may_have_bytes(start, stop):
                try:
                    return await self._get(key, http_range(start, stop))
                except _BeyondEndError:
                    pass  # only a HEAD says where the end is
            head = await self._head(key, session_id)
            if head is None or start >= head.size or not head.size or not may_have_bytes(start, stop):
                return head
            # it was shorter and has grown since: ask again
        raise StoreUnavailableError(f"bucket {self._bucket}: {key} has bytes, and gives none")

    async def _get(self, key: str, bytes_range: str | None) -> dict[str, Any] | None:
        """GetObject's answer; None if there is no such object."""
        s3 = await self._client.get()
        arguments = {"Range": bytes_range} if bytes_range else {}
        try:
            answer: dict[str, Any] = await s3.get_object(Bucket=self._bucket, Key=key, **arguments)
        except S3_ERRORS as problem:
            if is_missing(problem):
                return None
            if is_beyond_end(problem):
                raise _BeyondEndError from problem
            raise explain_s3(problem, self._bucket) from problem
        return answer

    async def _listed(self, prefix: str) -> AsyncGenerator[dict[str, Any], None]:
        """Every object whose key starts so, a page of 1,000 after the other."""
        s3 = await self._client.get()
        pages = aiter(s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix))
        while True:
            with explained(self._bucket):
                page = await anext(pages, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                yield found

    async def _read(self, key: str) -> bytes | None:
        """All of an object's bytes; None if there is no such object."""
        answer = await self._get(key, None)
        if answer is None:
            return None
        async with answer["Body"] as stream:
            with explained(self._bucket):
                data: bytes = await stream.read()
        return data

    async def _put(self, key: str, data: bytes) -> None:
        s3 = await self._client.get()
        with explained(self._bucket):
            await s3.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType="application/json")

    def _head_of(self, answer: dict[str, Any], session_id: str, size: int) -> Head:
        try:
            meta = Meta.decode(answer.get("Metadata", {}))
        except (ValueError, KeyError) as problem:
            raise CommitRefusedError(
                f"the metadata of {session_id}'s journal cannot be read: {problem}"
            ) from problem
        return Head(session_id, size, answer["ETag"], answer["LastModified"].timestamp(), meta)

    async def _pieces(self, stream: Any, length: int) -> AsyncGenerator[bytes, None]:
        while length:
            with explained(self._bucket):
                piece: bytes = await stream.read(min(CHUNK, length))
            if not piece:
                return
            length -= len(piece)
            yield piece

    async def _first_line(self, stream: Any, length: int) -> bytes:
        line = b""
        async with aclosing(self._pieces(stream, min(length, MAX_FIRST_LINE))) as pieces:
            async for piece in pieces:
                before, newline, _ = piece.partition(b"\n")
                line += before
                if newline:
                    break
        return line


async def _nothing() -> AsyncIterator[bytes]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece
