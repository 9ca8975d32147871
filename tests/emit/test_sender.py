"""The sender: order, retries, batches, flushes, entries over the limit, refused entries."""

from __future__ import annotations

import hashlib
import itertools
import logging

import anyio
import msgspec
import pytest

from streamjournal.core.errors import (
    EntryRefusedError,
    NotConfiguredError,
    StoreUnavailableError,
    StreamjournalError,
    StreamUnavailableError,
    ThrottledError,
)
from streamjournal.store.memory import MemoryStore
from streamjournal.stream.aggregation import split
from streamjournal.stream.port import MAX_RECORD_BYTES, Refused
from tests.emit.rigs import pipeline, simulated


async def lost(stream, records):
    """Nothing arrives, and nobody answers."""
    raise StreamUnavailableError("connection refused")


async def answer_lost(stream, records):
    """The worst fault: everything was taken, but the caller sees a timeout."""
    await stream.inner.put(records)
    raise StreamUnavailableError("timed out")


async def throttled(stream, records):
    raise ThrottledError("slow down")


async def every_second_refused(stream, records):
    """A partial failure, as PutRecords has it."""
    taken = [record for i, record in enumerate(records) if i % 2 == 0]
    outcomes = iter(await stream.inner.put(taken))
    throttle = Refused("ProvisionedThroughputExceededException", "slow down")
    return [next(outcomes) if i % 2 == 0 else throttle for i in range(len(records))]


async def not_there(stream, records):
    raise NotConfiguredError("there is no stream agents; `streamjournal init` makes it")


def poisoned(text: bytes):
    """A stream that refuses, for good, every record with `text` in it."""

    async def put(stream, records):
        outcomes = []
        for record in records:
            if text in record.data:
                outcomes.append(Refused("ValidationException", "bad record", permanent=True))
            else:
                outcomes += await stream.inner.put([record])
        return outcomes

    return put


@simulated
async def test_linger():
    """Entries that follow each other quickly share a record; the first waits for `linger`, no longer."""
    async with pipeline(linger=0.05) as it:
        for _ in range(10):
            it.emit()
            await anyio.sleep(0.004)
        await anyio.sleep(0.5)
        assert len(it.stream.calls) == 1
        assert it.stream.calls[0][0] == pytest.approx(0.05, abs=0.002)
        assert it.stream.numbers("s") == list(range(1, 11))


@simulated
async def test_sessions_share_a_call():
    """Entries of many sessions that are ready together cross in one call, a record each."""
    async with pipeline() as it:
        for i in range(30):
            it.emit(f"s{i % 10}")
        await it.flush()
        assert [len(records) for _, records in it.stream.calls] == [10]


@simulated
async def test_a_call_keeps_within_its_bounds():
    """A call holds at most 500 records; the sessions beyond go in another."""
    async with pipeline() as it:
        for i in range(1201):
            it.emit(f"s{i}")
        await it.flush()
        assert sorted(len(records) for _, records in it.stream.calls) == [201, 500, 500]
        assert it.stream.most_calls <= 4


@pytest.mark.parametrize("fault", [lost, answer_lost, throttled, not_there])
@simulated
async def test_order_through_failed_calls(fault):
    """Whatever a call ends with, the session's entries arrive in order, and all of them."""
    async with pipeline() as it:
        it.stream.faults = [fault, None, fault, fault]
        for _ in range(60):
            it.emit()
            await anyio.sleep(0.03)
        await it.flush()
        assert it.stream.numbers("s") == list(range(1, 61))
        numbers = [int(entry["id"].partition("-")[2]) for entry in it.stream.taken()["s"]]
        if fault is not answer_lost:
            assert numbers == list(range(1, 61)), "nothing was sent twice without need"
        assert it.emitter.delivery() == (60, 0, 0)
        assert it.emitter.buffered == 0


@simulated
async def test_order_through_partial_failures():
    """A record that one call did not get through goes again before its session's later entries."""
    async with pipeline() as it:
        it.stream.faults = [every_second_refused] * 8
        for i in range(400):
            it.emit(f"s{i % 7}")
            if i % 10 == 0:
                await anyio.sleep(0.02)
        await it.flush()
        taken = it.stream.taken()
        for session_id in taken:
            ids = [int(entry["id"].partition("-")[2]) for entry in taken[session_id]]
            assert ids == list(range(1, len(ids) + 1))
        assert sum(map(len, taken.values())) == 400


