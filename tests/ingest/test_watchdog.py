"""The watchdog over a real pipeline in virtual time: what wedges it is said, and turns readiness off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import structlog
import trio

from streamjournal.core.errors import StoreUnavailableError, StreamUnavailableError
from streamjournal.core.settings import Settings
from streamjournal.ingest.stats import ShardStats, Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.ingest.watchdog import Watchdog, judge, retention_share
from streamjournal.stream.memory import MemoryStream
from tests.sim.faults import Fault
from tests.sim.rig import AWS_LIKE, Rig, Running
from tests.sim.virtual import until, virtual_clock

pytestmark = pytest.mark.anyio

SHARD = "shardId-000000000000"


class Watched:
    """A worker with its watchdog, and what they said."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.said: list[dict[str, Any]] = []
        self.worker = Running(rig)
        self.dog: Watchdog | None = None

    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start both; returns once the shard is held."""
        structlog.configure(processors=[self._keep])
        tasks.start_soon(self.worker.run)
        await until(lambda: self.rig.services and self.rig.services[-1].stats.held)
        service = self.rig.services[-1]
        self.dog = Watchdog(service.stats, service.trouble, self.rig.stream, self.rig.clock)
        self.dog.probed = True
        tasks.start_soon(self.dog.run, name="watchdog")
        await trio.sleep(1)

    def _keep(self, _: Any, level: str, fields: dict[str, Any]) -> str:
        self.said.append({"level": level, **fields})
        raise structlog.DropEvent

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was said under a name."""
        return [one for one in self.said if one["event"] == name]

    @property
    def ready(self) -> bool:
        """As /readyz has it."""
        assert self.dog is not None
        return not self.dog.reasons()


@pytest.fixture(autouse=True)
def logs_as_before():
    """The configuration of structlog is the process's."""
    yield
    structlog.reset_defaults()


