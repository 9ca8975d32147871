"""Tails of entries whose details are kept apart: nothing is skipped while the store does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from streamjournal import AsyncJournal, StoreUnavailableError
from streamjournal.store.files import FilesStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """An embedded journal works on both."""
    return request.param


@pytest.fixture
async def journal() -> AsyncIterator[AsyncJournal]:
    """A journal with three entries, the second one's details beyond a record's limit."""
    async with AsyncJournal() as opened:
        for n in (1, 2, 3):
            await opened.emit(
                "X", session_id="s", details={"n": n, "pad": "x" * (1_100_000 if n == 2 else 1)}
            )
        yield opened


async def numbers_after(journal: AsyncJournal, cursor: str) -> list[int]:
    """What a tail that is resumed gives."""
    async with journal.tail("s", after=cursor, follow=False) as tail:
        return [entry.details["n"] async for entry in tail]


async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    journal: AsyncJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry comes once it answers, and what was missing meanwhile is told."""
    real, failures = FilesStore.get_blob, [StoreUnavailableError("not now")]

    async def flaky(store: FilesStore, key: str) -> bytes | None:
        if failures:
            raise failures.pop()
        return await real(store, key)

    monkeypatch.setattr(FilesStore, "get_blob", flaky)
    async with journal.tail("s", history=None) as tail:
        assert [(await anext(tail)).details["n"] for _ in range(3)] == [1, 2, 3]
        assert [gap.what for gap in tail.missing] == ["store"]


async def test_who_gives_up_waiting_loses_nothing(
    journal: AsyncJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call gives the same entry, and so does a tail that is resumed by the cursor."""
    real, gate = FilesStore.get_blob, anyio.Event()

    async def slow(store: FilesStore, key: str) -> bytes | None:
        await gate.wait()
        return await real(store, key)

    monkeypatch.setattr(FilesStore, "get_blob", slow)
    async with journal.tail("s", history=None) as tail:
        assert (await anext(tail)).details["n"] == 1
        with anyio.move_on_after(0.05):
            await anext(tail)
        cursor = tail.cursor
        gate.set()
        assert (await anext(tail)).details["n"] == 2
        after_two = tail.cursor
    assert await numbers_after(journal, cursor) == [2, 3]
    assert await numbers_after(journal, after_two) == [3]


async def test_a_tail_that_does_not_follow_says_that_the_store_is_away(
    journal: AsyncJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the error instead of waiting; its cursor is before the entry."""

    async def away(_: FilesStore, __: str) -> bytes | None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(FilesStore, "get_blob", away)
        async with journal.tail("s", history=None, follow=False) as tail:
            assert (await anext(tail)).details["n"] == 1
            with pytest.raises(StoreUnavailableError):
                await anext(tail)
            cursor = tail.cursor
    assert await numbers_after(journal, cursor) == [2, 3]
