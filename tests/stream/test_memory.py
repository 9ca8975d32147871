"""The stream in memory: resharding, retention, and waiting in virtual time."""

from __future__ import annotations

import anyio
import pytest
import trio
import trio.testing

from streamjournal.core.clock import Clock
from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import ShardStart
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import MAX_PUT_RECORDS, PutRecord, lineage_of
from tests.stream.rigs import read_all, records

pytestmark = pytest.mark.anyio

OLDEST = ShardStart("TRIM_HORIZON")
VIRTUAL = Clock(time_ns=lambda: int(trio.current_time() * 1e9) + 10**18, monotonic=trio.current_time)


@pytest.fixture
def anyio_backend():
    """Virtual time: hours pass at once."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture
async def stream():
    """Two shards, records kept for an hour."""
    return MemoryStream(shards=2, clock=VIRTUAL, retention_seconds=3600)


async def put_one(stream, payload, key="s"):
    """Put one record."""
    (accepted,) = await stream.put(records(key, payload))
    return accepted


async def test_wait_takes_as_long_as_asked(stream):
    """Waiting for nothing takes the time asked for, and no more."""
    began = trio.current_time()
    assert not (await stream.reader("shardId-000000000000", OLDEST).next(wait=5000)).records
    assert trio.current_time() - began == pytest.approx(5000)


async def test_wait_ends_when_its_shard_is_split(stream):
    """A reader that waits on a shard learns at once that it ended."""
    shard = (await put_one(stream, "x")).shard
    reader = stream.reader(shard, ShardStart("LATEST"))
    await reader.next()
    batches = []

    async def wait() -> None:
        batches.append(await reader.next(wait=1000))

    began = trio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        stream.split(shard)
    assert (list(batches[0].records), batches[0].ended) == ([], True)
    assert trio.current_time() - began == pytest.approx(1)


async def test_all_waiting_readers_wake(stream):
    """One record wakes every reader that waits on its shard."""
    shard = (await put_one(stream, "x")).shard
    seen = []

    async def wait() -> None:
        seen.append(await stream.reader(shard, ShardStart("LATEST")).next(wait=1000))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.sleep(1)
        await put_one(stream, "y")
    assert [batch.records[0].data for batch in seen] == [b"y"] * 3


async def test_numbers_compare_as_integers_only(stream):
    """Sequence numbers get longer within a few records, so that comparing them as text is found out."""
    accepted = [(await put_one(stream, str(i))).sequence for i in range(20)]
    assert sorted(accepted, key=int) == accepted
    assert sorted(accepted) != accepted
    assert min(int(sequence) for sequence in accepted) > 2**64


async def test_merge(stream):
    """Two adjacent shards end and have one child together, which takes the keys of both."""
    first, second = [shard.id for shard in await stream.shards()]
    for i in range(20):
        await put_one(stream, str(i), key=f"k{i}")
    child = stream.merge(second, first)
    listed = {shard.id: shard for shard in await stream.shards()}
    assert set(listed[child].parents) == {first, second}
    assert (listed[child].first_hash, listed[child].last_hash) == (0, 2**128 - 1)
    assert {(await put_one(stream, "x", key=f"k{i}")).shard for i in range(20)} == {child}
    assert lineage_of(list(listed.values())).ancestors(child) == {first, second}
    for parent in (first, second):
        found = await read_all(stream.reader(parent, OLDEST))
        assert found
        assert (await stream.reader(parent, ShardStart.after(found[-1].sequence)).next()).ended


async def test_reshard_what_cannot_be(stream):
    """A closed shard is not resharded again, shards apart are not merged, a split lies inside."""
    first, second = [shard.id for shard in await stream.shards()]
    left, right = stream.split(first)
    for attempt in (
        lambda: stream.split(first),
        lambda: stream.merge(first, second),
        lambda: stream.merge(left, second),
        lambda: stream.split(right, at=0),
    ):
        with pytest.raises(ValueError, match="shardId"):
            attempt()
    stream.merge(right, second)


async def test_end_comes_with_the_last_records(stream):
    """A closed shard ends with its last record, not before, however small the reads are."""
    shard = (await put_one(stream, "a")).shard
    await put_one(stream, "b")
    stream.split(shard)
    reader = stream.reader(shard, OLDEST)
    ends = [(await reader.next(max_records=1)).ended for _ in range(3)]
    assert ends == [False, True, True]


async def test_expiry(stream):
    """Like Kinesis, a stream told to expire deletes what is old, whatever was checkpointed."""
    old = await put_one(stream, "old")
    await anyio.sleep(3000)
    await put_one(stream, "young")
    await anyio.sleep(1000)
    assert stream.expire() == 1
    found = await read_all(stream.reader(old.shard, OLDEST))
    assert [record.data for record in found] == [b"young"]
    with pytest.raises(RecordsTrimmedError):
        await stream.reader(old.shard, ShardStart.after(str(int(old.sequence) - 1))).next()
    assert [r.data for r in await read_all(stream.reader(old.shard, ShardStart.after(old.sequence)))] == [
        b"young"
    ]


async def test_drained_parents_can_vanish(stream):
    """A closed shard that holds nothing any more can be unlisted; its children still name it."""
    shard = (await put_one(stream, "a")).shard
    last = await put_one(stream, "b")
    children = stream.split(shard)
    assert stream.forget_empty() == []
    assert stream.trim_to(shard, last.sequence) == 2
    assert stream.forget_empty() == [shard]
    listed = {s.id: s for s in await stream.shards()}
    assert shard not in listed
    assert [listed[child].parents for child in children] == [(shard,), (shard,)]
    with pytest.raises(RecordsTrimmedError):
        await stream.reader(shard, ShardStart.after(last.sequence)).next()


async def test_overlong_call(stream):
    """A call over PutRecords' bounds is the caller's mistake, and nothing of it is taken."""
    with pytest.raises(ValueError, match="501"):
        await stream.put([PutRecord("k", b"x")] * (MAX_PUT_RECORDS + 1))
    for shard in await stream.shards():
        assert await read_all(stream.reader(shard.id, OLDEST)) == []


async def test_large_reads_are_bounded_in_bytes(stream):
    """A read gives about 10 MiB at most, and says that more follows."""
    for _ in range(3):
        await stream.put([PutRecord("s", bytes(2**20 - 1))] * 5)
    shard = (await put_one(stream, "x")).shard
    batch = await stream.reader(shard, OLDEST).next()
    assert len(batch.records) == 11
    assert batch.behind_ms > 0


async def test_behind_is_time(stream):
    """How far behind a reader is, is the time between its last record and the newest."""
    shard = (await put_one(stream, "a")).shard
    await anyio.sleep(7)
    await put_one(stream, "b")
    assert (await stream.reader(shard, OLDEST).next(max_records=1)).behind_ms == 7000


async def test_unknown_start(stream):
    """A start that is none is refused rather than taken for another."""
    with pytest.raises(ValueError, match="SOMEWHERE"):
        await stream.reader("shardId-000000000000", ShardStart("SOMEWHERE")).next()


async def test_a_forgotten_shard_is_gone_with_its_records(stream):
    """Only a closed shard can be forgotten; its readers learn that it is gone."""
    shard = (await put_one(stream, "x")).shard
    with pytest.raises(ValueError, match="is open"):
        stream.forget(shard)
    children = stream.split(shard)
    reader = stream.reader(shard, OLDEST)
    stream.forget(shard)
    listed = [each.id for each in await stream.shards()]
    assert shard not in listed
    assert set(children) < set(listed)
    with pytest.raises(RecordsTrimmedError):
        await reader.next()