class Hang:
    """Stands before a method, and lets no call return until `go_on`."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self.method = method
        self.on = False
        self.released = anyio.Event()

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.on:
            await self.released.wait()
        return await self.method(*arguments, **options)

    def go_on(self) -> None:
        """Answer again, late calls too."""
        self.on = False
        self.released.set()


def hang_store(rig: Rig) -> Hang:
    """A store whose writes never return."""
    hang = rig.faulty_store.append = Hang(rig.faulty_store.append)
    return hang


def hang_reader(rig: Rig) -> Hang:
    """A stream whose reads never return."""
    opened = rig.faulty_stream.reader
    hang = Hang(lambda reader, **options: reader.next(**options))

    class Reader:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def next(self, **options: Any) -> Any:
            return await hang(self.inner, **options)

        async def aclose(self) -> None:
            await self.inner.aclose()

    rig.faulty_stream.reader = lambda *arguments: Reader(opened(*arguments))
    return hang


def hang_checkpoint(rig: Rig) -> Hang:
    """A lease table whose writes never return."""
    hang = rig.faulty_leases.update = Hang(rig.faulty_leases.update)
    return hang


@pytest.mark.parametrize("hang_in", [hang_store, hang_reader, hang_checkpoint])
async def test_a_call_that_never_returns(hang_in: Callable[[Rig], Hang]) -> None:
    """An error after some 30 s, once; readiness is off until the shard moves again, which is said too."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        hang = hang_in(rig)
        watched = Watched(rig)
        await watched.start(tasks)
        await rig.put("s", 1)
        await until(lambda: rig.numbers("s") == [1])
        assert watched.ready
        hang.on = True
        await rig.put("s", 2)
        await trio.sleep(25)
        assert watched.ready
        await trio.sleep(20)
        assert not watched.ready
        assert watched.dog is not None
        assert watched.dog.standing_still == {SHARD}
        (said,) = watched.events("shards_stand_still")
        assert (said["level"], said["shards"]) == ("error", [SHARD])
        hang.go_on()
        await until(lambda: watched.ready)
        assert watched.events("shards_move_again")[0]["shards"] == [SHARD]
        await until(lambda: rig.numbers("s") == [1, 2])
        assert len(watched.events("shards_stand_still")) == 1
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_a_store_that_fails_all_the_time() -> None:
    """Reading goes on, yet what is due is not written: that is standing still, and lasting trouble."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        rig.faults.away.add("store")
        await rig.put("s", 1)
        await trio.sleep(40)
        assert watched.dog is not None
        still, failing = watched.dog.reasons()
        assert still.startswith(f"{SHARD} stands still: entries that are due have not been written for ")
        assert failing.startswith(f"store for {SHARD} fails: ")
        assert rig.services[-1].stats.flush_failures > 1
        rig.faults.away.clear()
        await until(lambda: watched.ready)
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_reminders_are_few() -> None:
    """An hour of standing still is a dozen lines, not one for each look."""
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        hang = hang_reader(rig)
        watched = Watched(rig)
        await watched.start(tasks)
        hang.on = True
        await trio.sleep(3600)
        assert 11 <= len(watched.events("shards_stand_still")) <= 13
        tasks.cancel_scope.cancel()


async def test_idle_and_waiting_for_the_flush_interval_are_no_trouble() -> None:
    """Nothing to do for an hour, and entries that wait for minutes because that is the setting."""
    rig = Rig(settings=Settings(stream="memory", bucket="memory", flush_interval=240.0))
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        for n in range(1, 30):
            await rig.put("s", n)
            await trio.sleep(120)
        assert [one for one in watched.said if one["level"] in ("error", "warning")] == []
        assert watched.ready
        assert len(rig.numbers("s")) > 20
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_a_long_backlog_that_moves_is_no_standing_still() -> None:
    """Flushes of minutes in which one session after the other is written are work."""
    rig = Rig(settings=AWS_LIKE, latency=3.0)
    for n in range(1, 4):
        for session in range(200):
            await rig.put(f"s{session}", n)
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        await until(lambda: all(rig.numbers(f"s{n}") == [1, 2, 3] for n in range(200)))
        assert watched.events("shards_stand_still") == []
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_lag_by_the_retention() -> None:
    """Beyond a quarter a warning, beyond half an error and not ready; each once, and its end."""
    rig = Rig(settings=AWS_LIKE)
    rig.stream._retention_ms = 1000_000
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        assert rig.services[-1].stats.retention_seconds == 1000
        rig.faults.away.add("store")
        await rig.put("s", 1)
        await trio.sleep(240)
        assert watched.events("lag_beyond_quarter_of_retention") == []
        await trio.sleep(20)
        (said,) = watched.events("lag_beyond_quarter_of_retention")
        assert (said["level"], said["shards"]) == ("warning", [SHARD])
        await trio.sleep(200)
        assert watched.events("lag_beyond_half_of_retention") == []
        await trio.sleep(50)
        (said,) = watched.events("lag_beyond_half_of_retention")
        assert said["level"] == "error"
        assert watched.dog is not None
        assert any(f"{SHARD} is late" in reason for reason in watched.dog.reasons())
        rig.faults.away.clear()
        await until(lambda: watched.ready)
        assert len(watched.events("lag_is_below_half_again")) == 1
        assert len(watched.events("lag_is_normal_again")) == 1
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_a_retention_that_is_not_told_is_asked_for_again() -> None:
    """And a stream that never answers that question does not stop the looking."""
    asked: list[float] = []

    class Shy(MemoryStream):
        async def retention(self) -> float:
            asked.append(trio.current_time())
            if len(asked) == 1:
                raise StreamUnavailableError("away")
            if len(asked) == 3:
                await trio.sleep_forever()
            return await super().retention()

    clock = virtual_clock()
    dog = Watchdog(Stats(), Trouble(clock), Shy(), clock)
    with trio.move_on_after(3600):
        await dog.run()
    assert asked == [0, 30, 630]
    assert dog.stats.retention_seconds == 86_400
    assert dog.deaf is None


async def test_leases_are_counted_as_they_come_and_go() -> None:
    """Taken, released at the end; lost to a thief; and the shard's numbers go with it."""
    rig = Rig(shards=2)
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        stats = rig.services[-1].stats
        await until(lambda: len(stats.held) == 2)
        row = (await rig.leases.rows())[0]
        await rig.leases.update(row, row.taken_by("thief"))
        await until(lambda: stats.lease_changes["lost"] == 1)
        assert set(stats.held) == {SHARD.replace("000000000000", "000000000001")}
        await until(lambda: len(stats.held) == 2)  # the thief died
        await watched.worker.stop()
        assert stats.lease_changes == {"taken": 3, "lost": 1, "released": 2, "asked_for": 0}
        assert not stats.held
        tasks.cancel_scope.cancel()


