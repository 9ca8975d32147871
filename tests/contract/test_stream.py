"""What every stream promises, over all adapters (and both emulators of Kinesis)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from streamjournal.core.errors import RecordsTrimmedError
from streamjournal.core.position import ShardStart
from streamjournal.stream.port import MAX_RECORD_BYTES, Accepted, PutRecord, Refused, Stream, lineage_of
from streamjournal.stream.rules import hash_of
from tests.stream.rigs import HOUR, RIGS, Rig, read_all, records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

OLDEST = ShardStart("TRIM_HORIZON")
_EVERYWHERE = [
    pytest.param((name, backend), id=f"{name}-{backend}", marks=[pytest.mark.aws] if aws else [])
    for name, backend, aws in [
        ("memory", "asyncio", False),
        ("memory", "trio", False),
        ("sqlite", "asyncio", False),
        ("sqlite", "trio", False),
        ("moto", "asyncio", True),
        ("kinesis-local", "asyncio", True),
    ]
]


@pytest.fixture(params=_EVERYWHERE)
def adapter(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which stream, on which event loop."""
    return request.param


@pytest.fixture
def anyio_backend(adapter: tuple[str, str]) -> str:
    """The event loop: AWS's client runs on asyncio only."""
    return adapter[1]


@pytest.fixture
def unopened(adapter: tuple[str, str], request: pytest.FixtureRequest) -> Rig:
    """The stream of two shards, made outside of the event loop."""
    return RIGS[adapter[0]](request)


@pytest.fixture
async def rig(unopened: Rig) -> AsyncIterator[Rig]:
    """The stream, closed after the test."""
    yield unopened
    await unopened.stream.aclose()


@pytest.fixture
def stream(rig: Rig) -> Stream:
    """The stream."""
    return rig.stream


async def put_one(stream: Stream, key: str, payload: str) -> Accepted:
    """Put a record that must be accepted."""
    (outcome,) = await stream.put(records(key, payload))
    assert isinstance(outcome, Accepted), outcome
    return outcome


def payloads(found: list) -> list[str]:
    """The records' data as text."""
    return [record.data.decode() for record in found]


async def test_shards_divide_hash_space(stream):
    """The open shards cover every hash once, and have no parents at first."""
    shards = sorted(await stream.shards(), key=lambda shard: shard.first_hash)
    assert [shard.parents for shard in shards] == [(), ()]
    assert not any(shard.closed for shard in shards)
    assert (shards[0].first_hash, shards[-1].last_hash) == (0, 2**128 - 1)
    assert shards[0].last_hash + 1 == shards[1].first_hash


async def test_outcomes_are_in_order_and_by_hash(stream):
    """A put answers for each record in the order given, naming the shard that its key hashes to."""
    sent = [PutRecord(f"session-{i}", str(i).encode()) for i in range(60)]
    outcomes = await stream.put(sent)
    ranges = {shard.id: range(shard.first_hash, shard.last_hash + 1) for shard in await stream.shards()}
    assert {outcome.shard for outcome in outcomes} == set(ranges)
    for record, outcome in zip(sent, outcomes, strict=True):
        assert hash_of(record.partition_key) in ranges[outcome.shard]
    read = {}
    for shard in ranges:
        for record in await read_all(stream.reader(shard, OLDEST)):
            read[record.shard, record.sequence] = record.data
    assert [read[outcome] for outcome in outcomes] == [record.data for record in sent]


async def test_order_of_a_key(stream):
    """Puts of one key, one after the other, go to one shard, rise there, and are read in that order."""
    accepted = [await put_one(stream, "one/session", str(i)) for i in range(12)]
    (shard,) = {outcome.shard for outcome in accepted}
    numbers = [int(outcome.sequence) for outcome in accepted]
    assert numbers == sorted(set(numbers))
    found = await read_all(stream.reader(shard, OLDEST))
    assert payloads(found) == [str(i) for i in range(12)]
    assert [record.sequence for record in found] == [outcome.sequence for outcome in accepted]


