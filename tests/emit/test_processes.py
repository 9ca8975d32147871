"""Forks, exits and kills of real processes that emit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import anyio
import pytest

from streamjournal import Journal, wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.entry import Entry, decode_entry
from streamjournal.core.position import ShardStart
from streamjournal.emit.spool_folder import spool_folders
from streamjournal.stream.aggregation import split

# Python 3.12 warns of every fork of a process with threads; what happens then is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def home(tmp_path):
    """An embedded home of its own; the environment names it already."""
    return tmp_path / "home"


def run(code, *arguments, timeout=60):
    """Run Python code to its end; gives the process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def journaled(session_id):
    """What the embedded stream has of a session, after everybody's orphans were recovered."""
    with Journal() as journal:
        journal.emit("RECOVERER", session_id="recoverer")
        journal.flush(30)
        until = time.monotonic() + 20
        folder = journal.settings.spool_path
        while len(spool_folders(folder)) > 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(spool_folders(folder)) == 1, "a spool was not recovered"
        return anyio.run(_on_the_stream, journal.settings, session_id)


async def _on_the_stream(settings, session_id):
    stream = wiring.open_stream(settings, SYSTEM)
    found = []
    for shard in await stream.shards():
        reader = stream.reader(shard.id, ShardStart("TRIM_HORIZON"))
        batch = await reader.next()
        while batch.records:
            for record in batch.records:
                if record.partition_key == session_id:
                    found += [decode_entry(user.data) for user in split(record.data, session_id)]
            batch = await reader.next()
        await reader.aclose()
    await stream.aclose()
    return found


