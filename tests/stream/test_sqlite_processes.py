"""The embedded stream between processes: many at once, and after a fork."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import anyio
import pytest

from streamjournal.core.position import ShardStart
from streamjournal.stream.sqlite import SqliteStream
from tests.stream.rigs import read_all

pytestmark = pytest.mark.anyio

OLDEST = ShardStart("TRIM_HORIZON")
_PRELUDE = """
import anyio, json, os, sys, threading, time
from pathlib import Path
from streamjournal.stream.port import PutRecord
from streamjournal.stream.sqlite import SqliteStream

path = Path(sys.argv[1])

def put(stream, *payloads):
    return anyio.run(stream.put, [PutRecord("s", p.encode()) for p in payloads])

def wait_for(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

"""


def run(program: str, *arguments: object) -> str:
    """Run a program in a process of its own, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def everything(path):
    """All records' data, as text, in the order of the shard."""
    stream = SqliteStream(path)
    found = []
    for shard in await stream.shards():
        found += await read_all(stream.reader(shard.id, OLDEST))
    await stream.aclose()
    return [record.data.decode() for record in found]


async def test_processes_at_once(tmp_path):
    """Processes that start together on no file make one stream, and none of their puts is lost."""
    program = """
        stream = SqliteStream(path, shards=2)
        for i in range(30):
            put(stream, f"{sys.argv[2]}.{i}.a", f"{sys.argv[2]}.{i}.b")
        print(json.dumps(anyio.run(stream.identity)))
    """
    path = tmp_path / "home" / "stream.db"
    with ThreadPoolExecutor(5) as pool:
        printed = list(pool.map(lambda name: run(program, path, name), range(5)))
    assert len({json.dumps(json.loads(line)) for line in printed}) == 1
    found = await everything(path)
    for name in "01234":
        mine = [text for text in found if text.startswith(f"{name}.")]
        assert mine == [f"{name}.{i}.{part}" for i in range(30) for part in "ab"], "in the order put"


async def test_other_process_s_record_is_seen_soon(tmp_path):
    """A tail sees a record of another process within 50 ms of its commit."""
    path = tmp_path / "stream.db"
    stream = SqliteStream(path, shards=1)
    reader = stream.reader("shardId-000000000000", OLDEST)
    await reader.next()
    program = """
        stream = SqliteStream(path)
        for i in range(15):
            time.sleep(0.03)
            put(stream, "x")
            print(time.monotonic(), flush=True)
    """
    seen = []
    committed = []

    async def write() -> None:
        committed.extend(map(float, (await anyio.to_thread.run_sync(run, program, path)).split()))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            while len(seen) < 15:
                batch = await reader.next(wait=60)
                seen += [time.monotonic()] * len(batch.records)
    await stream.aclose()
    delays = [at - done for at, done in zip(seen, committed, strict=True)]
    assert median(delays) < 0.05, delays


async def test_child_writes_after_its_parent_closed(tmp_path):
    """What a forked child puts stays, although its parent, which had the file open, closes it."""
    program = """
        stream = SqliteStream(path, shards=1)
        put(stream, "parent")
        to_child, to_parent = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            put(stream, "child, parent open")
            os.write(to_parent[1], b"x")
            os.read(to_child[0], 1)
            put(stream, "child, parent closed")
            os._exit(0)
        os.read(to_parent[0], 1)
        put(stream, "parent again")
        anyio.run(stream.aclose)
        os.write(to_child[1], b"x")
        wait_for(pid)
    """
    path = tmp_path / "stream.db"
    run(program, path)
    assert await everything(path) == ["parent", "child, parent open", "parent again", "child, parent closed"]


async def test_parent_and_child_do_not_write_over_each_other(tmp_path):
    """Parent and children that go on with the same object exclude each other like any processes."""
    program = """
        stream = SqliteStream(path, shards=1)
        put(stream, "first")
        pids = []
        for child in range(3):
            pid = os.fork()
            if not pid:
                for i in range(20):
                    put(stream, f"{child}.{i}")
                os._exit(0)
            pids.append(pid)
        for i in range(20):
            put(stream, f"parent.{i}")
        for pid in pids:
            wait_for(pid)
    """
    path = tmp_path / "stream.db"
    run(program, path)
    found = await everything(path)
    names = ["0", "1", "2", "parent"]
    assert sorted(found) == sorted(["first", *(f"{name}.{i}" for name in names for i in range(20))])


async def test_fork_under_way(tmp_path):
    """A process that forks while a thread of it puts and another reads gets a child that can put."""
    program = """
        from streamjournal.core.position import ShardStart
        stream = SqliteStream(path, shards=1)
        put(stream, "first")
        stop = threading.Event()

        def write():
            while not stop.is_set():
                put(stream, "thread " + "x" * 200_000)

        async def tail():
            reader = stream.reader("shardId-000000000000", ShardStart("LATEST"))
            while not stop.is_set():
                await reader.next(wait=0.05)

        threads = [threading.Thread(target=write), threading.Thread(target=lambda: anyio.run(tail))]
        for thread in threads:
            thread.start()
        for i in range(15):
            pid = os.fork()
            if not pid:
                put(stream, f"child {i}")
                os._exit(0)
            wait_for(pid)
        stop.set()
        for thread in threads:
            thread.join()
    """
    path = tmp_path / "stream.db"
    run(program, path)
    found = await everything(path)
    assert [text for text in found if text.startswith("child")] == [f"child {i}" for i in range(15)]


async def test_fork_that_python_is_not_told_of(tmp_path, monkeypatch):
    """A child that notices its new pid only opens connections of its own, and closes none of the old."""
    stream = SqliteStream(tmp_path / "stream.db", shards=1)
    reader = stream.reader("shardId-000000000000", OLDEST)
    await reader.next()
    inherited = stream._file._opening
    connections = [*inherited.idle, inherited.watch]
    monkeypatch.setattr("os.getpid", lambda: -1)
    await reader.next()
    assert stream._file._opening is not inherited
    for connection in connections:
        assert connection.execute("SELECT 1").fetchall() == [(1,)], "still open"
    await stream.aclose()
    for connection in connections:
        connection.close()


async def test_deleted_file_s_log_is_not_unlinked(tmp_path):
    """Who had a deleted file open does not take the log of the new one with him when he closes."""
    path = tmp_path / "stream.db"
    program = """
        stream = SqliteStream(path, shards=1)
        put(stream, "old")
        reader_open = stream._file.version(may_open=True)
        for file in path.parent.iterdir():
            file.unlink()
        other = SqliteStream(path)
        put(other, "new")
        log = path.with_name("stream.db-wal").stat().st_ino
        anyio.run(stream.aclose)
        assert path.with_name("stream.db-wal").stat().st_ino == log
        put(other, "newer")
    """
    run(program, path)
    assert await everything(path) == ["new", "newer"]