@simulated
async def test_random_faults_lose_and_reorder_nothing():
    """Any mix of faults, over many sessions: each entry arrives, in order."""
    async with pipeline() as it:
        rng = it.clock.rng
        choices = [None, None, lost, answer_lost, throttled, every_second_refused]
        it.stream.faults = [rng.choice(choices) for _ in range(200)]
        counts = dict.fromkeys([f"s{i}" for i in range(20)], 0)
        for _ in range(3000):
            session_id = rng.choice(list(counts))
            it.emit(session_id)
            counts[session_id] += 1
            if rng.random() < 0.05:
                await anyio.sleep(rng.random() / 5)
        await it.flush()
        for session_id, count in counts.items():
            assert it.stream.numbers(session_id) == list(range(1, count + 1))


@simulated
async def test_throttling_backs_off():
    """A stream that throttles is asked less and less often."""
    async with pipeline() as it:
        it.stream.always = throttled
        it.emit()
        await anyio.sleep(60)
        times = [when for when, _ in it.stream.calls]
        assert len(times) < 20
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert gaps[-1] > 4
        it.stream.always = None
        await it.flush()
        assert it.stream.numbers("s") == [1]


@simulated
async def test_one_session_does_not_hold_up_another():
    """A session whose record is throttled waits alone."""
    async with pipeline() as it:

        async def throttles_a(stream, records):
            throttle = Refused("ProvisionedThroughputExceededException", "hot shard")
            return [
                throttle if record.partition_key == "a" else (await stream.inner.put([record]))[0]
                for record in records
            ]

        it.stream.always = throttles_a
        slow = it.emit("a")
        await anyio.sleep(5)
        quick = it.emit("b")
        await anyio.sleep(0.2)
        assert quick.done
        assert not slow.done


@simulated
async def test_backlog_grows_records():
    """Entries that waited for the stream come in few records of up to 1 MiB, not in many small ones."""
    async with pipeline() as it:
        it.stream.faults = [lost] * 4
        for i in range(4000):
            it.emit(details={"text": "x" * 1000, "i": i})
        await it.flush()
        good = [records for _, records in it.stream.calls[4:]]
        sizes = [len(record.data) + len(record.partition_key) for records in good for record in records]
        assert max(sizes) <= MAX_RECORD_BYTES
        assert max(sizes) > MAX_RECORD_BYTES - 2000
        assert len(sizes) == 5
        assert it.stream.numbers("s") == list(range(1, 4001))


@simulated
async def test_hurry_ends_the_linger():
    """Awaiting a receipt does not wait for the linger."""
    async with pipeline(linger=10.0) as it:
        await anyio.sleep(1)
        receipt = it.emit()
        position = await receipt
        assert anyio.current_time() < 1.1
        assert position.sequence
        assert receipt.position == position


@simulated
async def test_flush_waits_for_what_came_before_it_only():
    """A flush ends although entries keep coming, and not before what it was for is settled."""
    async with pipeline(seconds=0.3) as it:
        before = [it.emit(f"s{i}") for i in range(5)]
        async with anyio.create_task_group() as tasks:

            async def go_on():
                while True:
                    it.emit("busy")
                    await anyio.sleep(0.01)

            tasks.start_soon(go_on)
            with anyio.fail_after(2):
                await it.flush()
            assert all(receipt.done for receipt in before)
            assert it.emitter.delivery().pending > 0
            tasks.cancel_scope.cancel()


@simulated
async def test_flush_covers_each_session():
    """A flush waits for the slowest session's entries too."""
    async with pipeline() as it:
        it.stream.faults = [lost, lost, lost]
        receipts = [it.emit(f"s{i}") for i in range(3)]
        await it.flush()
        assert all(receipt.done for receipt in receipts)
        assert anyio.current_time() > 0.2


@simulated
async def test_stop_drains():
    """After `stop`, `run` returns once everything is on the stream, without lingering."""
    async with pipeline(linger=30.0) as it:
        receipts = [it.emit(f"s{i % 3}") for i in range(100)]
        it.sender.stop()
        await anyio.sleep(0.2)
        assert all(receipt.done for receipt in receipts)


