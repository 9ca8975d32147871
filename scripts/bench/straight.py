"""The pipeline's steps as two straight-line scripts: what is left when everything else is taken away.

No spool, no receipts, no leases, no commits, no retries, one thread: kill it and entries are lost or
doubled. It uses the project's own record format, and SQLite with the same settings, so that the
difference to the real pipeline is the machinery, not the codec.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from scripts.bench.entries import Sample
from streamjournal.stream import aggregation

_RECORD_BYTES = 50_000
_CALL_RECORDS = 500
_READ_RECORDS = 200
_HELD_BYTES = 4 * 2**20  # of lines, before they are appended to the sessions' files


class _Line(msgspec.Struct):
    id: str
    timestamp: str
    session_id: str
    event_type: str
    tool_name: str | None
    level: str
    details: Any
    source: str = "agent"


class _Name(msgspec.Struct):
    id: str
    session_id: str


def produce(samples: Iterable[Sample], file: Path) -> int:
    """Encode, aggregate by session, insert; gives the bytes of the lines."""
    total = 0
    with closing(_open(file)) as db:
        db.execute("CREATE TABLE record (sequence INTEGER PRIMARY KEY, key TEXT, data BLOB)")
        batch: list[tuple[str, bytes]] = []
        for key, lines in _by_session(samples):
            total += sum(map(len, lines))
            batch.append((key, aggregation.aggregate(key, lines)))
            if len(batch) >= _CALL_RECORDS:
                _insert(db, batch)
                batch = []
        _insert(db, batch)
    return total


def _by_session(samples: Iterable[Sample]) -> Iterator[tuple[str, list[bytes]]]:
    encode = msgspec.json.Encoder().encode
    numbers: dict[str, int] = {}
    waiting: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    for event_type, session_id, tool_name, details, level, _ in samples:
        n = numbers[session_id] = numbers.get(session_id, 0) + 1
        line = encode(
            _Line(
                f"k3v9q2m8x1-{n}",
                "2026-11-22T13:12:01.123456Z",
                session_id,
                event_type,
                tool_name,
                level,
                details,
            )
        )
        waiting.setdefault(session_id, []).append(line)
        size = sizes[session_id] = sizes.get(session_id, 0) + len(line)
        if size >= _RECORD_BYTES:
            yield session_id, waiting.pop(session_id)
            sizes[session_id] = 0
    yield from waiting.items()


def _insert(db: sqlite3.Connection, batch: Sequence[tuple[str, bytes]]) -> None:
    with db:
        db.executemany("INSERT INTO record (key, data) VALUES (?, ?)", batch)


def consume(file: Path, folder: Path) -> int:
    """Select, decode, drop duplicates by id, append to a file per session; gives the entries written."""
    decode = msgspec.json.Decoder(_Name).decode
    folder.mkdir()
    written = held = 0
    highest: dict[tuple[str, str], int] = {}
    waiting: dict[str, list[bytes]] = {}
    with closing(_open(file)) as db:
        for key, data in _records(db):
            for part in aggregation.split(data, key):
                line = part.data
                name = decode(line)
                writer, _, n = name.id.rpartition("-")
                if int(n) <= highest.get((name.session_id, writer), 0):
                    continue
                highest[name.session_id, writer] = int(n)
                waiting.setdefault(name.session_id, []).append(line)
                held += len(line)
                written += 1
            if held >= _HELD_BYTES:
                _append(folder, waiting)
                held = 0
    _append(folder, waiting)
    return written


def _records(db: sqlite3.Connection) -> Iterator[tuple[str, bytes]]:
    last = 0
    while rows := db.execute(
        "SELECT sequence, key, data FROM record WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (last, _READ_RECORDS),
    ).fetchall():
        last = rows[-1][0]
        yield from ((key, data) for _, key, data in rows)


def _append(folder: Path, waiting: dict[str, list[bytes]]) -> None:
    for session_id, lines in waiting.items():
        with (folder / session_id.replace("/", "%2F")).open("ab", buffering=0) as journal:
            journal.write(b"\n".join([*lines, b""]))
    waiting.clear()


def _open(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file)
    db.execute("PRAGMA page_size = 8192")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 8192").fetchall()
    return db
