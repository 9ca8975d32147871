"""What emit does when the buffer is full: drop and tell, block, or raise."""

from __future__ import annotations

import threading
import time

import anyio
import pytest

from streamjournal.core.entry import split_id
from streamjournal.core.errors import BufferFullError, EntryDroppedError
from tests.emit.rigs import acknowledge_all, lines_of, make_emitter, pipeline, simulated
from tests.emit.test_sender import lost


def fill(emitter, session_id="full"):
    """Emit until the buffer takes no more; gives how many it took."""
    taken = 0
    while emitter.buffered < emitter._bound - 1000:
        emitter.emit("FILL", session_id=session_id, details={"text": "x" * 500})
        taken += 1
    return taken


BIG = {"text": "x" * 1000}


def test_drop_counts_and_tells(tmp_path):
    """Dropped entries take no number; the next that is accepted comes after a notice of how many."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000)
    fill(emitter)
    a = [emitter.emit("E", session_id="a", details=BIG) for _ in range(3)]
    b = [emitter.emit("E", session_id="b", details=BIG) for _ in range(5)]
    assert all(receipt.id is None and receipt.done for receipt in a + b)
    with pytest.raises(EntryDroppedError):
        a[0].result(0)
    assert emitter.delivery().dropped == 8
    acknowledge_all(emitter)
    first = emitter.emit("E", session_id="a", details=BIG)
    assert first.n == 2
    told, entry = lines_of(emitter.outbox_of("a"))
    assert told["event_type"] == "ENTRIES_DROPPED"
    assert told["source"] == "journal"
    assert told["level"] == "WARNING"
    assert told["details"]["count"] == 3
    assert told["details"]["since"].endswith("Z")
    assert (split_id(told["id"])[1], split_id(entry["id"])[1]) == (1, 2)
    emitter.tell_all_dropped()
    (told_b,) = lines_of(emitter.outbox_of("b"))
    assert told_b["details"]["count"] == 5
    assert told_b["session_id"] == "b"
    emitter.tell_all_dropped()
    assert len(emitter.outbox_of("b").items) == 1


def test_drop_of_many_threads_is_exact(tmp_path):
    """Every entry of every thread is either accepted or counted, and the notices add up."""
    emitter = make_emitter(tmp_path, buffer_bytes=30_000)

    def work(me):
        for _ in range(500):
            emitter.emit("E", session_id=f"s{me % 3}", details=BIG)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dropped = emitter.delivery().dropped
    assert dropped > 2000
    emitter.tell_all_dropped(even_if_full=True)
    lines = [line for i in range(3) for line in lines_of(emitter.outbox_of(f"s{i}"))]
    told = [line["details"]["count"] for line in lines if line["event_type"] == "ENTRIES_DROPPED"]
    assert sum(told) == dropped
    assert len(lines) - len(told) + dropped == 3000


def test_notice_waits_for_room(tmp_path):
    """A notice does not take the room that an entry lacks: the count goes on until both fit."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000)
    taken = fill(emitter)
    for _ in range(2):
        emitter.emit("E", session_id="s", details=BIG)
        emitter.tell_all_dropped()
    assert emitter.accepted == taken
    acknowledge_all(emitter)
    emitter.tell_all_dropped()
    assert [line["details"]["count"] for line in lines_of(emitter.outbox_of("s"))] == [2]


def test_close_tells_in_any_case(tmp_path):
    """The notices of what was dropped do not need room at close: without them a loss could not be seen."""
    emitter = make_emitter(tmp_path, buffer_bytes=5_000)
    fill(emitter)
    for _ in range(7):
        emitter.emit("E", session_id="s", details=BIG)
    emitter.close()
    assert [line["details"]["count"] for line in lines_of(emitter.outbox_of("s"))] == [7]


def test_a_new_writer_tells_of_the_old_ones_drops(tmp_path):
    """A count that is due survives the end of its writer id."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000)
    fill(emitter)
    emitter.emit("E", session_id="s", details=BIG)
    emitter._sessions.retire_all()
    acknowledge_all(emitter)
    emitter.emit("E", session_id="s")
    assert [line["event_type"] for line in lines_of(emitter.outbox_of("s"))] == ["ENTRIES_DROPPED", "E"]


def test_entry_larger_than_the_buffer(tmp_path):
    """It can never fit: it is dropped, and the ones after it are not."""
    emitter = make_emitter(tmp_path, buffer_bytes=5_000)
    assert emitter.emit("E", session_id="s", details={"text": "x" * 10_000}).id is None
    assert emitter.emit("E", session_id="s").n == 2  # after the notice


def test_raise(tmp_path):
    """The policy `raise` says how full the buffer is, takes no number and counts no drop."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000, overflow="raise")
    taken = fill(emitter)
    for _ in range(2):
        with pytest.raises(BufferFullError) as caught:
            emitter.emit("E", session_id="full", details=BIG)
        assert caught.value.buffered <= caught.value.bound == 20_000
    assert emitter.delivery() == (0, taken, 0)
    acknowledge_all(emitter)
    assert emitter.emit("E", session_id="full", details=BIG).n == taken + 1


def test_block_goes_on_when_there_is_room(tmp_path):
    """Blocked threads go on, all of them, once the sender has released bytes."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000, overflow="block", block_timeout=20.0)
    taken = fill(emitter)
    receipts = []
    threads = [
        threading.Thread(target=lambda: receipts.append(emitter.emit("E", session_id="s", details=BIG)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    assert receipts == []
    acknowledge_all(emitter)
    emitter.room.made()
    for thread in threads:
        thread.join(5)
    assert sorted(receipt.n for receipt in receipts) == [1, 2, 3, 4]
    assert emitter.accepted == taken + 4


def test_block_gives_up(tmp_path):
    """After `block_timeout` the entry is dropped and counted."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000, overflow="block", block_timeout=0.02)
    fill(emitter)
    began = time.monotonic()
    assert emitter.emit("E", session_id="s", details=BIG).id is None
    assert 0.015 < time.monotonic() - began < 1
    assert emitter.delivery().dropped == 1


def test_blocked_entry_with_half_the_buffer_free(tmp_path):
    """An entry that needs more room than there is waits without burning the CPU."""
    emitter = make_emitter(tmp_path, buffer_bytes=20_000, overflow="block", block_timeout=0.1)
    emitter.emit("E", session_id="s", details={"text": "x" * 5_000})
    began = time.thread_time()
    assert emitter.emit("E", session_id="s", details={"text": "x" * 16_000}).id is None
    assert time.thread_time() - began < 0.02


@simulated
async def test_the_sender_tells_by_itself(tmp_path):
    """When a stream that was away comes back, the notices are journaled without another entry."""
    async with pipeline(buffer_bytes=20_000) as it:
        it.stream.always = lost
        fill(it.emitter)
        for _ in range(11):
            it.emit("quiet", details=BIG)
        await anyio.sleep(20)
        it.stream.always = None
        await anyio.sleep(20)
        (told,) = it.stream.taken()["quiet"]
        assert told["event_type"] == "ENTRIES_DROPPED"
        assert told["details"]["count"] == 11
        assert it.emitter.buffered == 0
        assert it.emitter.delivery().dropped == 11