@simulated
async def test_stop_tries_at_once():
    """However long a failure made the sender wait, a stop is followed by a try."""
    async with pipeline() as it:
        it.stream.always = lost
        receipt = it.emit()
        await anyio.sleep(100)
        it.stream.always = None
        it.sender.stop()
        await anyio.sleep(0.1)
        assert receipt.done


@simulated
async def test_not_configured_is_retried_and_told_seldom(caplog):
    """A stream that does not exist yet is waited for; the log says so about every 30 s."""
    async with pipeline() as it:
        it.stream.always = not_there
        receipt = it.emit()
        with caplog.at_level(logging.WARNING, "streamjournal.emit"):
            await anyio.sleep(300)
        told = [record for record in caplog.records if "streamjournal init" in record.message]
        assert 5 <= len(told) <= 10
        assert "1 entries wait" in told[0].message
        it.stream.always = None
        await anyio.sleep(15)
        assert receipt.done


@simulated
async def test_a_call_refused_as_a_whole_parks_nothing():
    """What the stream refuses without naming a record is the stream's trouble, and is waited out."""

    async def disabled(stream, records):
        raise StreamjournalError("the stream's key is disabled")

    async with pipeline() as it:
        it.stream.faults = [disabled] * 5
        receipts = [it.emit(f"s{i}") for i in range(3)]
        await it.flush()
        assert [receipt.error for receipt in receipts] == [None] * 3
        assert it.store.dead_letters == {}


@simulated
async def test_a_bug_in_an_adapter_ends_nothing():
    """An exception that nobody planned is logged and the call is tried again."""

    async def bug(stream, records):
        raise KeyError("ShardId")

    async with pipeline() as it:
        it.stream.faults = [bug, bug]
        it.emit()
        await it.flush()
        assert it.stream.numbers("s") == [1]


@simulated
async def test_refused_entry_is_parked():
    """The stream refuses one entry for good: it becomes a dead letter, the others go on in order."""
    async with pipeline() as it:
        it.stream.always = poisoned(b"POISON")
        receipts = [it.emit(details={"text": "POISON" if i == 37 else "fine"}) for i in range(100)]
        others = [it.emit("other") for _ in range(5)]
        await it.flush()
        assert it.stream.numbers("s") == [n for n in range(1, 101) if n != 38]
        assert all(receipt.position for receipt in others)
        (key,) = it.store.dead_letters
        letter = it.store.dead_letters[key]
        assert msgspec.json.decode(letter.data)["id"] == receipts[37].id
        with pytest.raises(EntryRefusedError, match="bad record") as caught:
            await receipts[37]
        assert caught.value.dead_letter == key
        assert it.emitter.delivery() == (104, 0, 1)
        assert it.emitter.buffered == 0


@simulated
async def test_many_refused_entries_are_parked():
    """Several of them, in a row and at the end: each is found."""
    bad = {0, 1, 50, 98, 99}
    async with pipeline() as it:
        it.stream.always = poisoned(b"POISON")
        for i in range(100):
            it.emit(details={"text": "POISON" if i in bad else "fine"})
        await it.flush()
        assert it.stream.numbers("s") == [i + 1 for i in range(100) if i not in bad]
        assert len(it.store.dead_letters) == len(bad)


