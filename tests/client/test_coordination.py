"""Tools that meet through the journal: the last entry of a kind, waiting for one, and a folded state."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from streamjournal import AsyncJournal, Entry, Journal
from streamjournal.core.errors import StreamUnavailableError


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """An embedded journal works on both."""
    return request.param


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A sync journal, embedded in the test's own folder."""
    with Journal() as opened:
        yield opened


def drain() -> None:
    """Have a worker write what is on the stream."""
    subprocess.run(
        [sys.executable, "-m", "streamjournal", "worker", "--drain"],
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_the_latest_entry_of_a_kind(journal: Journal) -> None:
    """By type, tool and details, in the journal or on the stream; None where there is none."""
    for run, status in (("r1", "started"), ("r2", "started"), ("r1", "done")):
        journal.emit("TRAINING", session_id="s", tool_name="train", details={"run": run, "status": status})
    journal.emit("NOTE", session_id="s")
    for _ in range(2):
        assert found(journal.latest("s")) == ("NOTE", {})
        assert found(journal.latest("s", event_type="TRAINING")) == (
            "TRAINING",
            {"run": "r1", "status": "done"},
        )
        assert found(journal.latest("s", where={"run": "r2"})) == (
            "TRAINING",
            {"run": "r2", "status": "started"},
        )
        started = journal.latest("s", tool_name="train", where=lambda e: e.details["status"] == "started")
        assert found(started) == ("TRAINING", {"run": "r2", "status": "started"})
        assert journal.latest("s", event_type=("NOTE", "OTHER"), where={"run": "r1"}) is None
        assert journal.latest("nobody") is None
        journal.flush(timeout=10)
        drain()


def found(entry: Entry | None) -> tuple[str, object] | None:
    """What a test compares."""
    return None if entry is None else (entry.event_type, entry.details)


def test_a_journal_that_cannot_see_the_stream_does_not_guess(tmp_path: Path) -> None:
    """A later entry may be on the stream: that is an error, not an old answer."""
    with Journal() as journal:
        journal.emit("A", session_id="s")
    (tmp_path / "home" / "stream.db").write_bytes(b"not a database" * 1000)
    with Journal() as other, pytest.raises(StreamUnavailableError, match="cannot be told"):
        other.latest("s")


def test_waiting_for_what_is_there_already(journal: Journal) -> None:
    """The last one that passes is given at once."""
    for n in range(3):
        journal.emit("A", session_id="s", details={"n": n})
    assert found(journal.wait_for("s", event_type="A", timeout=10)) == ("A", {"n": 2})


def test_waiting_for_what_does_not_come(journal: Journal) -> None:
    """None, after the time that was given."""
    journal.emit("A", session_id="s")
    began = time.monotonic()
    assert journal.wait_for("s", event_type="B", timeout=0.3) is None
    assert 0.3 <= time.monotonic() - began < 10


@pytest.mark.parametrize("writer", ["same process", "another process"])
def test_waiting_is_woken_by_the_entry(journal: Journal, writer: str) -> None:
    """Whoever writes it."""
    journal.emit("A", session_id="s")
    got: list[Entry | None] = []
    waiting = threading.Thread(
        target=lambda: got.append(journal.wait_for("s", event_type="B", where={"n": 1}, timeout=30))
    )
    waiting.start()
    if writer == "same process":
        journal.emit("B", session_id="s", details={"n": 0})
        journal.emit("B", session_id="s", details={"n": 1})
    else:
        command = [sys.executable, "-m", "streamjournal", "write", "s", "B", "-d", "n=1"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    waiting.join(40)
    assert [found(entry) for entry in got] == [("B", {"n": 1})]


def test_waiting_after_a_cursor(journal: Journal) -> None:
    """What was there before does not count, and nothing that came since is missed."""
    journal.emit("A", session_id="s", details={"n": 1})
    read = journal.read("s")
    read.all()
    assert journal.wait_for("s", event_type="A", timeout=0.2, after=read.cursor) is None
    journal.emit("A", session_id="s", details={"n": 2})
    journal.emit("A", session_id="s", details={"n": 3})
    assert found(journal.wait_for("s", event_type="A", timeout=10, after=read.cursor)) == ("A", {"n": 2})


def test_a_test_that_raises_is_the_callers(journal: Journal) -> None:
    """Its error comes out as it is, of a look back and of a wait."""
    journal.emit("A", session_id="s", details={})
    for look in (journal.latest, journal.wait_for):
        with pytest.raises(KeyError, match="status"):
            look("s", where=lambda entry: entry.details["status"] == "done")


def test_a_state_folds_each_entry_once(journal: Journal) -> None:
    """Before and after a worker wrote it, and only what is new each time."""
    seen: list[int] = []

    def total(value: int, entry: Entry) -> int:
        seen.append(entry.details["n"])
        return value + int(entry.details["n"])

    state = journal.state("s", total, int)
    assert state.value == state.update() == 0
    for n in range(1, 4):
        journal.emit("A", session_id="s", details={"n": n})
    assert state.update() == 6
    drain()
    assert state.update() == 6
    journal.emit("A", session_id="s", details={"n": 10})
    assert state.update() == state.value == 16
    drain()
    assert state.update() == 16
    assert seen == [1, 2, 3, 10]
    assert state.missing == []


def test_a_state_of_a_journal_that_began_anew(journal: Journal, tmp_path: Path) -> None:
    """It is folded from the new start; the old entries are gone from it."""
    state = journal.state("s", lambda ids, entry: [*ids, entry.event_type], list)
    journal.emit("OLD", session_id="s")
    journal.flush(timeout=10)
    drain()
    assert state.update() == ["OLD"]
    for file in (tmp_path / "home" / "journals" / "s").iterdir():
        file.unlink()
    journal.emit("NEW", session_id="s")
    journal.flush(timeout=10)
    drain()
    assert state.update() == ["JOURNAL_RESTARTED", "NEW"]
    assert state.update() == ["JOURNAL_RESTARTED", "NEW"]


def test_a_reducer_that_raises(journal: Journal) -> None:
    """Its error comes out; the next update begins from the start, so nothing is folded twice."""
    broken = True

    def count(value: int, entry: Entry) -> int:
        if broken and entry.details["n"] == 2:
            raise ValueError("not yet")
        return value + 1

    state = journal.state("s", count, int)
    for n in range(4):
        journal.emit("A", session_id="s", details={"n": n})
    with pytest.raises(ValueError, match="not yet"):
        state.update()
    broken = False
    assert state.update() == 4


@pytest.mark.anyio
async def test_the_async_journal_has_the_same() -> None:
    """And so have the handles of a session."""
    async with AsyncJournal() as journal:
        session = journal.session("s")
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                session.emit("A", details={"n": 1})

            tasks.start_soon(write)
            assert found(await session.wait_for(event_type="A", timeout=30)) == ("A", {"n": 1})
        assert found(await session.latest(where={"n": 1})) == ("A", {"n": 1})
        state = journal.state("s", lambda count, _: count + 1, int)
        assert await state.update() == 1
        session.emit("A")
        assert await state.update() == 2
