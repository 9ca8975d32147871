"""The embedded stream: its file, its errors, and what it costs to look for news."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import anyio
import pytest

from streamjournal.core.errors import NotConfiguredError, RecordsTrimmedError, StreamUnavailableError
from streamjournal.core.position import ShardStart
from streamjournal.stream import sqlite as module
from streamjournal.stream.port import PutRecord
from streamjournal.stream.sqlite import SqliteStream
from streamjournal.stream.sqlite_file import SqliteFile
from tests.stream.rigs import HOUR, read_all, records, skewed_clock

pytestmark = pytest.mark.anyio

OLDEST = ShardStart("TRIM_HORIZON")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Both event loops: nothing here belongs to one of them."""
    return request.param


@pytest.fixture
def path(tmp_path):
    """The file, in a folder that does not exist yet."""
    return tmp_path / "new" / "stream.db"


@pytest.fixture
async def stream(path):
    """A stream of one shard."""
    stream = SqliteStream(path, shards=1, retention_seconds=HOUR, busy_seconds=0.02)
    yield stream
    await stream.aclose()


async def put_one(stream, payload="x"):
    """Put one record."""
    (accepted,) = await stream.put(records("s", payload))
    return accepted


async def everything(stream):
    """All records' data, as text."""
    found = []
    for shard in await stream.shards():
        found += await read_all(stream.reader(shard.id, OLDEST))
    return [record.data.decode() for record in found]


async def test_shards_stay_as_they_were_made(stream, path):
    """The setting counts for a new stream only: the shards of an existing one hold records."""
    await put_one(stream)
    again = SqliteStream(path, shards=7)
    assert await again.shards() == await stream.shards()
    assert await again.identity() == await stream.identity()
    await again.aclose()


async def test_identity_survives_reopening(stream, path):
    """The identity is the file's, so every process sees the same."""
    before = await stream.identity()
    await stream.aclose()
    again = SqliteStream(path)
    assert await again.identity() == before
    assert before.arn.startswith("urn:streamjournal:")
    await again.aclose()


async def test_numbers_never_restart(path):
    """After retention has emptied the table and the file was reopened, numbers still rise."""
    skew = [0.0]
    first = SqliteStream(path, shards=1, retention_seconds=HOUR, clock=skewed_clock(skew))
    before = [await put_one(first) for _ in range(3)]
    skew[0] += HOUR + 1
    assert await first.trim({before[0].shard: before[-1].sequence}) == 3
    await first.aclose()
    second = SqliteStream(path)
    after = await put_one(second)
    assert int(after.sequence) == int(before[-1].sequence) + 1
    assert [r.sequence for r in await read_all(second.reader(after.shard, OLDEST))] == [after.sequence]
    with pytest.raises(RecordsTrimmedError):
        await second.reader(after.shard, ShardStart.after(before[0].sequence)).next()
    await second.aclose()


async def test_gap_is_exact(path):
    """Only records of the reader's own shard count: the other's numbers lie between, unmissed."""
    skew = [0.0]
    stream = SqliteStream(path, shards=2, retention_seconds=HOUR, clock=skewed_clock(skew))
    outcomes = await stream.put([PutRecord(f"k{i}", b"x") for i in range(60)])
    shard = outcomes[0].shard
    mine = [int(outcome.sequence) for outcome in outcomes if outcome.shard == shard]
    last = next(i for i in range(4, len(mine)) if mine[i] + 1 < mine[i + 1])  # another's comes between
    skew[0] += HOUR + 1
    assert await stream.trim({shard: str(mine[last])}) == last + 1
    for position in (mine[last], mine[last] + 1):
        found = await read_all(stream.reader(shard, ShardStart.after(str(position))))
        assert [int(record.sequence) for record in found] == mine[last + 1 :]
    with pytest.raises(RecordsTrimmedError):
        await stream.reader(shard, ShardStart.after(str(mine[last] - 1))).next()
    await stream.aclose()


async def test_trim_lets_writers_in(path, monkeypatch):
    """A long trim is many short transactions: a put gets through before it is done."""
    monkeypatch.setattr(module, "_TRIM_RECORDS", 5)
    skew = [0.0]
    stream = SqliteStream(path, shards=1, retention_seconds=HOUR, clock=skewed_clock(skew))
    outcomes = await stream.put([PutRecord("s", b"x")] * 100)
    skew[0] += HOUR + 1
    done = []

    async def trim() -> None:
        done.append(await stream.trim({outcomes[0].shard: outcomes[-1].sequence}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trim)
        await put_one(stream)
        assert done == []
    assert done == [100]
    assert len(await everything(stream)) == 1
    await stream.aclose()


async def test_retention_stops_at_the_first_young_record(path):
    """Only the oldest are deleted: a clock that went back does not make holes."""
    skew = [0.0]
    stream = SqliteStream(path, shards=1, retention_seconds=HOUR, clock=skewed_clock(skew))
    first = await put_one(stream, "old")
    skew[0] += 3 * HOUR
    await put_one(stream, "young")
    skew[0] -= 3 * HOUR
    last = await put_one(stream, "old again")
    skew[0] += 2 * HOUR
    assert await stream.trim({first.shard: last.sequence}) == 1
    assert await everything(stream) == ["young", "old again"]
    await stream.aclose()


async def test_idle_look_is_cheap(stream):
    """Waiting reads the table once, then only asks for the data version, on the loop's own thread."""
    await put_one(stream)
    reader = stream.reader("shardId-000000000000", OLDEST)
    await reader.next()
    await reader.next()
    reads = []
    reader._read = reads.append  # would fail: it returns None
    assert not (await reader.next(wait=0.06)).records
    assert reads == []


async def test_no_transaction_is_left_open(stream, path):
    """Between two reads nothing keeps the log from being copied into the file and emptied."""
    await put_one(stream)
    reader = stream.reader("shardId-000000000000", OLDEST)
    assert (await reader.next(max_records=1)).records
    await reader.next()
    with closing(sqlite3.connect(path)) as other:
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert path.with_name("stream.db-wal").stat().st_size == 0


async def test_own_and_other_connections_are_seen(stream, path):
    """A waiting reader sees what its own process puts, and what another stream object puts."""
    other = SqliteStream(path)
    reader = stream.reader("shardId-000000000000", OLDEST)
    assert not (await reader.next()).records
    for writer in (stream, other):
        await put_one(writer)
        with anyio.fail_after(5):
            assert len((await reader.next(wait=60)).records) == 1
    await other.aclose()


async def test_locked_file(stream, path):
    """A file that somebody keeps locked is unavailable for writing, readable still, and works later."""
    await put_one(stream, "before")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StreamUnavailableError, match=r"locked.*try again"):
            await put_one(stream)
        assert await everything(stream) == ["before"]
    await put_one(stream, "after")
    assert await everything(stream) == ["before", "after"]


