"""Every store that ships, each with a hand that reaches behind its back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

from streamjournal.core.clock import SYSTEM
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.store.files import FilesStore
from streamjournal.store.memory import MemoryStore
from streamjournal.store.meta import Meta
from streamjournal.store.names import journal_key
from streamjournal.store.port import Head, Store

PREFIX = "journals/"
MIB = 2**20


class Rig(Protocol):
    """A store, and what a person with access to its data could do."""

    store: Store

    def adopt(self, session_id: str, body: bytes) -> None:
        """Put a journal there as an older tool does: a body and nothing else."""

    def delete(self, session_id: str) -> None:
        """Take a journal away."""

    def delete_traceably(self, session_id: str) -> None:
        """Take a journal away in the way of which the store keeps a trace."""

    def raw(self, session_id: str) -> bytes:
        """A journal's bytes as any other tool sees them."""


class MemoryRig:
    """The store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.adopt = self.store.adopt_journal
        self.delete = self.store.delete_journal
        self.delete_traceably = self.store.delete_journal
        self.raw = self.store.body


class FilesRig:
    """The store in files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = FilesStore(home, prefix=PREFIX, lock_timeout=5.0)

    def path(self, session_id: str) -> Path:
        """The journal's file."""
        return self.home / journal_key(PREFIX, session_id)

    def adopt(self, session_id: str, body: bytes) -> None:
        """See `Rig`."""
        self.path(session_id).parent.mkdir(parents=True)
        self.path(session_id).write_bytes(body)

    def delete(self, session_id: str) -> None:
        """See `Rig`."""
        shutil.rmtree(self.path(session_id).parent)

    def delete_traceably(self, session_id: str) -> None:
        """See `Rig`; the file alone, not its folder."""
        self.path(session_id).unlink()

    def raw(self, session_id: str) -> bytes:
        """See `Rig`."""
        return self.path(session_id).read_bytes()


class S3Rig:
    """The store on S3; `plain` is a boto3 client."""

    def __init__(self, plain: Any, bucket: str, **arguments: Any) -> None:
        from streamjournal.store.s3 import S3Store  # a writer process needs no AWS client

        self.client = plain
        self.bucket = bucket
        arguments = {"append_threshold": 5 * MIB, **arguments}
        self.store = S3Store(bucket, prefix=PREFIX, clock=SYSTEM, **arguments)

    def adopt(self, session_id: str, body: bytes) -> None:
        """See `Rig`."""
        self.client.put_object(Bucket=self.bucket, Key=journal_key(PREFIX, session_id), Body=body)

    def delete(self, session_id: str) -> None:
        """See `Rig`."""
        self.client.delete_object(Bucket=self.bucket, Key=journal_key(PREFIX, session_id))

    def delete_traceably(self, session_id: str) -> None:
        """See `Rig`; the bucket has versioning, as `init` makes it."""
        self.delete(session_id)

    def raw(self, session_id: str) -> bytes:
        """See `Rig`."""
        answer = self.client.get_object(Bucket=self.bucket, Key=journal_key(PREFIX, session_id))
        body: bytes = answer["Body"].read()
        return body


def some_meta(n: int = 1, *, generation: str = "g1", entries: int | None = None) -> Meta:
    """Metadata of an n-th commit."""
    numbers = WriterNumbers()
    for i in range(1, n + 1):
        numbers.add("writer0001", i)
    return Meta(
        generation=generation,
        commit=f"commit{n}",
        position=Position("0123456789abcdef", "shardId-000000000000", str(10**55 + n)),
        writers=numbers,
        summary=Summary(
            n if entries is None else entries, 0, "2026-11-22T13:12:01.123456Z", "2026-11-22T13:12:02Z"
        ),
    )


async def read(store: Store, session_id: str, start: int = 0, stop: int | None = None) -> bytes | None:
    """The bytes of a read; None if there is no journal. The head must belong to them."""
    async with store.open(session_id, start, stop) as body:
        if body is None:
            return None
        data = b"".join([piece async for piece in body.chunks])
        assert 0 <= body.start <= body.head.size
        assert body.start + len(data) <= body.head.size
        assert body.head.session_id == session_id
        return data


async def begin(store: Store, session_id: str, lines: bytes = b'{"n":1}\n') -> Head:
    """A journal with its first commit."""
    return await store.append(session_id, None, lines, some_meta(1))