@pytest.mark.parametrize("kind", ["AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"])
async def test_start_at_sequence_number(stream, kind):
    """AT begins with the record of that number, AFTER with the one behind it."""
    accepted = [await put_one(stream, "s", str(i)) for i in range(5)]
    start = ShardStart(kind, sequence=accepted[2].sequence)
    found = await read_all(stream.reader(accepted[0].shard, start))
    assert payloads(found) == (["2", "3", "4"] if kind.startswith("AT") else ["3", "4"])


async def test_start_at_newest(stream):
    """LATEST gives only what is put after the reader's first read."""
    shard = (await put_one(stream, "s", "before")).shard
    reader = stream.reader(shard, ShardStart("LATEST"))
    assert payloads((await reader.next()).records) == []
    await put_one(stream, "s", "after")
    assert payloads(await read_all(reader, wait=0.05)) == ["after"]


async def test_start_at_timestamp(stream):
    """AT_TIMESTAMP begins with the first record that arrived then or later."""
    await put_one(stream, "s", "before")
    await anyio.sleep(0.005)
    moment = time.time()
    await anyio.sleep(0.005)
    shard = (await put_one(stream, "s", "after")).shard
    found = await read_all(stream.reader(shard, ShardStart("AT_TIMESTAMP", timestamp=moment)))
    assert payloads(found) == ["after"]
    assert found[0].arrival_ms == pytest.approx(moment * 1000, abs=10_000)


async def test_timestamp_before_everything(stream):
    """AT_TIMESTAMP before the oldest record begins with that."""
    shard = (await put_one(stream, "s", "first")).shard
    start = ShardStart("AT_TIMESTAMP", timestamp=time.time() - 60)
    assert payloads(await read_all(stream.reader(shard, start))) == ["first"]


async def test_wait_returns_on_arrival(stream):
    """A waiting reader returns when a record arrives, long before its wait is over."""
    shard = (await put_one(stream, "s", "old")).shard
    reader = stream.reader(shard, ShardStart("LATEST"))
    await reader.next()
    batches = []

    async def wait_for_one() -> None:
        batches.append(await reader.next(wait=60))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_one)
            await anyio.sleep(0.01)
            assert batches == []
            await put_one(stream, "s", "new")
    assert payloads(batches[0].records) == ["new"]
    assert not batches[0].ended


async def test_wait_ends(stream):
    """A wait that sees nothing ends with no records, caught up."""
    (shard, *_) = await stream.shards()
    batch = await stream.reader(shard.id, OLDEST).next(wait=0.03)
    assert (list(batch.records), batch.behind_ms, batch.ended) == ([], 0, False)


async def test_cancelled_wait_skips_nothing(stream):
    """A reader whose wait was cancelled goes on where it was."""
    shard = (await put_one(stream, "s", "a")).shard
    reader = stream.reader(shard, OLDEST)
    assert payloads((await reader.next()).records) == ["a"]
    with anyio.move_on_after(0.03):
        await reader.next(wait=60)
    await put_one(stream, "s", "b")
    assert payloads(await read_all(reader, wait=0.05)) == ["b"]


async def test_pages(stream):
    """Limited reads give each record once, and say that more follow until the last."""
    await stream.put(records("s", *"abcdefg"))
    shard = (await put_one(stream, "s", "h")).shard
    reader = stream.reader(shard, OLDEST)
    found, behind = [], []
    for _ in range(4):
        batch = await reader.next(max_records=2)
        found += payloads(batch.records)
        behind.append(batch.behind_ms > 0)
    assert found == list("abcdefgh")
    assert behind == [True, True, True, False]


async def test_readers_are_independent(stream):
    """Two readers of a shard both get everything."""
    shard = (await put_one(stream, "s", "a")).shard
    first, second = stream.reader(shard, OLDEST), stream.reader(shard, OLDEST)
    assert payloads(await read_all(first)) == payloads(await read_all(second)) == ["a"]