class AwayStore(MemoryStore):
    """A store that does not answer the first times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def _maybe_fail(self) -> None:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("no answer")

    async def put_blob(self, session_id, entry_id, data):
        self._maybe_fail()
        return await super().put_blob(session_id, entry_id, data)

    async def put_dead_letters(self, letters):
        self._maybe_fail()
        return await super().put_dead_letters(letters)


@simulated
async def test_refused_entry_waits_for_the_store():
    """While the store is away, a refused entry keeps its place, and is parked later."""
    async with pipeline(store=AwayStore(4)) as it:
        it.stream.always = poisoned(b"POISON")
        it.emit(details={"text": "POISON"})
        it.emit()
        await it.flush()
        assert it.stream.numbers("s") == [2]
        assert len(it.store.dead_letters) == 1


@simulated
async def test_entry_over_the_record_limit():
    """Its details go to the store whole, and a pointer to them crosses the stream, in its place."""
    text = "é" * 1_200_000
    async with pipeline(store=AwayStore(3)) as it:
        it.emit(details={"i": 1})
        it.emit(details={"text": text}, tool_name="big", span_id="span")
        it.emit(details={"i": 3})
        await it.flush()
        assert it.stream.numbers("s") == [1, 2, 3]
        entry = it.stream.taken()["s"][1]
        assert entry["tool_name"] == "big"
        assert entry["span_id"] == "span"
        blob = it.store.blobs[entry["details"]["$blob"]]
        assert msgspec.json.decode(blob) == {"text": text}
        assert entry["details"]["bytes"] == len(blob)
        assert entry["details"]["sha256"] == hashlib.sha256(blob).hexdigest()
        assert it.emitter.buffered == 0


@simulated
async def test_entry_at_the_record_limit():
    """Entries just below, at and above the limit arrive alike: the limit is exact."""
    async with pipeline() as it:
        for size in range(MAX_RECORD_BYTES - 400, MAX_RECORD_BYTES + 100, 20):
            it.emit(details={"text": "x" * size})
        await it.flush()
        sizes = [
            len(record.data) + len(record.partition_key)
            for _, records in it.stream.calls
            for record in records
        ]
        assert max(sizes) <= MAX_RECORD_BYTES
        assert max(sizes) > MAX_RECORD_BYTES - 20
        assert len(it.stream.numbers("s")) == 25
        assert it.store.blobs


@simulated
async def test_session_id_of_many_bytes():
    """A partition key of 256 bytes counts in the record's size, too."""
    session_id = "é" * 128
    async with pipeline() as it:
        for i in range(3000):
            it.emit(session_id, details={"text": "x" * 1000, "i": i})
        await it.flush()
        for _, records in it.stream.calls:
            for record in records:
                assert len(record.data) + len(session_id.encode()) <= MAX_RECORD_BYTES
                assert split(record.data, session_id)[0].partition_key == session_id
        assert len(it.stream.numbers(session_id)) == 3000


@simulated
async def test_outbox_that_is_queued_again_while_in_a_lane():
    """An outbox that emit queued although a lane still had it is neither lost nor sent twice."""
    async with pipeline() as it:
        for i in range(200):
            it.emit()
            it.emitter.ready.append(it.emitter.outbox_of("s"))  # what a race with _let_go leaves
            await anyio.sleep(0.001 * (i % 97))
        await it.flush()
        await anyio.sleep(1)
        ids = [entry["id"] for entry in it.stream.taken()["s"]]
        assert len(ids) == len(set(ids)) == 200
        it.emitter.ready.append(it.emitter.outbox_of("s"))  # empty by now
        it.emitter._wake()
        await anyio.sleep(1)
        it.emit()
        await it.flush()
        assert it.stream.numbers("s") == list(range(1, 202))


@simulated
async def test_two_outboxes_of_a_session_wait_for_each_other():
    """After a new writer id, what was emitted before it goes first, though its sending fails."""
    async with pipeline() as it:
        it.stream.faults = [lost, lost, lost]
        for _ in range(3):
            it.emit()
        await anyio.sleep(0.1)
        it.emitter._sessions.retire_all()
        for _ in range(3):
            it.emit()
        await it.flush()
        writers = [entry["id"].partition("-")[0] for entry in it.stream.taken()["s"]]
        assert len(set(writers)) == 2
        assert writers == sorted(writers, key=writers.index)
        assert [entry["id"].partition("-")[2] for entry in it.stream.taken()["s"]] == ["1", "2", "3"] * 2


@simulated
async def test_spool_follows_the_stream(tmp_path):
    """What the stream has is acknowledged in the spool; a clean close leaves no spool behind."""
    async with pipeline(spool_folder=tmp_path) as it:
        it.stream.faults = [lost]
        for i in range(5000):
            it.emit(f"s{i % 10}", details={"text": "x" * 1000})
        assert len(list(tmp_path.glob("*/*.seg"))) == 6
        await it.flush()
        assert it.emitter.spool.close()
        assert list(tmp_path.iterdir()) == []
