"""Receipts: awaited on asyncio and trio, waited for in threads, by many at once."""

from __future__ import annotations

import gc
import threading

import anyio
import pytest

from streamjournal.core.errors import EntryRefusedError
from streamjournal.core.position import Position
from streamjournal.emit import receipt as module
from tests.emit.rigs import make_emitter

HERE = Position("0" * 16, "shardId-000000000000", "7")


@pytest.fixture
def receipt():
    """The receipt of an entry that nobody has sent."""
    return make_emitter().emit("E", session_id="s")


@pytest.fixture(autouse=True)
def no_waiter_is_left():
    """Whatever a test does, nothing is kept for receipts that nobody waits for any more."""
    yield
    assert module._waiters == {}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_await(receipt, backend):
    """Tasks that await a receipt go on when a thread settles it, and later ones at once."""

    async def main():
        got = []

        async def one():
            got.append(await receipt)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            thread = threading.Thread(target=receipt.settle, args=(HERE,))
            thread.start()
        thread.join()
        await one()
        return got

    assert anyio.run(main, backend=backend) == [HERE] * 6


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_await_cancelled(receipt, backend):
    """A cancelled wait leaves the entry pending, and nothing behind."""

    async def main():
        with anyio.move_on_after(0.005):
            await receipt
        assert not receipt.done
        assert module._waiters.get(id(receipt), []) == []
        receipt.settle(HERE)
        return await receipt

    assert anyio.run(main, backend=backend) == HERE


def test_await_in_a_loop_that_is_gone(receipt):
    """Settling an entry whose awaiting event loop was closed meanwhile does no harm."""

    async def main():
        with anyio.move_on_after(0):
            await receipt

    anyio.run(main)
    receipt.settle(HERE)
    assert receipt.result() == HERE


def test_result_in_threads(receipt):
    """Many threads wait; all get the position."""
    got = []
    threads = [threading.Thread(target=lambda: got.append(receipt.result(10))) for _ in range(20)]
    for thread in threads:
        thread.start()
    receipt.settle(HERE)
    for thread in threads:
        thread.join(10)
    assert got == [HERE] * 20


def test_first_waits_race(receipt):
    """Threads that begin to wait at the same moment are all told."""
    for _ in range(200):
        receipt = make_emitter().emit("E", session_id="s")
        barrier = threading.Barrier(5)
        got = []

        def wait(receipt=receipt, barrier=barrier, got=got):
            barrier.wait()
            got.append(receipt.result(10))

        def settle(receipt=receipt, barrier=barrier):
            barrier.wait()
            receipt.settle(HERE)

        threads = [threading.Thread(target=wait) for _ in range(4)] + [threading.Thread(target=settle)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert got == [HERE] * 4


def test_timeout_keeps_it_pending(receipt):
    """A wait that takes too long says so; the entry is still on its way."""
    with pytest.raises(TimeoutError, match="is pending"):
        receipt.result(0.001)
    assert not receipt.done
    module._waiters.pop(id(receipt), None)
    receipt.settle(HERE)
    assert receipt.result(0) == HERE


def test_timeouts_pile_up_nothing(receipt):
    """Polling with a short timeout leaves no waiter per try."""
    for _ in range(50):
        with pytest.raises(TimeoutError):
            receipt.result(0)
    assert not module._waiters.get(id(receipt))
    receipt.settle(HERE)
    gc.collect()


def test_refused(receipt):
    """What will never be on the stream raises why, in every way of asking."""
    receipt.settle(None, EntryRefusedError("bad", "dead-letters/x"))

    async def main():
        await receipt

    with pytest.raises(EntryRefusedError, match="bad"):
        receipt.result()
    with pytest.raises(EntryRefusedError, match="dead-letters/x"):
        anyio.run(main)
    assert receipt.position is None


def test_id(receipt):
    """A receipt names its entry."""
    assert receipt.id == f"{receipt.outbox.writer}-1"
    receipt.settle(HERE)
    assert receipt.id == f"{receipt.outbox.writer}-1"
