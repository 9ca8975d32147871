"""`verify` of both journals: what is in the journal, on its way, or nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from streamjournal import AsyncJournal, InvalidEntryError, Journal, StreamUnavailableError
from streamjournal.read import verify as read_verify
from streamjournal.stream.sqlite import SqliteStream
from tests.cli.conftest import Command, command

__all__ = ["command"]  # the fixture


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """An embedded journal works on both."""
    name: str = request.param
    return name


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A sync journal, embedded in the test's own folder."""
    with Journal() as opened:
        yield opened


def test_before_and_after_the_worker(journal: Journal, command: Command) -> None:
    """On the stream, then in its journal; the session's end makes its writer complete."""
    with journal.session("s") as session:
        session.emit("NOTE")
    found = journal.verify("s")
    assert (found.where, found.whole, found.entries) == ("stream", True, 0)
    assert command("worker", "--drain").code == 0
    found = journal.verify("s")
    assert (found.where, found.whole, found.entries, found.findings) == ("journal", True, 3, [])
    assert found.writers[0].state == "complete"


def test_a_session_that_exists_nowhere(journal: Journal) -> None:
    """It is not whole, and the text says where was looked."""
    found = journal.verify("nobody")
    assert (found.where, found.whole) == ("nowhere", False)
    assert "no such session" in found.findings[0].text


def test_an_id_that_cannot_be_one(journal: Journal) -> None:
    """As for every call."""
    with pytest.raises(InvalidEntryError):
        journal.verify("")


@pytest.mark.anyio
async def test_what_this_process_has_not_sent_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream does not take it now; the session exists all the same."""

    async def away(*_: Any) -> Any:
        raise StreamUnavailableError("away")

    monkeypatch.setattr(SqliteStream, "put", away)
    monkeypatch.setattr("streamjournal.client.async_journal._OWN_FLUSH_SECONDS", 0.01)
    journal = AsyncJournal(exit_timeout=0)
    try:
        journal.emit("NOTE", session_id="s")
        assert (await journal.verify("s")).where == "stream"
    finally:
        await journal.close(0.01)


@pytest.mark.anyio
async def test_without_a_journal_the_stream_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody can say whether the session exists."""

    async def away(*_: Any) -> Any:
        raise StreamUnavailableError("away")

    async with AsyncJournal() as journal:
        monkeypatch.setattr(SqliteStream, "shards", away)
        with pytest.raises(StreamUnavailableError):
            await journal.verify("s")


@pytest.mark.anyio
async def test_a_worker_that_comes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the journal after the first look, and moves its checkpoint past the session."""
    from streamjournal.admin.worker_process import run_worker
    from streamjournal.client import async_journal

    async with AsyncJournal() as journal:
        await journal.emit("NOTE", session_id="s")
        looked = anyio.Event()

        async def look_first(store: Any, session_id: str) -> Any:
            found = await read_verify.verify_journal(store, session_id)
            if not looked.is_set():
                looked.set()
                await run_worker(journal.settings, drain=True)
            return found

        monkeypatch.setattr(async_journal, "verify_journal", look_first)
        found = await journal.verify("s")
        assert (found.where, found.whole, found.entries) == ("journal", True, 1)
