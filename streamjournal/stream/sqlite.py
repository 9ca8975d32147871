"""The embedded stream: one SQLite file that many processes of one machine put into and read from.

A put is one transaction, and survives the death of any process (not a power cut: WAL with
synchronous=NORMAL may then lose the last commits, as a page cache does). Readers look every 20 ms
whether anything was committed, by `PRAGMA data_version`, and read only then. The file grows to what
it held at most; the room of deleted records is used again.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
from anyio import to_thread

from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import NotConfiguredError, RecordsTrimmedError
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.stream import sqlite_schema as schema
from streamjournal.stream.port import Accepted, PutRecord, ReadBatch, Refused, Shard
from streamjournal.stream.rules import check_call, durable_to, hash_of, refusal_of, shard_name
from streamjournal.stream.sqlite_file import Opening, SqliteFile, Version, snapshot, writing

T = TypeVar("T")

_LOOK_SECONDS: Final = 0.02
_TRIM_RECORDS: Final = 200  # in one transaction, so that a put waits for milliseconds
_TRIM_PAUSE: Final = 0.005  # between two of them: who waits for the lock looks again after 1 to 100 ms
_LARGEST: Final = 2**63 - 1

_File = SqliteFile[schema.StreamInfo]


class SqliteStream:
    """A stream in an SQLite file. Safe between tasks, threads, processes, and after a fork.

    Args:
        path: the file; made with its folder at first use.
        shards: how many a new stream gets; one that exists keeps what it has.
        retention_seconds: how old a record must be before `trim` may delete it.
        busy_seconds: how long to wait for another process's write.
    """

    def __init__(
        self,
        path: Path,
        *,
        shards: int = 4,
        retention_seconds: float = 86_400.0,
        clock: Clock = SYSTEM,
        busy_seconds: float = 5.0,
    ) -> None:
        prepare = partial(schema.prepare, path=str(path), shards=shards, clock=clock)
        self._file = _File(path, prepare, busy_seconds=busy_seconds)
        self._retention_seconds = retention_seconds
        self._clock = clock

    async def identity(self) -> StreamIdentity:
        """Which stream this is; makes it if there is none."""
        return (await self._info()).identity

    async def retention(self) -> float:
        """How old a record must be before `trim` may delete it, seconds: the setting, not the file's."""
        return self._retention_seconds

    async def shards(self) -> list[Shard]:
        """The shards, which are always the same, and open."""
        return list((await self._info()).shards)

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put records in one transaction: all of them, but those that break a bound, or none.

        Raises:
            ValueError: more records or bytes than one call may have.
            StreamUnavailableError: the file is locked, or its disk full; nothing was taken.
            NotConfiguredError: the file or its folder cannot be used.
        """
        check_call(records)
        return await to_thread.run_sync(self._put, records) if records else []

    def reader(self, shard_id: str, start: ShardStart) -> SqliteReader:
        """A reader of one shard."""
        return SqliteReader(self._file, shard_id, start)

    async def trim(self, checkpoints: Mapping[str, str]) -> int:
        """Delete what is both older than the retention and at or below its shard's checkpoint."""
        before_ms = self._clock.time_ns() // 1_000_000 - int(self._retention_seconds * 1000)
        deleted = 0
        for number, shard in enumerate(await self.shards()):
            durable = int(min(durable_to(checkpoints.get(shard.id, "TRIM_HORIZON")), _LARGEST))
            while some := await to_thread.run_sync(self._trim_some, number, durable, before_ms):
                deleted += some
                await anyio.sleep(_TRIM_PAUSE)
        return deleted

    async def aclose(self) -> None:
        """Close the connections."""
        await to_thread.run_sync(self._file.close)

    async def _info(self) -> schema.StreamInfo:
        return await to_thread.run_sync(self._with, lambda _, opening: opening.info)

    def _with(self, call: Callable[[sqlite3.Connection, Opening[schema.StreamInfo]], T]) -> T:
        with self._file.connect() as (connection, opening):
            return call(connection, opening)

    def _put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        with self._file.connect() as (connection, opening):
            lasts = [shard.last_hash for shard in opening.info.shards]
            outcomes: list[Accepted | Refused] = []
            rows: list[schema.Row] = []
            with writing(connection):
                sequence = schema.last_sequence(connection)
                arrival_ms = self._clock.time_ns() // 1_000_000
                for record in records:
                    if refusal := refusal_of(record):
                        outcomes.append(refusal)
                        continue
                    sequence += 1
                    shard = bisect_left(lasts, hash_of(record.partition_key))
                    rows.append((sequence, shard, arrival_ms, *record))
                    outcomes.append(Accepted(shard_name(shard), str(sequence)))
                schema.insert(connection, rows)
        return outcomes

    def _trim_some(self, shard: int, durable: int, before_ms: int) -> int:
        with self._file.connect() as (connection, _):
            look = partial(schema.select_expired, connection, shard, durable, before_ms, _TRIM_RECORDS)
            if not look():
                return 0  # without having locked anybody out
            with writing(connection):
                expired = look()
                if expired:
                    schema.delete_through(connection, shard, expired[-1])
        return len(expired)