async def test_a_second_worker_asks_and_is_given() -> None:
    """The first one's leases are released, not lost, and neither has a shard that stands still."""
    rig = Rig(shards=4)
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        await until(lambda: len(rig.services[0].stats.held) == 4)
        second = Running(rig)
        tasks.start_soon(second.run)
        await until(lambda: len(rig.services) == 2 and len(rig.services[1].stats.held) == 2)
        await trio.sleep(60)
        assert rig.services[0].stats.lease_changes == {"taken": 4, "lost": 0, "released": 2, "asked_for": 0}
        assert rig.services[1].stats.lease_changes["asked_for"] == 2
        assert sorted(map(len, (service.stats.held for service in rig.services))) == [2, 2]
        assert watched.events("shards_stand_still") == []
        await second.stop()
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_a_process_that_was_stopped_is_not_judged_by_that_time() -> None:
    """After SIGCONT its shards have had no chance to move: a warning about the process, and no alarm."""
    now = [0.0]
    clock = virtual_clock()
    clock = type(clock)(time_ns=clock.time_ns, monotonic=lambda: now[0], rng=clock.rng)
    stats = Stats()
    stats.lease_taken(SHARD, 0.0)
    dog = Watchdog(stats, Trouble(clock), MemoryStream(), clock)
    now[0] = 100.0
    assert dog.deaf == 100.0
    assert any("event loop" in reason for reason in dog.reasons())
    dog.look()
    assert dog.deaf is None
    assert not dog.standing_still
    stats.held[SHARD].read(101.0, 0, found=False)
    now[0] = 101.0
    dog.look()
    assert not dog.standing_still


async def test_a_burst_over_the_retention_does_not_flicker() -> None:
    """Around a bound, the state stays until it is clearly below."""
    clock = virtual_clock()
    stats = Stats(retention_seconds=100.0)
    stats.lease_taken(SHARD, clock.monotonic())
    dog = Watchdog(stats, Trouble(clock), MemoryStream(), clock)
    seen = []
    for behind_s in (49, 51, 49, 51, 46, 44, 49):
        stats.held[SHARD].read(clock.monotonic(), behind_s * 1000, found=True)
        dog.look()
        seen.append(any("is late" in reason for reason in dog.reasons()))
    assert seen == [False, True, True, True, True, False, False]


async def test_judging_is_plain_arithmetic() -> None:
    """When exactly a shard stands still, and what its lag is, from its numbers alone."""
    shard = ShardStats(taken_at=0.0, read_at=100.0, written_at=100.0)
    stats = Stats(held={SHARD: shard}, retention_seconds=1000.0)
    assert judge(stats, 129.9, 0).still == {}
    assert judge(stats, 130.0, 0).still == {SHARD: "nothing has been read or written for 30 s"}
    shard.read_at = 129.0
    shard.due_since = 100.0
    assert "due" in judge(stats, 130.0, 0).still[SHARD]
    shard.written_at = 120.0  # one session after the other
    assert judge(stats, 130.0, 0).still == {}
    shard.due_since = None
    shard.read(130.0, 5000, found=False)  # nothing found, and still 5 s behind: it has not moved
    assert shard.read_at == 129.0
    shard.read(131.0, 4000, found=False)  # nearer
    assert shard.read_at == 131.0
    assert (shard.lag_ms(136.0), shard.lag_ms(141.0)) == (4000, 14_000)
    shard.oldest_ms = 1_000_000
    assert shard.unwritten_ms(1_300_000) == 300_000
    assert shard.unwritten_ms(900_000) == 0  # a clock that went back
    assert retention_share(stats, shard, 131.0, 1_300_000) == 0.3
    assert judge(stats, 131.0, 1_300_000).late == {SHARD: 0.3}


async def test_dead_letters_are_one_line_for_many() -> None:
    """A producer that sends no entries does not fill the log, one line for each."""
    rig = Rig()
    for _ in range(50):
        await rig.put_data("s", b"\xff")
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        await until(lambda: len(rig.store.dead_letters) == 50)
        await trio.sleep(1)
        said = watched.events("dead_letters")
        assert sum(one["count"] for one in said) == 50
        assert len(said) <= 2
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_failed_reads_stand_still_too() -> None:
    """A stream that is away for half a minute."""
    rig = Rig(shards=3)
    async with anyio.create_task_group() as tasks:
        watched = Watched(rig)
        await watched.start(tasks)
        await until(lambda: len(rig.services[-1].stats.held) == 3)
        rig.faults.away.add("stream")
        await trio.sleep(60)
        said = watched.events("shards_stand_still")
        assert len(said) == 1  # one line for all of them
        assert len(said[0]["shards"]) == 3
        rig.faults.away.clear()
        await until(lambda: watched.ready)
        await watched.worker.stop()
        tasks.cancel_scope.cancel()


async def test_flushes_are_timed() -> None:
    """Each write of a session counts once, by how long it took."""
    rig = Rig()
    for session in ("a", "b", "c"):
        await rig.put(session, 1)
    rig.faults.script["store.append"] += [Fault(StoreUnavailableError("x"))]
    await rig.drain()
    flushes = rig.services[-1].stats.flushes
    assert sum(flushes.counts) == 3
    assert flushes.total >= 0
