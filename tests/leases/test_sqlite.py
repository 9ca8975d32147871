"""Leases in SQLite: the file itself, its faults, processes and forks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from streamjournal.core.errors import LeasesUnavailableError, NotConfiguredError
from streamjournal.leases.port import Lease
from streamjournal.leases.sqlite import SCHEMA, SqliteLeases

ROW = Lease("shardId-000000000000", stream="urn:x 1")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Embedded workers may run on either."""
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a folder that is not there yet."""
    return tmp_path / "home" / "leases.sqlite"


def execute(path: Path, *statements: str) -> None:
    """Run statements in the file, as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def write(path: Path, data: bytes) -> None:
    """Make a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.anyio
async def test_reading_makes_no_file(path: Path) -> None:
    """A reader that only looks for checkpoints leaves no trace."""
    assert await SqliteLeases(path).rows() == []
    assert not path.parent.exists()


@pytest.mark.anyio
async def test_writers_do_not_hold_up_readers(path: Path) -> None:
    """While somebody writes, the rows as they were can be read at once."""
    leases = SqliteLeases(path, busy_timeout=0.0)
    await leases.create(ROW)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE lease SET counter = 99")
        assert await leases.rows() == [ROW]
        writer.execute("ROLLBACK")


@pytest.mark.anyio
async def test_locked_file_is_unavailable_and_says_so(path: Path) -> None:
    """A writer that does not finish in time makes the others give up with the same row as before."""
    leases = SqliteLeases(path, busy_timeout=0.005)
    await leases.create(ROW)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(LeasesUnavailableError, match=r"another process .* try again"):
            await leases.update(ROW, ROW.taken_by("a"))
        writer.execute("ROLLBACK")
    assert await leases.rows() == [ROW]
    assert await leases.update(ROW, ROW.taken_by("a"))


@pytest.mark.anyio
async def test_full_disk_is_unavailable_and_says_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own "full" (here at a bound on pages) changes no row, and works again with room."""
    leases = SqliteLeases(path)
    await leases.create(ROW)
    large = Lease("large", stream="x" * 100_000)
    connect = sqlite3.connect

    def without_room(*args: object, **kwargs: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **kwargs)
        db.execute("PRAGMA max_page_count = 1")
        return db

    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", without_room)
        with pytest.raises(LeasesUnavailableError, match="free some space"):
            await leases.create(large)
    assert await leases.rows() == [ROW]
    assert await leases.create(large)


