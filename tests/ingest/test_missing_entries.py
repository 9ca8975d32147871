"""Entries that never came, through a whole worker: the journal tells, and so does a check of it."""

from __future__ import annotations

import pytest

from streamjournal.core.errors import CommitRefusedError
from streamjournal.read.verification import Verification
from streamjournal.read.verify import verify_journal, verify_journals
from streamjournal.stream.memory import MemoryStream
from tests.sim.faults import Fault, FaultyStream
from tests.sim.rig import Rig, check_journals

pytestmark = pytest.mark.anyio


async def check(rig: Rig) -> Verification:
    """The check's result for session s."""
    found = await verify_journal(rig.store, "s")
    assert found is not None
    await check_journals(rig.store)
    return found


async def test_records_that_were_trimmed_before_a_worker_read_them() -> None:
    """The notice stands where they would have been, and tells which."""
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    await rig.put("s", 2, 3)
    trimmed = await rig.put("s", 4)
    await rig.put("s", 5)
    rig.stream.trim_to("shardId-000000000000", trimmed.sequence)
    await rig.drain()
    found = await check(rig)
    assert [finding.kind for finding in found.findings] == ["entries_trimmed"]
    assert (found.whole, found.writers[0].missing) == (False, [(2, 4)])


async def test_a_session_that_never_had_a_journal() -> None:
    """Its first record is not its first entry: the journal begins with the notice."""
    rig = Rig()
    trimmed = await rig.put("s", 1, 2)
    await rig.put("s", 3)
    rig.stream.trim_to("shardId-000000000000", trimmed.sequence)
    await rig.drain()
    found = await check(rig)
    assert [finding.kind for finding in found.findings] == ["journal_restarted"]
    assert found.writers[0].missing == [(1, 2)]


async def test_a_session_that_was_parked_and_comes_back() -> None:
    """Its entries are dead letters, and the notice says that they did not come; put on the stream again,
    they fill the gap, and nothing more is said.
    """
    rig = Rig()
    await rig.put("s", 1)
    await rig.drain()
    await rig.put("s", 2, 3)
    rig.faults.script["store.append"].append(Fault(CommitRefusedError("no")))
    await rig.drain()
    assert len(rig.store.dead_letters) == 2
    await rig.put("s", 4)
    await rig.drain()
    assert (await check(rig)).writers[0].missing == [(2, 3)]
    await rig.put_lines("s", [letter.data for letter in rig.store.dead_letters.values()])
    await rig.drain()
    found = await check(rig)
    assert [finding.kind for finding in found.findings] == ["entries_trimmed", "out_of_order"]
    assert "came later" in found.findings[0].text
    assert (found.writers[0].missing, found.writers[0].entries) == ([], 4)
    assert rig.numbers("s") == [1, 4, 2, 3]


async def test_two_streams_of_one_name_one_after_the_other() -> None:
    """The second begins at the same sequence numbers. What the journals say of the first's positions says
    nothing about it: nothing is taken for old, doubled or missing.
    """
    rig = Rig()
    for n in range(1, 6):
        await rig.put("s", n)
        await rig.put("t", n)
    await rig.drain()
    first = await rig.stream.identity()
    rig.stream = MemoryStream(shards=1, clock=rig.clock)
    rig.faulty_stream = FaultyStream(rig.stream, rig.faults)
    second = await rig.stream.identity()
    assert second.arn == first.arn
    await rig.put("s", 6)
    await rig.put("t", 1, writer="writer0002")
    await rig.put_data("s", b'{"session_id":"s","event_type":"FOREIGN"}')
    await rig.put("s", 5, 7)  # 5 was resent: its number says that it is there
    await rig.drain()
    assert rig.numbers("s") == [1, 2, 3, 4, 5, 6, 7]
    for found in [one async for one in verify_journals(rig.store)]:
        assert found.findings == []
    meta = rig.store.versions["s"][-1].meta
    assert meta is not None
    assert meta.position is not None
    assert meta.position.stream == second.digest
    await rig.drain()
    assert len(rig.ids("s")) == 8