class SqliteReader:
    """Reads one shard onwards. Keeps no connection and no transaction between two reads.

    Args:
        file: the stream's file.
    """

    def __init__(self, file: _File, shard_id: str, start: ShardStart) -> None:
        self._file = file
        self._shard_id = shard_id
        self._start = start
        self._stream: StreamIdentity | None = None
        self._position: int | None = None  # everything up to it was returned
        self._empty_at: Version | None = None  # the commit after which nothing more was there

    async def next(self, *, wait: float = 0.0, max_records: int = 10_000) -> ReadBatch:
        """The records that follow, within about 20 ms of their arrival.

        Raises:
            RecordsTrimmedError: records that follow were deleted, or there is no such shard.
            NotConfiguredError: the file was deleted and another stream made in its place.
            StreamUnavailableError: the file is locked; call again.
        """
        deadline = anyio.current_time() + wait
        while True:
            batch = await self._look(max_records)
            left = deadline - anyio.current_time()
            if batch.records or left <= 0:
                return batch
            await anyio.sleep(min(_LOOK_SECONDS, left))

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _look(self, max_records: int) -> ReadBatch:
        if self._empty_at is not None and self._empty_at == self._file.version():
            return ReadBatch([], 0)
        found, version, stream = await to_thread.run_sync(self._read, max_records)
        # Only now, on the loop's side: a cancelled read has moved nothing, so no record is skipped.
        self._position = found.position
        self._stream = stream
        self._empty_at = None if found.behind_ms else version
        return ReadBatch(found.records, found.behind_ms)

    def _read(self, max_records: int) -> tuple[schema.Found, Version | None, StreamIdentity]:
        version = self._file.version(may_open=True)  # before the read: what comes between is seen later
        with self._file.connect() as (connection, opening), snapshot(connection):
            stream = opening.info.identity
            if self._stream not in (None, stream):
                raise NotConfiguredError(
                    f"stream {self._file.path} was deleted and made anew while it was read; start again"
                )
            shard, position = self._place(connection)
            return schema.select_after(connection, shard, position, max_records), version, stream

    def _place(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The shard's number, and the position to read after."""
        digits = self._shard_id.removeprefix("shardId-")
        shard = int(digits) if digits.isdecimal() else -1
        trimmed_to = schema.trimmed_to(connection, shard)
        if trimmed_to is None:
            raise RecordsTrimmedError(self._shard_id, self._start.sequence)
        position = self._position
        if position is None:
            position = schema.position_of(connection, shard, self._start)
        if position < trimmed_to:
            raise RecordsTrimmedError(self._shard_id, str(position))
        return shard, position