@pytest.mark.anyio
async def test_newer_format_is_refused(path: Path) -> None:
    """A file of a newer version is named with both formats, read or written by nobody."""
    leases = SqliteLeases(path)
    await leases.create(ROW)
    execute(path, f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(NotConfiguredError, match=f"format {SCHEMA + 1}.*format {SCHEMA}.*upgrade"):
        await leases.rows()
    with pytest.raises(NotConfiguredError, match="upgrade"):
        await leases.update(ROW, ROW.taken_by("a"))


OLD_TABLE = """
CREATE TABLE lease (
    key TEXT PRIMARY KEY, owner TEXT, counter INTEGER NOT NULL, checkpoint TEXT NOT NULL,
    parents TEXT NOT NULL, owner_switches INTEGER NOT NULL, stream TEXT NOT NULL, sink TEXT NOT NULL
) WITHOUT ROWID"""


@pytest.mark.anyio
@pytest.mark.parametrize("first", ["read", "write"])
async def test_an_older_format_is_brought_up_to_date(path: Path, first: str) -> None:
    """What the table of an earlier version holds is kept, whoever comes to it first."""
    path.parent.mkdir()
    execute(path, OLD_TABLE)
    execute(path, "INSERT INTO lease VALUES ('s', 'a', 7, '42', '[\"p\"]', 1, 'urn now', 'journal')")
    execute(path, "PRAGMA user_version = 1")
    execute(path, "PRAGMA application_id = 0x736A4C73")
    leases = SqliteLeases(path)
    if first == "write":
        await leases.create(ROW)
    old = Lease("s", "a", 7, "42", ("p",), 1, "urn now", "journal")
    assert old in await leases.rows()
    asked = await leases.update(old, old.asked_by("b"))
    assert asked in await leases.rows()


@pytest.mark.anyio
async def test_database_of_another_program_is_refused(path: Path) -> None:
    """Nothing is written into a database that is not ours."""
    path.parent.mkdir()
    execute(path, "CREATE TABLE bookmarks (url TEXT)")
    leases = SqliteLeases(path)
    with pytest.raises(NotConfiguredError, match="another program"):
        await leases.rows()
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
        await leases.create(ROW)


@pytest.mark.anyio
async def test_file_that_is_no_database_says_how_to_go_on(path: Path) -> None:
    """A broken file is named with a way out that loses nothing."""
    write(path, b"this is not SQLite " * 100)
    with pytest.raises(NotConfiguredError, match="move the file away"):
        await SqliteLeases(path).rows()


@pytest.mark.anyio
async def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """A home below a file cannot exist; the error names the setting."""
    write(tmp_path / "file", b"")
    with pytest.raises(LeasesUnavailableError, match="STREAMJOURNAL_HOME"):
        await SqliteLeases(tmp_path / "file" / "home" / "leases.sqlite").create(ROW)


RACE = """
import sys, anyio
from pathlib import Path
from streamjournal.core.errors import LeaseLostError
from streamjournal.leases.port import Lease
from streamjournal.leases.sqlite import SqliteLeases

async def main():
    leases, row = SqliteLeases(Path(sys.argv[1])), Lease("s")
    sys.stdin.readline()
    created = await leases.create(row)
    try:
        await leases.update(row, row.taken_by(sys.argv[2]))
        print(created, True)
    except LeaseLostError:
        print(created, False)

anyio.run(main)
"""


def test_racing_processes_one_wins(path: Path) -> None:
    """Processes that start on an empty home at once create and take a row, one winner each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path), str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=30)[0].split() for process in processes]
    assert sorted(created for created, _ in results) == ["False"] * 3 + ["True"]
    assert sorted(taken for _, taken in results) == ["False"] * 3 + ["True"]


FORK = """
import os, sys, anyio
from pathlib import Path
from streamjournal.leases.port import Lease
from streamjournal.leases.sqlite import SqliteLeases

leases = SqliteLeases(Path(sys.argv[1]))
row = Lease("s")
anyio.run(leases.create, row)
child_read, parent_done = os.pipe(), os.pipe()
if os.fork() == 0:
    (seen,) = anyio.run(leases.rows)
    os.write(child_read[1], b"x")
    os.read(parent_done[0], 1)
    anyio.run(leases.update, seen, seen.taken_by("child"))
    os._exit(0)
os.read(child_read[0], 1)
anyio.run(leases.aclose)
os.write(parent_done[1], b"x")
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
print(anyio.run(SqliteLeases(Path(sys.argv[1])).rows)[0].owner)
"""


def test_what_a_forked_child_writes_survives_its_parents_close(path: Path) -> None:
    """The same object goes on in a forked child, and the parent's end takes nothing from it.

    With a connection kept open in the parent the child would hold no lock of its own, so that the
    parent's close would unlink the log that the child writes to.
    """
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("child", "")


FORKS_UNDER_LOAD = """
import os, sys, threading, anyio
from pathlib import Path
from streamjournal.leases.port import Lease
from streamjournal.leases.sqlite import SqliteLeases

path = Path(sys.argv[1])
anyio.run(SqliteLeases(path).create, Lease("s"))
stop = threading.Event()

def read_on():
    async def reads():
        while not stop.is_set():
            await SqliteLeases(path).rows()
    anyio.run(reads)

threads = [threading.Thread(target=read_on) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(20):
    if os.fork() == 0:
        assert len(anyio.run(SqliteLeases(path).rows)) == 1
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
stop.set()
for thread in threads:
    thread.join()
print("whole")
"""


@pytest.mark.chaos
def test_a_fork_while_other_threads_call_leaves_the_child_able_to_call(path: Path) -> None:
    """SQLite's own locks are never copied into a child in the locked state."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS_UNDER_LOAD, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("whole", "")
