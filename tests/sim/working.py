"""Workers: started, killed at any await, stopped, paused beyond their leases, and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from streamjournal.core.errors import StreamjournalError
from streamjournal.core.position import SHARD_END
from streamjournal.ingest.service import WorkerService
from streamjournal.ingest.worker import Worker

if TYPE_CHECKING:
    from tests.sim.world import World

_STOP_SECONDS = 10.0  # in which a worker has to end, when nothing strikes


class Working:
    """One worker process from its start to its end."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.host = world.host(name)
        self.worker: Worker | None = None
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    def _note(self, worker: Worker) -> None:
        self.worker = worker

    async def run(self, *, drain: bool = False) -> None:
        """To its end."""
        world = self.world
        world.workers.append(self)
        services = world.services(self.host)
        service = WorkerService(
            services.stream, services.store, services.leases, world.plan.settings, self.host.clock
        )
        try:
            with self.scope:
                await service.run(drain=drain, on_start=self._note)
        except* StreamjournalError as problems:
            world.trace.fail("crash", f"{self.host.name}: {problems.exceptions[0]!r}")
        finally:
            self.ended.set()
            world.workers.remove(self)
            world.hosts.remove(self.host)

    def kill(self) -> None:
        """As SIGKILL."""
        self.host.dead = True
        self.scope.cancel()

    async def stop(self) -> float:
        """As SIGTERM; gives the seconds that it took."""
        began = trio.current_time()
        assert self.worker is not None
        self.worker.stop()
        await self.ended.wait()
        return trio.current_time() - began


async def keep_working(world: World, number: int) -> None:
    """A worker process, started again whenever it ends; one that lives when faults stop goes on."""
    start = 0
    while True:
        start += 1
        working = Working(world, f"worker {number}.{start}")
        async with trio.open_nursery() as life:
            life.start_soon(_meet_fates, world, working)
            await working.run()
            life.cancel_scope.cancel()
        if world.over:
            return
        pause = world.rng.random()
        if not world.network.calm and world.rng.random() < 0.3 and "workers down" in world.plan.kinds:
            pause = world.plan.retention * (1 + world.rng.random())
            world.trace.strike("workers down", f"{working.host.name} for {pause:.1f}")
        await world.calm_or(pause)


async def _meet_fates(world: World, working: Working) -> None:
    while True:
        await world.calm_or(world.rng.random() * 2 * world.plan.life)
        fate = world.draw_fate("worker killed", "worker stopped", "worker paused")
        if world.network.calm:
            return
        if fate == "worker killed":
            world.trace.strike(fate, working.host.name)
            working.kill()
        elif fate == "worker stopped" and working.worker is not None:
            world.trace.strike(fate, working.host.name)
            working.worker.stop()
        elif fate == "worker paused":
            await world.pause(working.host, fate)


async def stop_workers(world: World) -> None:
    """Stop those that are left, in calm; each ends in time and lets its leases go."""
    names = set()
    for working in list(world.workers):
        assert working.worker is not None
        names.add(working.worker.name)
        took = await working.stop()
        if took > _STOP_SECONDS:
            world.trace.fail("drain", f"{working.host.name} took {took:.1f} s to stop")
    for row in world.leases.table():
        if row.owner in names and row.checkpoint != SHARD_END and world.stream.find(row.key) is not None:
            world.trace.fail("drain", f"{row.owner} has stopped, and did not let go: {row}")


async def drain(world: World) -> None:
    """`streamjournal worker --drain`; it has to end."""
    working = Working(world, "drain")
    with trio.move_on_after(60) as limit:
        await working.run(drain=True)
    if limit.cancelled_caught:
        world.trace.fail("drain", "a drain did not end within 60 s")
