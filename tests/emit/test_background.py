"""The sender's thread: started by the first entry, flushed and closed from outside, and faults of its own."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from streamjournal.core.clock import Clock
from streamjournal.core.errors import ClosedJournalError, NotConfiguredError, StreamUnavailableError
from streamjournal.core.settings import Settings
from streamjournal.emit.background import BackgroundSender
from streamjournal.emit.spool_folder import spool_folders
from streamjournal.store.memory import MemoryStore
from streamjournal.stream.memory import MemoryStream
from tests.emit.rigs import DESTINATION, FaultyStream


class Away(FaultyStream):
    """A stream that does not answer until it is told to."""

    away = True

    async def put(self, records):
        if self.away:
            raise StreamUnavailableError("no route to host")
        return await super().put(records)


@pytest.fixture
def make(tmp_path):
    """Makes background senders over a stream in memory, and closes them."""
    made = []

    def make(stream=None, open_adapters=None, **settings):
        stream = stream or FaultyStream(MemoryStream(shards=2), seconds=0)
        settings = {"home": str(tmp_path), "linger": 0.005, **settings}
        background = BackgroundSender(
            Settings(**settings),
            Clock(),
            open_adapters or (lambda: (stream, MemoryStore())),
            DESTINATION,
        )
        background.stream = stream
        made.append(background)
        return background

    yield make
    for background in made:
        background.close(0.0)


def threads_of_senders():
    return [thread for thread in threading.enumerate() if thread.name == "streamjournal-sender"]


def test_nothing_starts_before_the_first_entry(make, tmp_path):
    """A journal that is never written to has no thread and no spool."""
    background = make()
    assert threads_of_senders() == []
    assert background.flush(1) == (0, 0, 0)
    assert background.close(1) == (0, 0, 0)
    assert not (tmp_path / "spool").exists()


def test_flush_and_close(make, tmp_path):
    """What was emitted is on the stream after flush; close ends the thread and removes the spool."""
    background = make()
    for i in range(100):
        background.emitter.emit("E", session_id=f"s{i % 3}")
    assert background.flush(10) == (100, 0, 0)
    background.emitter.emit("E", session_id="s0")
    assert background.close(10) == (101, 0, 0)
    assert background.stream.numbers("s0") == list(range(1, 36))
    assert threads_of_senders() == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_emitting_from_many_threads(make):
    """Threads that emit, wait and flush at the same time get everything acknowledged, in order."""
    background = make()

    def work(me):
        for i in range(300):
            receipt = background.emitter.emit("E", session_id=f"s{me % 3}")
            if i % 50 == 0:
                receipt.result(10)
                background.flush(10)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert background.close(10) == (2400, 0, 0)
    for session_id, entries in background.stream.taken().items():
        numbers = [int(entry["id"].partition("-")[2]) for entry in entries]
        assert numbers == list(range(1, len(numbers) + 1)), session_id
    assert background.stream.trespasses == []


def test_no_wakeup_is_lost(make):
    """An entry that comes at the moment the sender lets its session go is sent without another one's help."""
    background = make(linger=0.0)
    for _ in range(500):
        background.emitter.emit("E", session_id="s").result(5)
    assert background.stream.numbers("s") == list(range(1, 501))


def test_close_twice(make):
    """The second close says the same and does nothing."""
    background = make()
    background.emitter.emit("E", session_id="s")
    assert background.close(10) == background.close(10) == (1, 0, 0)
    with pytest.raises(ClosedJournalError):
        background.emitter.emit("E", session_id="s")


def test_close_from_two_threads(make):
    """Both come back."""
    background = make()
    background.emitter.emit("E", session_id="s")
    closers = [threading.Thread(target=background.close, args=(10,)) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(10)
    assert not any(closer.is_alive() for closer in closers)
    assert background.stream.numbers("s") == [1]


def test_emitting_while_closing(make, tmp_path):
    """Each emit during close is either accepted, and then delivered or in the spool, or told it is closed."""
    background = make()
    accepted, told = [], []

    def work():
        try:
            while True:
                accepted.append(background.emitter.emit("E", session_id="s"))
        except ClosedJournalError:
            told.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.02)
    delivery = background.close(20)
    for worker in workers:
        worker.join(10)
    assert len(told) == 4
    assert delivery == (len(accepted), 0, 0)
    assert sorted(receipt.n for receipt in accepted) == background.stream.numbers("s")
    assert spool_folders(tmp_path / "spool") == []


