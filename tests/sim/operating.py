"""What happens around the pipeline: operators who reshard and delete, retention, clocks, outages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tests.sim.emitting import recover
from tests.sim.reading import Tailing

if TYPE_CHECKING:
    from tests.sim.world import World

_MAX_SHARDS = 5  # open ones


async def keep_operating(world: World) -> None:
    """Now and then one of the things that are switched on."""
    actions: dict[str, Callable[[World], object]] = {
        "split": split,
        "merge": merge,
        "parent expired": expire_parent,
        "trim": trim,
        "clock step": step_clock,
        "journal deleted": delete_journal,
        "lease row deleted": delete_lease_row,
    }
    possible = [action for kind, action in actions.items() if kind in world.plan.kinds]
    while possible:
        await trio.sleep(world.rng.random() * 2 * world.plan.every / max(1, len(possible) / 2))
        world.rng.choice(possible)(world)


async def keep_recovering(world: World) -> None:
    """Somebody runs `streamjournal recover` now and then."""
    for number in range(3):
        await trio.sleep(world.rng.random() * 2 * world.plan.every)
        world.trace.strike("recover")
        await recover(world, f"recover {number}", 10)


async def keep_away(world: World) -> None:
    """Services that do not answer for a while, longer than a lease lasts."""
    services = {"lease table away": "leases", "store away": "store", "stream away": "stream"}
    possible = [kind for kind in services if kind in world.plan.kinds]
    while possible:
        await trio.sleep(world.rng.random() * 4 * world.plan.every)
        kind = world.rng.choice(possible)
        seconds = world.rng.random() * 2 * world.plan.settings.lease_seconds
        world.trace.strike(kind, f"for {seconds:.1f}")
        world.network.away.add(services[kind])
        await trio.sleep(seconds)
        world.network.away.discard(services[kind])


def split(world: World) -> None:
    """Halve an open shard."""
    shards = world.open_shards()
    if len(shards) < _MAX_SHARDS:
        shard = world.rng.choice(shards)
        world.trace.strike("split", shard.id)
        world.stream.split(shard.id)
        world.closed_at[shard.id] = trio.current_time()


def merge(world: World) -> None:
    """Merge two neighbours."""
    shards = world.open_shards()
    if len(shards) > 1:
        at = world.rng.randrange(len(shards) - 1)
        world.trace.strike("merge", f"{shards[at].id} {shards[at + 1].id}")
        world.stream.merge(shards[at].id, shards[at + 1].id)
        world.closed_at |= dict.fromkeys((shards[at].id, shards[at + 1].id), trio.current_time())


def expire_parent(world: World) -> None:
    """Retention takes one parent of two, and what it descends from; the other one is listed still."""
    listed = {shard.id: shard for shard in world.listed_shards()}
    parents = [
        parent
        for shard in listed.values()
        if len(shard.parents) == 2 and all(parent in listed for parent in shard.parents)
        for parent in shard.parents
    ]
    if parents:
        gone = world.rng.choice(parents)
        older = [shard for shard in listed if shard in world.ledger.ancestors(gone)]
        world.trace.strike("parent expired", gone)
        for shard in (*older, gone):
            world.stream.forget(shard)
        world.stream.note_trimmed()


def trim(world: World) -> None:
    """Retention: what is too old goes, whether anybody has read it or not; in the end the shard, too."""
    count = world.stream.expire()
    old = trio.current_time() - world.plan.retention
    gone = [shard.id for shard in world.listed_shards() if world.closed_at.get(shard.id, old) < old]
    for shard_id in gone:
        world.stream.forget(shard_id)
    if count or gone:
        world.trace.strike("trim", f"{count} records, shards {gone}")
    world.stream.note_trimmed()


def step_clock(world: World) -> None:
    """Somebody sets a host's clock, forwards or backwards, by seconds or by an hour."""
    host = world.rng.choice(world.hosts)
    seconds = world.rng.choice((-1, 1)) * world.rng.choice((0.5, 5, 60, 3600)) * world.rng.random()
    world.trace.strike("clock step", f"{host.name} {seconds:+.1f}")
    host.step(seconds)


def delete_journal(world: World) -> None:
    """An operator deletes a journal."""
    sessions = [session for session in world.plan.sessions if world.store.body(session)]
    if sessions and world.rng.random() < 0.5:
        session = world.rng.choice(sessions)
        world.trace.strike("journal deleted", session)
        world.store.delete_journal(session)
        world.deletions[session] += 1


def delete_lease_row(world: World) -> None:
    """An operator deletes a row of the lease table."""
    rows = world.leases.table()
    if rows:
        row = world.rng.choice(rows)
        world.trace.strike("lease row deleted", f"{row.key} at {row.checkpoint}")
        world.leases.remove(row.key)


def tails_of(world: World) -> list[Tailing]:
    """A tail of each of the first two sessions."""
    return [Tailing(world, session) for session in world.plan.sessions[:2]]