async def test_full_disk(path, monkeypatch):
    """A full disk takes nothing of a put, says so, and the stream works once there is room."""
    full = [True]
    open_connection = SqliteFile._open

    def open_small(self):
        connection = open_connection(self)
        connection.execute(f"PRAGMA max_page_count = {20 if full[0] else 10_000}").fetchall()
        return connection

    monkeypatch.setattr(SqliteFile, "_open", open_small)
    stream = SqliteStream(path, shards=1)
    await put_one(stream, "small")
    with pytest.raises(StreamUnavailableError, match=r"full.*free space"):
        await stream.put([PutRecord("s", b"x"), PutRecord("s", bytes(2**19))])
    assert await everything(stream) == ["small"]
    full[0] = False
    await stream.aclose()
    await stream.put([PutRecord("s", bytes(2**19))])
    await stream.aclose()


async def test_newer_format(stream, path):
    """A file of a newer version is refused with the advice to upgrade, not read wrongly."""
    await put_one(stream)
    await stream.aclose()
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE meta SET value = '2' WHERE name = 'schema'")
        other.commit()
    with pytest.raises(NotConfiguredError, match=r"format 2.*upgrade"):
        await put_one(stream)


async def test_other_program_s_file(path):
    """Another program's database, or no database at all, is left alone."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE record (x)")
    with pytest.raises(NotConfiguredError, match="another program"):
        await SqliteStream(path).identity()
    path.write_bytes(b"not a database, but long enough to have a header" * 10)
    before = path.read_bytes()
    with pytest.raises(NotConfiguredError, match="no stream"):
        await SqliteStream(path).put(records("s", "x"))
    assert path.read_bytes() == before


async def test_folder_that_cannot_be_used(tmp_path):
    """A home that cannot be written to is one clear line that names the setting."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "stream.db", tmp_path / "folder"):
        with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
            await SqliteStream(path).identity()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_unwritable_folder(tmp_path):
    """A folder without write permission is refused before anything is lost."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
            await SqliteStream(tmp_path / "stream.db").identity()
    finally:
        tmp_path.chmod(0o700)


async def test_file_deleted_under_way(stream, path):
    """Puts go to a new stream, never into a file that nobody can find; its readers say so."""
    await put_one(stream, "gone")
    before = await stream.identity()
    reader = stream.reader("shardId-000000000000", OLDEST)
    await reader.next()
    for file in path.parent.iterdir():
        file.unlink()
    await put_one(stream, "kept")
    assert await stream.identity() != before
    assert await everything(stream) == ["kept"]
    with pytest.raises(NotConfiguredError, match="made anew"):
        await reader.next()


async def test_closed_stream_opens_again(stream):
    """Closing frees the connections, and a later call opens new ones."""
    await put_one(stream, "a")
    await stream.aclose()
    await stream.aclose()
    assert stream._file._opening is None
    await put_one(stream, "b")
    assert await everything(stream) == ["a", "b"]


async def test_failed_put_leaves_nothing(stream, monkeypatch):
    """A put that fails half-way, by whatever mistake, leaves no record, transaction or lock behind."""
    insert = module.schema.insert

    def insert_and_fail(connection, rows):
        insert(connection, rows)
        raise ZeroDivisionError

    monkeypatch.setattr(module.schema, "insert", insert_and_fail)
    with pytest.raises(ZeroDivisionError):
        await put_one(stream, "lost")
    monkeypatch.undo()
    await put_one(stream, "kept")
    assert await everything(stream) == ["kept"]


async def test_mistakes_are_not_called_unavailable(stream, monkeypatch):
    """An error that no waiting mends stays what it is."""
    monkeypatch.setattr(module.schema, "last_sequence", lambda connection: connection.execute("SELECT ?"))
    with pytest.raises(sqlite3.ProgrammingError):
        await put_one(stream)


def test_import_is_light():
    """The embedded stream loads no AWS package and no protobuf."""
    program = (
        "import sys, streamjournal.stream.sqlite;"
        "heavy = {'aiobotocore', 'botocore', 'boto3', 'aiohttp', 'google', 'typer', 'rich'};"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_data_version_costs_microseconds(stream):
    """A look takes far less than a thread's turn, so the loop's thread may do it 50 times a second."""
    await put_one(stream)
    reader = stream.reader("shardId-000000000000", OLDEST)
    await reader.next()
    costs = []
    for _ in range(200):
        began = time.perf_counter()
        assert stream._file.version() is not None
        costs.append(time.perf_counter() - began)
    assert sorted(costs)[100] < 0.0005