def busy_journal():
    """A journal that several threads write to, until the returned function is called."""
    journal = Journal()
    stop = threading.Event()

    def work(me):
        while not stop.is_set():
            journal.emit("PARENT", session_id=f"p{me}", details={"text": "x" * 100})

    threads = [threading.Thread(target=work, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()

    def end():
        stop.set()
        for thread in threads:
            thread.join()

    return journal, end


def test_fork_while_threads_emit(home):
    """Each child has a writer and a spool of its own, waits for no lock, and leaves the parent's alone."""
    journal, end = busy_journal()
    children = []
    try:
        for i in range(8):
            time.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    receipts = [journal.emit("CHILD", session_id="c", details={"i": i}) for _ in range(20)]
                    fresh = all(receipt.n == n + 1 for n, receipt in enumerate(receipts))
                    delivered = journal.close(20)
                    code = 0 if fresh and delivered == (20, 0, 0) else 2
                finally:
                    os._exit(code)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    finally:
        end()
    delivery = journal.close(20)
    assert codes == [0] * 8
    assert delivery.pending == delivery.dropped == 0
    entries = journaled("c")
    assert len(entries) == 160
    assert len({entry.id.partition("-")[0] for entry in entries}) == 8
    for me in range(3):
        numbers = [int(entry.id.partition("-")[2]) for entry in journaled(f"p{me}")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_child_that_does_not_emit(home):
    """A child that only ends, or closes what it never used, does nothing to its parent's spool."""
    journal = Journal()
    journal.emit("E", session_id="s").result(20)
    (spool,) = spool_folders(home / "spool")
    for close in (True, False):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if close:
                    journal.close(5)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert spool_folders(home / "spool") == [spool]
        journal.emit("E", session_id="s").result(20)
    journal.close(20)
    assert len(journaled("s")) == 3


def _worker(count):
    journal = _worker.journal
    for i in range(count):
        journal.emit("WORKER", session_id="w", details={"i": i})
    # no close: multiprocessing's own end of a child flushes


def test_multiprocessing_fork(home):
    """Workers of a `fork` context deliver what they emitted, though nobody closes their journal."""
    journal, end = busy_journal()
    _worker.journal = journal
    try:
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=_worker, args=(50,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    finally:
        end()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert journal.close(20).pending == 0
    entries = journaled("w")
    assert len(entries) == 150
    assert len({entry.id.partition("-")[0] for entry in entries}) == 3


def test_exit_without_close(home):
    """A script that just ends has its entries delivered, exit handlers' entries recovered later."""
    ended = run(
        """
        import atexit
        from streamjournal import Journal
        journal = Journal()
        atexit.register(lambda: journal.emit("LATE", session_id="s"))
        for i in range(1000):
            journal.emit("E", session_id="s", details={"i": i})
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "1 entries were not acknowledged" in ended.stderr
    entries = journaled("s")
    assert [entry.event_type for entry in entries] == ["E"] * 1000 + ["LATE"]


def test_exit_after_a_read(home):
    """Nor does a journal that was read from, and not closed, hold up the exit."""
    began = time.monotonic()
    ended = run(
        """
        from streamjournal import Journal
        journal = Journal()
        journal.emit("E", session_id="s")
        assert len(list(journal.read("s"))) == 1
        """,
        timeout=30,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - began < 15


def test_exit_with_the_stream_away(home):
    """With a stream that does not answer the process ends in time and says where its entries are."""
    ended = run(
        """
        import time
        from streamjournal import wiring
        from streamjournal.core.errors import StreamUnavailableError
        from streamjournal.stream.memory import MemoryStream

        class Away(MemoryStream):
            async def put(self, records):
                raise StreamUnavailableError("no route to host")

        wiring.open_stream = lambda settings, clock: Away()
        from streamjournal import Journal
        journal = Journal(exit_timeout=0.3)
        for i in range(10):
            journal.emit("E", session_id="s")
        import atexit
        began = time.monotonic()
        atexit.register(lambda: print(time.monotonic() - began))
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert 0.3 <= float(ended.stdout) < 3
    assert "10 entries were not acknowledged" in ended.stderr
    assert len(journaled("s")) == 10


_EMITTER = """
import os, sys
from streamjournal import Journal
journal = Journal()
i = 0
while True:
    i += 1
    receipt = journal.emit("E", session_id=f"s{i % 3}", details={"i": i, "text": "x" * (i % 2000)})
    os.write(1, b"%d %s\\n" % (i, receipt.id.encode()))
"""


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_in_the_middle_of_emitting(home, seed):
    """Every entry that emit had returned for is recovered under its id, none twice, none changed."""
    rng = random.Random(seed)
    with subprocess.Popen([sys.executable, "-c", _EMITTER], stdout=subprocess.PIPE) as process:
        told = [process.stdout.readline()]
        until = time.monotonic() + rng.uniform(0.05, 0.4)
        while time.monotonic() < until:
            told.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    text = b"".join(told) + rest
    whole = text[: text.rindex(b"\n")].decode().split("\n")
    returned = {(f"s{int(i) % 3}", entry_id): int(i) for i, entry_id in (line.split() for line in whole)}
    assert len(returned) > 50
    for session_id in ("s0", "s1", "s2"):
        first: dict[str, Entry] = {}
        for entry in journaled(session_id):
            # Killed between the stream's answer and the mark in the spool, an entry is sent once more:
            # the same line under the same id, which worker and readers drop.
            assert first.setdefault(entry.id, entry).line == entry.line
        entries, ids = list(first.values()), list(first)
        expected = {entry_id: i for (session, entry_id), i in returned.items() if session == session_id}
        assert expected.keys() <= set(ids)
        assert len(ids) <= len(expected) + 1, "at most the entry whose emit had not returned yet"
        for entry in entries:
            assert len(entry.details["text"]) == entry.details["i"] % 2000
            assert expected.get(entry.id, entry.details["i"]) == entry.details["i"]


_RECOVERER = """
import sys, time
from streamjournal import Journal
from streamjournal.emit.spool_folder import spool_folders
journal = Journal()
print("ready", flush=True)
sys.stdin.readline()
journal.emit("E", session_id="recoverer").result(30)
until = time.monotonic() + 20
while len(spool_folders(journal.settings.spool_path)) > 2 and time.monotonic() < until:
    time.sleep(0.01)
journal.close(20)
"""


@pytest.mark.chaos
def test_two_processes_recover_one_spool(home):
    """Two processes that start at the same moment send a dead one's entries once, and delete its spool."""
    dead = run(
        """
        import os
        from streamjournal import Journal
        journal = Journal(linger=60.0)
        for i in range(500):
            journal.emit("E", session_id=f"s{i % 5}")
        os._exit(9)
        """
    )
    assert dead.returncode == 9
    assert len(spool_folders(home / "spool")) == 1
    both = [
        subprocess.Popen([sys.executable, "-c", _RECOVERER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    for process in both:
        process.stdin.write(b"go\n")
        process.stdin.close()
    for process in both:
        assert process.wait(60) == 0
        process.stdout.close()
    assert list((home / "spool").iterdir()) == []
    found = [entry.id for i in range(5) for entry in journaled(f"s{i}")]
    assert len(found) == 500
