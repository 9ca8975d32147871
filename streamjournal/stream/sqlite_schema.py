"""The embedded stream's tables, and the statements on them.

=========  ==================================================================================
table      holds
=========  ==================================================================================
`meta`     schema version, and the stream's identity: URN and time of creation, made once
`shard`    the shards' hash ranges, and the highest sequence number that retention deleted
`record`   the records; AUTOINCREMENT, because rowids restart once a table is empty, and a
           sequence number must never come twice
=========  ==================================================================================

A shard's records are deleted from the oldest on only, so everything at or below `trimmed_to` is
gone, and it was the number of a record: a reader that is below it has missed something for certain.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import takewhile
from typing import Final, NamedTuple

from streamjournal.core.clock import Clock, format_timestamp
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.position import ShardStart, StreamIdentity
from streamjournal.stream.port import Record, Shard
from streamjournal.stream.rules import MAX_READ_BYTES, even_ranges, shard_name

SCHEMA: Final = 1
_APPLICATION_ID: Final = 0x736A5374  # "sjSt": tells our file from any other SQLite database
_TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE shard (
        number INTEGER PRIMARY KEY,
        first_hash TEXT NOT NULL,
        last_hash TEXT NOT NULL,
        trimmed_to INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE record (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        shard INTEGER NOT NULL,
        arrival_ms INTEGER NOT NULL,
        partition_key TEXT NOT NULL,
        data BLOB NOT NULL
    )""",
    # An index entry ends with the rowid, which is the sequence number: this is (shard, sequence).
    "CREATE INDEX record_by_shard ON record (shard)",
)

Row = tuple[int, int, int, str, bytes]  # as in `record`


class StreamInfo(NamedTuple):
    """What never changes about a stream."""

    identity: StreamIdentity
    shards: list[Shard]


class Found(NamedTuple):
    """What one look into a shard found.

    Args:
        position: the sequence number that everything up to was looked at.
    """

    records: list[Record]
    position: int
    behind_ms: int


def prepare(connection: sqlite3.Connection, *, path: str, shards: int, clock: Clock) -> StreamInfo:
    """Make the tables if the file is new; check it otherwise. Inside a write transaction.

    Args:
        path: for the errors' text.
        shards: how many a new stream gets; one that exists keeps what it has.

    Raises:
        NotConfiguredError: the file belongs to a newer version, or to another program.
    """
    if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        _create(connection, shards, clock)
    elif _pragma(connection, "application_id") != _APPLICATION_ID:
        raise NotConfiguredError(
            f"stream {path} is a database of another program; choose another STREAMJOURNAL_HOME"
        )
    values = dict(connection.execute("SELECT name, value FROM meta"))
    if values["schema"] != str(SCHEMA):
        raise NotConfiguredError(
            f"stream {path} has format {values['schema']}, and this version knows format {SCHEMA} only; "
            "upgrade streamjournal"
        )
    rows = connection.execute("SELECT number, first_hash, last_hash FROM shard ORDER BY number")
    return StreamInfo(
        StreamIdentity(values["urn"], values["created"]),
        [Shard(shard_name(n), (), int(first, 16), int(last, 16)) for n, first, last in rows],
    )


def _create(connection: sqlite3.Connection, shards: int, clock: Clock) -> None:
    for table in _TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    values = {
        "schema": str(SCHEMA),
        "urn": f"urn:streamjournal:stream:{clock.draw_id(20)}",
        "created": format_timestamp(clock.time_ns()),
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
    ranges = [(n, f"{first:032x}", f"{last:032x}") for n, (first, last) in enumerate(even_ranges(shards))]
    connection.executemany("INSERT INTO shard (number, first_hash, last_hash) VALUES (?, ?, ?)", ranges)


def last_sequence(connection: sqlite3.Connection) -> int:
    """The highest sequence number ever given, 0 if none was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    return int(row[0]) if row else 0


def insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add records; AUTOINCREMENT also goes on after sequence numbers that are given."""
    connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", rows)


def trimmed_to(connection: sqlite3.Connection, shard: int) -> int | None:
    """The highest sequence number deleted from a shard, 0 if none was; None if there is no such shard."""
    row = connection.execute("SELECT trimmed_to FROM shard WHERE number = ?", (shard,)).fetchone()
    return int(row[0]) if row else None


def position_of(connection: sqlite3.Connection, shard: int, start: ShardStart) -> int:
    """The sequence number to read after, for where a reader wants to start.

    Raises:
        ValueError: there is no such start.
    """
    if start.kind == "TRIM_HORIZON":
        return trimmed_to(connection, shard) or 0
    if start.kind == "LATEST":
        return last_sequence(connection)
    if start.kind == "AFTER_SEQUENCE_NUMBER" and start.sequence is not None:
        return int(start.sequence)
    if start.kind == "AT_SEQUENCE_NUMBER" and start.sequence is not None:
        return int(start.sequence) - 1
    if start.kind == "AT_TIMESTAMP" and start.timestamp is not None:
        return _position_at(connection, shard, int(start.timestamp * 1000))
    raise ValueError(f"not a place to start: {start}")


def _position_at(connection: sqlite3.Connection, shard: int, arrival_ms: int) -> int:
    row = connection.execute(
        "SELECT sequence FROM record WHERE shard = ? AND arrival_ms >= ? ORDER BY sequence LIMIT 1",
        (shard, arrival_ms),
    ).fetchone()
    return int(row[0]) - 1 if row else last_sequence(connection)


def select_after(connection: sqlite3.Connection, shard: int, position: int, limit: int) -> Found:
    """The records after `position`: at most `limit`, and about 10 MiB."""
    name = shard_name(shard)
    records: list[Record] = []
    size = 0
    cut = False
    query = (
        "SELECT sequence, partition_key, data, arrival_ms FROM record "
        "WHERE shard = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    )
    with closing(connection.execute(query, (shard, position, limit))) as rows:
        for sequence, partition_key, data, arrival_ms in rows:
            records.append(Record(name, str(sequence), partition_key, data, arrival_ms))
            size += len(data)
            if size >= MAX_READ_BYTES:
                cut = True
                break
    if not records:
        return Found(records, position, 0)
    position = int(records[-1].sequence)
    behind = _behind_ms(connection, shard, records[-1]) if cut or len(records) == limit else 0
    return Found(records, position, behind)


def _behind_ms(connection: sqlite3.Connection, shard: int, last: Record) -> int:
    sequence, arrival_ms = connection.execute(
        "SELECT sequence, arrival_ms FROM record WHERE shard = ? ORDER BY sequence DESC LIMIT 1", (shard,)
    ).fetchone()
    return max(1, arrival_ms - last.arrival_ms) if sequence > int(last.sequence) else 0


def select_expired(
    connection: sqlite3.Connection, shard: int, durable: int, before_ms: int, limit: int
) -> Sequence[int]:
    """The oldest records' sequence numbers, up to the first one that must stay."""
    rows = connection.execute(
        "SELECT sequence, arrival_ms FROM record WHERE shard = ? AND sequence <= ? ORDER BY sequence LIMIT ?",
        (shard, durable, limit),
    ).fetchall()
    return [row[0] for row in takewhile(lambda row: row[1] < before_ms, rows)]


def delete_through(connection: sqlite3.Connection, shard: int, sequence: int) -> None:
    """Delete a shard's records up to and including `sequence`, and remember that."""
    connection.execute("DELETE FROM record WHERE shard = ? AND sequence <= ?", (shard, sequence))
    connection.execute("UPDATE shard SET trimmed_to = ? WHERE number = ?", (sequence, shard))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