async def test_largest_record(stream):
    """A record of 1 MiB, key included, crosses; a larger one is refused for good, and alone."""
    key = "s" * 10
    largest = bytes(range(256)) * (MAX_RECORD_BYTES // 256)
    sent = [PutRecord(key, b"a"), PutRecord(key, largest + b"x"), PutRecord(key, largest[:-10])]
    small, above, at = await stream.put(sent)
    assert isinstance(above, Refused)
    assert above.permanent
    assert isinstance(small, Accepted)
    assert isinstance(at, Accepted)
    found = await read_all(stream.reader(at.shard, OLDEST))
    assert [record.data for record in found] == [b"a", largest[:-10]]


async def test_bad_partition_key(stream):
    """An empty key, or one of over 256 characters, is refused for good; what is beside it is taken."""
    outcomes = await stream.put([PutRecord("", b"x"), PutRecord("good", b"y"), PutRecord("k" * 257, b"z")])
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [False, True, False]
    assert all(outcome.permanent for outcome in outcomes if isinstance(outcome, Refused))


async def test_nothing_to_put(stream):
    """An empty batch is answered by an empty list."""
    assert await stream.put([]) == []


@pytest.mark.parametrize("key", ["日本", "a/b%2F c", "😀" * 64, "é" * 256, "\u202e"])
async def test_any_key(stream, key):
    """Partition keys come back as they were, whatever characters are in them."""
    accepted = await put_one(stream, key, "x")
    (record,) = await read_all(stream.reader(accepted.shard, OLDEST))
    assert record.partition_key == key


async def test_any_bytes(stream):
    """Data comes back as it was, as bytes, even if it is no text, or empty but for one zero."""
    sent = [bytes(range(256)), b"\x00", b"\n\n"]
    outcomes = await stream.put([PutRecord("s", data) for data in sent])
    found = await read_all(stream.reader(outcomes[0].shard, OLDEST))
    assert sorted(record.data for record in found) == sorted(sent)
    assert {type(record.data) for record in found} == {bytes}


async def test_identity(rig):
    """The identity stays, and a stream made anew under the same name has another."""
    before = await rig.stream.identity()
    assert await rig.stream.identity() == before
    again = await anyio.to_thread.run_sync(rig.recreate)
    after = await again.identity()
    await again.aclose()
    assert after != before
    assert after.digest != before.digest


async def test_retention(rig):
    """How long a record stays, in seconds: an hour as the rig made it, 24 of them on a new Kinesis stream."""
    assert await rig.stream.retention() == (HOUR if rig.own_time else 24 * HOUR)


async def test_concurrent_puts(stream):
    """Puts at the same time lose nothing, double nothing, and draw different numbers."""
    outcomes: list[Accepted] = []

    async def put_some(task: int) -> None:
        for i in range(6):
            outcomes.extend(
                await stream.put(records(f"session-{task}", *(f"{task}.{i}.{j}" for j in range(5))))
            )

    async with anyio.create_task_group() as tasks:
        for task in range(8):
            tasks.start_soon(put_some, task)
    found = []
    for shard in await stream.shards():
        found += await read_all(stream.reader(shard.id, OLDEST))
    assert sorted(payloads(found)) == sorted(
        f"{t}.{i}.{j}" for t in range(8) for i in range(6) for j in range(5)
    )
    assert len(set(outcomes)) == len(found)


async def test_split(rig):
    """After a split the parent ends once it is drained, and the children take its keys."""
    if rig.split is None:
        pytest.skip("its shards do not split, or not as Kinesis's do")
    stream = rig.stream
    parent = (await put_one(stream, "s", "before")).shard
    reader = stream.reader(parent, OLDEST)
    await reader.next()
    await anyio.to_thread.run_sync(rig.split, parent)
    with anyio.fail_after(10):
        while not (batch := await reader.next(wait=1)).ended:
            assert list(batch.records) == []
    assert (await reader.next(wait=60)).ended, "the end stays the end"
    listed = await stream.shards()
    (closed,) = (shard for shard in listed if shard.closed)
    children = [shard for shard in listed if shard.parents == (parent,)]
    assert (closed.id, len(children)) == (parent, 2)
    assert listed.index(closed) < min(listed.index(child) for child in children)
    child = (await put_one(stream, "s", "after")).shard
    assert child in {shard.id for shard in children}
    assert lineage_of(listed).ancestors(child) == {parent}
    assert payloads(await read_all(stream.reader(child, OLDEST))) == ["after"]


async def test_unlisted_shard(stream):
    """A shard that is not there was one whose records are gone."""
    with pytest.raises(RecordsTrimmedError) as caught:
        await stream.reader("shardId-000000000099", OLDEST).next()
    assert caught.value.shard_id == "shardId-000000000099"


async def test_trim_keeps_what_is_not_durable(rig):
    """Retention deletes only what is older, and at or below the checkpoint of a shard that is named."""
    if not rig.own_time:
        pytest.skip("deletes by itself")
    stream = rig.stream
    accepted = [await put_one(stream, "s", str(i)) for i in range(6)]
    shard = accepted[0].shard
    assert await stream.trim({shard: accepted[2].sequence}) == 0, "nothing is old yet"
    rig.skew[0] += HOUR + 1
    await put_one(stream, "s", "young")
    assert await stream.trim({}) == 0
    assert await stream.trim({shard: "TRIM_HORIZON"}) == 0
    assert await stream.trim({shard: accepted[2].sequence}) == 3
    assert payloads(await read_all(stream.reader(shard, OLDEST))) == ["3", "4", "5", "young"]
    assert await stream.trim({shard: "SHARD_END"}) == 3
    assert payloads(await read_all(stream.reader(shard, OLDEST))) == ["young"]


async def test_trimmed_gap(rig):
    """Who is positioned before deleted records is told so; who has read them all goes on."""
    if not rig.own_time:
        pytest.skip("deletes by itself")
    stream = rig.stream
    accepted = [await put_one(stream, "s", str(i)) for i in range(4)]
    shard = accepted[0].shard
    behind, level = stream.reader(shard, OLDEST), stream.reader(shard, OLDEST)
    await behind.next(max_records=1)
    await level.next(max_records=3)
    rig.skew[0] += HOUR + 1
    assert await stream.trim({shard: accepted[2].sequence}) == 3
    for reader in (
        behind,
        stream.reader(shard, ShardStart.after(accepted[1].sequence)),
        stream.reader(shard, ShardStart("AT_SEQUENCE_NUMBER", sequence=accepted[2].sequence)),
    ):
        for _ in range(2):
            with pytest.raises(RecordsTrimmedError) as caught:
                await reader.next()
        assert caught.value.shard_id == shard
    for reader in (
        level,
        stream.reader(shard, ShardStart.after(accepted[2].sequence)),
        stream.reader(shard, ShardStart("AT_SEQUENCE_NUMBER", sequence=accepted[3].sequence)),
        stream.reader(shard, OLDEST),
    ):
        assert payloads(await read_all(reader)) == ["3"]


async def test_order_goes_on_after_everything_was_deleted(rig):
    """An emptied stream draws higher numbers than before, so old positions stay behind new ones."""
    if not rig.own_time:
        pytest.skip("deletes by itself")
    before = await put_one(rig.stream, "s", "old")
    rig.skew[0] += HOUR + 1
    assert await rig.stream.trim({before.shard: before.sequence}) == 1
    after = await put_one(rig.stream, "s", "new")
    assert int(after.sequence) > int(before.sequence)
    found = await read_all(rig.stream.reader(after.shard, ShardStart.after(before.sequence)))
    assert payloads(found) == ["new"]
