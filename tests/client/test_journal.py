"""What users hold: both journals, their sessions, and what they promise."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import streamjournal
from streamjournal import AsyncJournal, Journal
from streamjournal.core.errors import (
    ClosedJournalError,
    InvalidEntryError,
    NotConfiguredError,
    SettingsError,
)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """An embedded journal works on both."""
    return request.param


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A sync journal, embedded in the test's own folder."""
    with Journal() as opened:
        yield opened


def _public(kind: type) -> dict[str, list[str]]:
    """The public methods and the names of their parameters."""
    return {
        name: list(inspect.signature(value).parameters)
        for name, value in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def test_both_journals_have_the_same_methods() -> None:
    """Names and parameters alike, so that what is known of one holds for the other."""
    sync = _public(Journal)
    asynchronous = _public(AsyncJournal)
    asynchronous.pop(
        "close_access"
    )  # of the event loop's own connections; the sync one has a loop of its own
    assert sync == asynchronous
    assert _public(streamjournal.Session) == _public(streamjournal.AsyncSession)


def test_public_names_are_those_in_all() -> None:
    """What `import streamjournal` offers is what __all__ says, all of it from inside the package."""
    offered = {
        name
        for name, value in vars(streamjournal).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert offered == {name for name in streamjournal.__all__ if not name.startswith("_")}
    assert list(streamjournal.__all__) == sorted(streamjournal.__all__)


def test_settings_come_from_arguments_then_the_environment_then_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An argument wins over its variable, a variable over the default."""
    monkeypatch.setenv("STREAMJOURNAL_LINGER", "0.5")
    monkeypatch.setenv("STREAMJOURNAL_SHARDS", "2")
    with Journal(linger=0.25, home=tmp_path / "other") as journal:
        assert (journal.settings.linger, journal.settings.shards) == (0.25, 2)
        assert journal.settings.overflow == "drop"
        assert journal.settings.home_path == tmp_path / "other"


def test_a_setting_that_cannot_be_used_is_named() -> None:
    """When the journal is opened, not at the first entry."""
    with pytest.raises(SettingsError, match="linger"):
        Journal(linger="soon")
    with pytest.raises(SettingsError, match="lingre"):
        Journal(lingre=1)


def test_a_stream_without_a_bucket_says_what_to_set() -> None:
    """Neither STREAMJOURNAL_BUCKET nor AWS_ACCOUNT_ID tells where the journals are."""
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET.*AWS_ACCOUNT_ID"):
        Journal(stream="agents")


def test_a_process_reads_its_own_entries_at_once(journal: Journal) -> None:
    """Before any worker has run, and without waiting for the linger."""
    receipts = [journal.emit("N", session_id="s", details={"n": n}) for n in range(5)]
    found = journal.read("s")
    assert [entry.id for entry in found] == [receipt.id for receipt in receipts]
    assert found.complete


def test_another_thread_reads_them_too(journal: Journal) -> None:
    """One journal serves all threads."""
    journal.emit("N", session_id="s")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(journal.read("s")))
    thread.start()
    thread.join(10)
    assert [entry.event_type for entry in found] == ["N"]


@pytest.mark.anyio
async def test_async_code_reads_its_own_entries_at_once() -> None:
    """As the sync journal does, on whatever event loop it is used."""
    async with AsyncJournal() as journal:
        receipt = journal.emit("N", session_id="s", details={"n": 1})
        found = await journal.read("s").all()
        assert [entry.details for entry in found] == [{"n": 1}]
        await receipt
        assert receipt.done
        assert [one.session_id for one in (await journal.sessions()).sessions] == ["s"]


@pytest.mark.anyio
async def test_a_sync_journal_emits_inside_a_running_event_loop() -> None:
    """Emitting is a plain call wherever it is made, and its receipt can be awaited there."""
    with Journal() as journal:
        position = await journal.emit("N", session_id="s")
        assert position.sequence


def test_one_async_journal_serves_one_event_loop_after_the_other() -> None:
    """As a notebook or a framework does that starts a loop for each call."""
    journal = AsyncJournal()

    async def write_and_read(n: int) -> int:
        journal.emit("N", session_id="s", details={"n": n})
        return len(await journal.read("s").all())

    async def close() -> None:
        await journal.close()

    assert anyio.run(write_and_read, 1) == 1
    assert anyio.run(write_and_read, 2) == 2
    anyio.run(close)


@pytest.mark.asyncio
async def test_a_user_of_asyncio_needs_no_anyio() -> None:
    """A test as he would write it, with pytest-asyncio."""
    async with AsyncJournal() as journal:
        async with journal.session("s") as session:
            await session.emit("TOOL_START", tool_name="t")
        async with journal.tail("s", history=None, follow=False) as entries:
            found = [entry.event_type async for entry in entries]
    assert found == ["SESSION_START", "TOOL_START", "SESSION_END"]


def test_a_session_writes_its_start_and_its_end(journal: Journal) -> None:
    """With status ok, and its handle reads and emits without its id being said again."""
    with journal.session("s") as session:
        session.emit("N", details={"a": 1}, tool_name="t", level="DEBUG", span_id="b", parent_id="a")
        assert [entry.event_type for entry in session.read()] == ["SESSION_START", "N"]
        with session.tail(history=1, follow=False) as entries:
            assert [(e.event_type, e.span_id, e.parent_id) for e in entries] == [("N", "b", "a")]
    end = session.read(last=1).all()[0]
    assert (end.event_type, end.level, end.details) == ("SESSION_END", "INFO", {"status": "ok"})
    assert journal.sessions().sessions[0].status == "ended"


def test_a_failing_session_says_so_and_lets_the_error_go_on(journal: Journal) -> None:
    """SESSION_END at level ERROR with the error's type, message and traceback."""
    with pytest.raises(ZeroDivisionError), journal.session("s"):
        _ = 1 / 0
    end = journal.read("s", last=1).all()[0]
    assert (end.event_type, end.level, end.details["status"]) == ("SESSION_END", "ERROR", "error")
    assert end.details["error"]["type"] == "ZeroDivisionError"
    assert end.details["error"]["message"] == "division by zero"
    assert "1 / 0" in end.details["error"]["traceback"]
    assert journal.sessions().sessions[0].status == "failed"


@pytest.mark.anyio
async def test_a_failing_async_session_does_the_same() -> None:
    """And a cancelled one too: it has not ended well."""
    async with AsyncJournal() as journal:
        with pytest.raises(KeyError):
            async with journal.session("failed"):
                raise KeyError("x")
        with anyio.CancelScope() as scope:
            async with journal.session("cancelled"):
                scope.cancel()
                await anyio.sleep(1)
        for name in ("failed", "cancelled"):
            end = (await journal.read(name, last=1).all())[0]
            assert (end.event_type, end.level, end.details["status"]) == ("SESSION_END", "ERROR", "error")


def test_a_session_id_that_cannot_be_one_is_refused_at_once(journal: Journal) -> None:
    """By the handle, by read and by tail, before anything is opened."""
    with pytest.raises(InvalidEntryError, match="session_id"):
        journal.session("")
    with pytest.raises(InvalidEntryError, match="session_id"):
        journal.read("x" * 257)
    with pytest.raises(InvalidEntryError, match="session_id"), journal.tail("\n"):
        pass


def test_a_time_that_names_no_moment_is_refused(journal: Journal) -> None:
    """It would let everything pass, or nothing."""
    with pytest.raises(InvalidEntryError, match="since"):
        journal.read("s", since="yesterday")


def test_lines_of_others_keep_what_they_say(journal: Journal) -> None:
    """Timestamp character for character, unknown fields, and the id as source_id."""
    receipt = journal.emit_line(
        b'{"event_type":"N","id":7,"timestamp":"2026-01-01 00:00","extra":{"x":1},"details":{"a":1.50}}',
        session_id="s",
    )
    entry = journal.read("s").all()[0]
    assert (entry.id, entry.source_id, entry.timestamp) == (receipt.id, 7, "2026-01-01 00:00")
    assert entry.to_dict()["extra"] == {"x": 1}
    assert b'"a":1.50' in entry.line
    with pytest.raises(InvalidEntryError):
        journal.emit_line(b"[1]", session_id="s")


def test_iterators_left_half_way_leave_nothing_behind(journal: Journal) -> None:
    """No warning, no connection, and the journal goes on (warnings are errors in these tests)."""
    for n in range(2_000):
        journal.emit("N", session_id="s", details={"n": n})
    for _ in range(3):
        for entry in journal.read("s"):
            assert entry.details == {"n": 0}
            break
        reading = iter(journal.read("s"))
        next(reading)
        del reading
        with journal.tail("s", history=None) as entries:
            next(entries)
    assert len(journal.read("s").all()) == 2_000


@pytest.mark.asyncio
async def test_async_iterators_left_half_way_leave_nothing_behind() -> None:
    """As above; a tail is closed by its block. (trio warns of any async generator that is left.)"""
    async with AsyncJournal() as journal:
        for n in range(2_000):
            journal.emit("N", session_id="s", details={"n": n})
        for _ in range(3):
            async for entry in journal.read("s"):
                assert entry.details == {"n": 0}
                break
            async with journal.tail("s", history=None) as entries:
                await anext(entries)
        assert len(await journal.read("s").all()) == 2_000


def test_closing_frees_the_threads_and_ends_the_journal() -> None:
    """Nothing of ours runs afterwards; closing again does no harm, and what comes later is refused."""
    before = set(threading.enumerate())
    journal = Journal()
    journal.emit("N", session_id="s")
    journal.read("s").all()
    delivery = journal.close()
    assert (delivery.acknowledged, delivery.pending, delivery.dropped) == (1, 0, 0)
    assert journal.close() == delivery
    left = [
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("streamjournal")
    ]
    assert left == []
    with pytest.raises(ClosedJournalError):
        journal.emit("N", session_id="s")
    with pytest.raises(ClosedJournalError):
        journal.read("s")
    with pytest.raises(ClosedJournalError):
        journal.sessions()


def test_a_process_that_never_closes_its_journal_ends_at_once_and_loses_nothing() -> None:
    """The exit flushes; the reader's thread does not hold it up."""
    program = (
        "import streamjournal\n"
        "journal = streamjournal.Journal()\n"
        "journal.emit('N', session_id='s')\n"
        "print(len(journal.read('s').all()))\n"
        "journal.emit('N', session_id='s')\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")
    assert time.monotonic() - started < 10
    with Journal() as journal:
        assert len(journal.read("s").all()) == 2


def test_a_forked_child_uses_the_journal_as_its_own() -> None:
    """It emits as another writer, reads with connections of its own, and the parent goes on."""
    program = (
        "import os, sys, streamjournal\n"
        "journal = streamjournal.Journal()\n"
        "journal.emit('PARENT', session_id='s').result(10)\n"
        "journal.read('s').all()\n"
        "if os.fork() == 0:\n"
        "    journal.emit('CHILD', session_id='s').result(10)\n"
        "    seen = [e.event_type for e in journal.read('s')]\n"
        "    journal.close()\n"
        "    os._exit(0 if seen == ['PARENT', 'CHILD'] else 1)\n"
        "code = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "journal.emit('PARENT', session_id='s').result(10)\n"
        "found = journal.read('s').all()\n"
        "assert [e.event_type for e in found] == ['PARENT', 'CHILD', 'PARENT'], found\n"
        "assert len({e.id.split('-')[0] for e in found}) == 2\n"
        "journal.close()\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_spool_that_is_off_keeps_entries_in_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written beside the stream, and entries arrive all the same."""
    monkeypatch.setenv("STREAMJOURNAL_SPOOL", "off")
    with Journal() as journal:
        journal.emit("N", session_id="s").result(10)
        assert not (Path(os.environ["STREAMJOURNAL_HOME"]) / "spool").exists()


def test_a_tail_in_a_thread_ends_with_its_block(journal: Journal) -> None:
    """Entries come as they are emitted, in order."""
    found: list[str] = []
    opened = threading.Event()

    def follow() -> None:
        with journal.tail("s", history=None) as entries:
            opened.set()
            for entry in entries:
                found.append(entry.event_type)
                if entry.event_type == "LAST":
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    assert opened.wait(10)
    for event in ("A", "B", "LAST"):
        journal.emit(event, session_id="s").result(10)
    thread.join(10)
    assert found == ["A", "B", "LAST"]


def test_a_read_left_early_goes_on_by_its_cursor(journal: Journal) -> None:
    """The cursor stands after the entry that the loop was left at, in the journal and on the stream."""
    receipts = [journal.emit("E", session_id="s", details={"n": n}) for n in range(10)]
    for receipt in receipts:
        receipt.result(10)
    for count in (1, 3, 9):
        begun = journal.read("s")
        given = []
        for entry in begun:
            given.append(entry.details["n"])
            if len(given) == count:
                break
        rest = [entry.details["n"] for entry in journal.read("s", after=begun.cursor)]
        assert given + rest == list(range(10))
