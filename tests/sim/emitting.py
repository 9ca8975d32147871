"""Processes that emit: an emitter with a real spool, its sender, and the recovery of others' spools, as
`emit.background` puts them together, on tasks in place of its thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from streamjournal.emit.emitter import Emitter
from streamjournal.emit.recovery import recover_folder
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import Destination, Spool
from streamjournal.emit.wakeup import Wakeup
from streamjournal.stream.port import PutRecord
from tests.sim.virtual import EPOCH_NS

if TYPE_CHECKING:
    from tests.sim.world import World

DESTINATION = Destination("memory", "memory")
_CLOSE_SECONDS = 5.0


class Emitting:
    """One process from its start to its end: closed, or killed."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._host = world.host(name)
        services = world.services(self._host)
        self._stream, self._store = services.stream, services.store
        wakeup = Wakeup()
        self._hurry: Callable[[], None] = lambda: None  # until there is a sender
        settings, clock = world.plan.settings, self._host.clock
        self._emitter = Emitter(
            settings,
            clock,
            lambda: Spool(world.spools, DESTINATION, clock),
            wakeup.set,
            self._hurry_up,
        )
        self._sender = Sender(self._emitter, self._stream, self._store, settings, clock, wakeup)
        self._hurry = self._sender.hurry

    def _hurry_up(self) -> None:
        self._hurry()

    async def live(self) -> None:
        """Emit, and end in one way or the other."""
        world, sender = self._world, self._sender
        fate = world.draw_fate("emitter killed", "emitter paused")
        async with trio.open_nursery() as life:
            life.start_soon(self._meet, fate, life.cancel_scope)
            async with trio.open_nursery() as tasks:
                tasks.start_soon(sender.run)
                tasks.start_soon(self._recover)
                await self._emit()
                await self._close(tasks.cancel_scope)
                tasks.cancel_scope.cancel()
            if not self._host.dead:
                self._emitter.leave_spool()
            life.cancel_scope.cancel()
        if self._host.dead:
            crash(self._emitter.spool)
        world.hosts.remove(self._host)

    async def _meet(self, fate: str, scope: trio.CancelScope) -> None:
        world = self._world
        if fate == "emitter killed":
            await trio.sleep(world.rng.random() * 1.5 * world.plan.entries * world.plan.pause / 2)
            self._host.dead = True
            world.trace.strike(fate, self._host.name)
            scope.cancel()
        elif fate == "emitter paused":
            await trio.sleep(world.rng.random() * world.plan.entries * world.plan.pause / 2)
            await world.pause(self._host, fate)

    async def _recover(self) -> None:
        order_spools(self._world)
        found = await recover_folder(self._sender, self._world.spools, DESTINATION)
        if found.spools:
            self._world.trace.strike("spool recovered", f"{self._host.name} {found.spools} {found.entries}")

    async def _emit(self) -> None:
        world, rng = self._world, self._world.rng
        for number in range(world.plan.entries):
            await self._host.gate()
            session = rng.choice(world.plan.sessions)
            kind = rng.choice(("SESSION_START", "SESSION_END", *["TOOL_START"] * 8))
            level = rng.choice(("INFO", "INFO", "ERROR"))
            receipt = self._emitter.emit(kind, session_id=session, level=level, details={"n": number})
            if receipt.n:
                world.ledger.accepted[session].append(receipt)
                world.trace.counts["entries"] += 1
                world.trace.note(f"{self._host.name} accepted {session} {receipt.id}")
            if rng.random() < 0.6:
                await trio.sleep(rng.random() * world.plan.pause)

    async def _close(self, sending: trio.CancelScope) -> None:
        """As `BackgroundSender.close`: what is not acknowledged in time stays in the spool."""
        self._emitter.close()
        self._sender.stop()
        with trio.move_on_after(_CLOSE_SECONDS):
            while self._emitter.delivery().pending:  # noqa: ASYNC110 - the sender is a task of this nursery
                await trio.sleep(0.05)
        self._world.trace.note(f"{self._host.name} closed {self._emitter.delivery()}")
        sending.cancel()


def crash(spool: Spool | None) -> None:
    """What the kernel does when a process is killed: close its descriptors and unmap its pages."""
    if spool is None or spool._path is None:
        return
    for segment in (*spool._segments, *spool._spares):
        segment.map.close()
    os.close(spool._lock_fd)


def order_spools(world: World) -> None:
    """Give the spools' folders virtual times: the real ones are not the seed's."""
    for path in sorted(world.spools.iterdir()):
        order = world.spool_order.setdefault(path.name, len(world.spool_order))
        os.utime(path, ns=(EPOCH_NS + order, EPOCH_NS + order))


async def recover(world: World, name: str, seconds: float) -> None:
    """`streamjournal recover`, as a process of its own."""
    host = world.host(name)
    services = world.services(host)
    sender = Sender(None, services.stream, services.store, world.plan.settings, host.clock, Wakeup())
    order_spools(world)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(sender.run)
        found = await recover_folder(sender, world.spools, DESTINATION, timeout=seconds)
        if found.spools:
            world.trace.strike("spool recovered", f"{name} {found.spools} {found.entries}")
        tasks.cancel_scope.cancel()
    world.hosts.remove(host)


async def put_plain(world: World) -> None:
    """Another producer: plain JSON without ids of ours, sent once, heard of or not; now and then, no JSON."""
    host = world.host("producer")
    stream = world.services(host).stream
    number = 0
    while True:
        await trio.sleep(world.rng.random() * 2)
        kinds = [kind for kind in ("plain record", "poison") if kind in world.plan.kinds]
        if not kinds:
            return
        kind = world.rng.choice(kinds)
        session = world.rng.choice(world.plan.sessions)
        number += 1
        data = b'{"event_type":"PLAIN","details":{"n":%d}}' % number if kind == "plain record" else b"\xff{"
        world.trace.strike(kind, session)
        await world.try_(stream.put([PutRecord(session, data)]))
