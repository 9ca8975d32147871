"""The list of sessions: journals' summaries, and what is not in them yet."""

from __future__ import annotations

import pytest
import trio

from streamjournal.core.errors import CommitRefusedError, StoreUnavailableError
from streamjournal.read.sessions import HeadCache, Session, SessionList, list_sessions
from tests.sim.faults import Fault
from tests.sim.rig import Rig, line

pytestmark = pytest.mark.anyio

ODD = [
    "a/b",
    "../x",
    "a%2Fb",
    "日本",
    "CON",
    ".",
    "🦊" * 64,
    "swe-agent-claude35/astropy__astropy-12907",
    "~",
]


async def listed(rig: Rig, *, limit: int | None = None) -> dict[str, Session]:
    """A complete list, by id."""
    result = await list_sessions(rig.access(), HeadCache(), limit=limit)
    assert result.complete, result.missing
    return {session.session_id: session for session in result.sessions}


async def test_none() -> None:
    """Nobody wrote anything."""
    assert await listed(Rig()) == {}


async def test_the_same_before_and_after_the_flush() -> None:
    """Counts, times, status and bytes include what is on the stream only, once."""
    rig = Rig(shards=3)
    for n in range(1, 4):
        await rig.put("a", n, level="ERROR" if n == 2 else "INFO")
        await trio.sleep(1)
    await rig.drain()
    await rig.put("a", 4, level="ERROR")
    await rig.put("a", 4)  # a resend
    await rig.put("b", 1, event_type="SESSION_END", details={"error": "x"})
    await rig.put_data("c", b'{"event_type":"X"}')
    before = await listed(rig)
    await rig.drain()
    after = await listed(rig)
    assert before == after
    assert (after["a"].entries, after["a"].errors, after["a"].status) == (4, 2, "running")
    assert (after["b"].entries, after["b"].status) == (1, "failed")
    assert after["a"].first.startswith("2026-11-22T13:12:01")
    assert after["a"].first < after["a"].last
    assert after["a"].bytes == len(rig.store.body("a"))


@pytest.mark.parametrize("flushed", [False, True])
async def test_odd_ids_come_back_as_they_were(*, flushed: bool) -> None:
    """Whatever the object is called."""
    rig = Rig()
    for session in ODD:
        await rig.put(session, 1)
    if flushed:
        await rig.drain()
    assert (await listed(rig)).keys() == set(ODD)


async def test_statuses() -> None:
    """running, ended, failed, and abandoned after an hour without an entry and without an end."""
    rig = Rig()
    await rig.put("ended", 1, event_type="SESSION_END")
    await rig.put("failed", 1, event_type="SESSION_END", details={"status": "error"})
    await rig.put("again", 1, event_type="SESSION_END")
    await rig.put("again", 2, event_type="SESSION_START")
    await rig.put("quiet", 1)
    await rig.drain()
    await trio.sleep(3700)
    await rig.put("again", 3)
    found = {name: session.status for name, session in (await listed(rig)).items()}
    assert found == {"ended": "ended", "failed": "failed", "again": "running", "quiet": "abandoned"}


async def test_newest_first_and_a_limit() -> None:
    """A session with news on the stream is among the newest, whatever its journal's age."""
    rig = Rig()
    for session in "abcdef":
        await rig.put(session, 1)
        await rig.drain()
        await trio.sleep(10)
    await rig.put("a", 2)
    rig.faults.calls.clear()
    result = await list_sessions(rig.access(), HeadCache(), limit=3)
    assert [session.session_id for session in result.sessions] == ["a", "f", "e"]
    assert result.sessions[0].entries == 2
    assert rig.faults.calls["store.head_named"] <= 4


async def test_a_list_asked_for_again_costs_no_heads() -> None:
    """Heads are remembered by version; only what changed is asked for."""
    rig = Rig()
    rig.store.adopt_journal("old", b'{"timestamp":"t","event_type":"OLD"}\n')
    for session in "abc":
        await rig.put(session, 1)
    await rig.drain()
    cache, access = HeadCache(), rig.access()
    await list_sessions(access, cache)
    rig.faults.calls.clear()
    await list_sessions(access, cache)
    assert rig.faults.calls["store.head_named"] == 0
    assert rig.faults.calls["store.open"] == 0
    await rig.put("a", 2)
    await rig.drain()
    rig.faults.calls.clear()
    await list_sessions(access, cache)
    assert rig.faults.calls["store.head_named"] == 1


async def test_an_adopted_journal() -> None:
    """Its lines are counted, since it has no summary; the stream's copies are not counted twice."""
    rig = Rig()
    rig.store.adopt_journal("s", b'{"timestamp":"t0","event_type":"OLD"}\n' + line("s", 1, level="ERROR"))
    await rig.put("s", 1, 2)
    session = (await listed(rig))["s"]
    assert (session.entries, session.errors, session.first) == (3, 1, "t0")


async def test_a_stream_that_cannot_be_read() -> None:
    """The journals are listed, and the answer says what could not be looked at."""
    rig = Rig()
    await rig.put("a", 1)
    await rig.drain()
    await rig.put("b", 1)
    for away in ("stream", "stream.next"):
        rig.faults.away = {away}
        result: SessionList = await list_sessions(rig.access(), HeadCache())
        assert [session.session_id for session in result.sessions] == ["a"]
        assert [what for what, _ in result.missing] == ["stream"]


async def test_one_journal_that_cannot_be_read() -> None:
    """The others are listed; a store that is away is an error."""
    rig = Rig()
    for session in "abc":
        await rig.put(session, 1)
    await rig.drain()
    rig.faults.script["store.head_named"].append(Fault(CommitRefusedError("metadata of version 9")))
    result = await list_sessions(rig.access(), HeadCache())
    assert len(result.sessions) == 2
    assert [what for what, _ in result.missing] == ["journal"]
    rig.faults.away = {"store"}
    with pytest.raises(StoreUnavailableError):
        await list_sessions(rig.access(), HeadCache())