def test_stream_away_at_close(make, tmp_path, caplog):
    """Close keeps to its time; what is pending is in the spool, and the next start sends it."""
    background = make(Away(MemoryStream()))
    ids = [background.emitter.emit("E", session_id="s").id for _ in range(5)]
    began = time.monotonic()
    assert background.flush(0.02) == (0, 5, 0)
    assert background.close(0.02) == (0, 5, 0)
    assert time.monotonic() - began < 2
    assert "5 entries were not acknowledged before close" in caplog.text
    assert "recover" in caplog.text
    following = make()
    following.emitter.emit("E", session_id="other")
    assert following.close(10).acknowledged == 1
    assert [entry["id"] for entry in following.stream.taken()["s"]] == ids
    assert list((tmp_path / "spool").iterdir()) == []


def test_memory_only(make, tmp_path, caplog):
    """With the spool off everything works, and what close gives up is said to be lost."""
    background = make(Away(MemoryStream()), spool="off")
    background.emitter.emit("E", session_id="s", details={"odd": object()})
    assert background.close(0.02) == (0, 1, 0)
    assert "in memory only and are lost" in caplog.text
    assert not (tmp_path / "spool").exists()


def test_adapters_that_cannot_be_opened(make, caplog):
    """One clear line; emit goes on, flush and close come back, the entries stay in the spool."""

    def open_adapters():
        raise NotConfiguredError("the AWS packages are not installed: pip install 'streamjournal[aws]'")

    background = make(open_adapters=open_adapters)
    for _ in range(3):
        background.emitter.emit("E", session_id="s")
    assert background.flush(5) == (0, 3, 0)
    assert background.close(5) == (0, 3, 0)
    lines = [record for record in caplog.records if "pip install" in record.message]
    assert len(lines) == 1
    assert lines[0].exc_info is None


def test_sender_that_dies(make, caplog, monkeypatch):
    """A bug that ends the sender's thread is logged, and whoever waits in flush goes on."""
    background = make()
    receipt = background.emitter.emit("E", session_id="s")
    receipt.result(5)
    monkeypatch.setattr(background._sender, "_collect", None)
    with caplog.at_level(logging.ERROR):
        background.emitter.emit("E", session_id="s")
        assert background.flush(5) == (1, 1, 0)
    assert "the sender's thread ended" in caplog.text
    assert background.flush(5) == (1, 1, 0)


def test_no_thread_can_be_started(make, monkeypatch):
    """While the interpreter exits no thread starts: emit does not raise, the entry is in the spool."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    background = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert background.emitter.emit("E", session_id="s").n == 1
        assert background.flush(0.01).pending == 1
    background.emitter.emit("E", session_id="t")
    assert background.close(10) == (2, 0, 0)


def test_interrupted_while_the_thread_starts(make, monkeypatch):
    """Ctrl-C in the first emit, while the thread starts: the entry is in, and the thread runs or will."""
    real = threading.Thread.start

    def before(thread):
        raise KeyboardInterrupt

    def after(thread):
        real(thread)
        raise KeyboardInterrupt

    for start in (before, after):
        background = make()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(KeyboardInterrupt):
                background.emitter.emit("E", session_id="s")
        background.emitter.emit("E", session_id="s").result(5)
        assert background.close(10).acknowledged == 2
        assert background.stream.numbers("s") == [1, 2]


def test_exit_flush_then_late_entries(make, tmp_path):
    """What other exit handlers emit after our flush is in the spool, not lost and not refused."""
    background = make()
    background.emitter.emit("E", session_id="s")
    background.finish_at_exit()
    assert background.emitter.delivery() == (1, 0, 0)
    assert spool_folders(tmp_path / "spool") == []
    late = background.emitter.emit("LATE", session_id="s")
    assert late.n == 2
    assert background.close(0.0) == (1, 1, 0)
    following = make()
    following.emitter.emit("E", session_id="other")
    following.close(10)
    assert [entry["id"] for entry in following.stream.taken()["s"]] == [late.id]


def test_a_handler_that_closes_in_the_middle_of_an_emit(make):
    """`close()` from a SIGTERM handler that interrupts an emit: the emit is told, or delivered."""
    from tests.emit.test_interruption import AtStep

    for n in range(1, 60, 3):
        background = make()
        background.emitter.emit("E", session_id="s")
        accepted = 1
        with AtStep(n, lambda background=background: background.close(5), lines=False):
            try:
                background.emitter.emit("E", session_id="s")
                accepted += 1
            except ClosedJournalError:
                pass
        delivery = background.close(5)
        assert delivery.acknowledged + delivery.pending == accepted
        assert delivery.pending <= 1
