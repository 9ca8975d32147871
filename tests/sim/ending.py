"""The end of a run: faults have stopped, everything has to drain, and then every promise is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from streamjournal.core.entry import decode_envelope
from streamjournal.core.position import SHARD_END
from streamjournal.read.verify import verify_journal
from tests.sim.checked import rank
from tests.sim.emitting import recover
from tests.sim.ledger import Name
from tests.sim.reading import read_once
from tests.sim.working import drain, stop_workers

if TYPE_CHECKING:
    from tests.sim.world import World

_DRAIN_SECONDS = 240.0  # backoffs grow to 30 s, and a lease's holder may have died just now


async def end(world: World) -> None:
    """Drain, stop, check."""
    await _until(world, lambda: "late effects" if world.network.late else "", 60)
    await _recover_spools(world)
    await _until(world, lambda: undrained(world), _DRAIN_SECONDS)
    await trio.sleep(2 * world.plan.settings.lease_seconds)  # whoever was cut off has found his place again
    world.over = True
    await stop_workers(world)
    await drain(world)
    await check(world)
    world.trace.note(f"ended: {sum(map(len, world.ledger.landed.values()))} entries")


async def _until(world: World, what: Callable[[], str], seconds: float) -> None:
    """Wait until nothing is left, in steps that are not those of the pipeline."""
    deadline = trio.current_time() + seconds
    while left := what():
        if trio.current_time() > deadline:
            world.trace.fail("drain", f"{seconds:.0f} s after the faults stopped: {left}")
        await trio.sleep(0.31)


async def _recover_spools(world: World) -> None:
    """Whatever dead emitters left gets onto the stream."""
    await recover(world, "last recover", 60)
    left = sorted(path.name for path in world.spools.iterdir() if not path.name.startswith("."))
    if left:
        world.trace.fail("drain", f"the spools {left} are left")
    for session, receipts in world.ledger.accepted.items():
        for receipt in receipts:
            name = Name(session, receipt.id or "")
            if name not in world.ledger.copies:
                world.trace.fail(
                    "kept", f"{name.id} of {session} was accepted, and is neither sent nor spooled"
                )
            if receipt.position is not None and not any(
                (put.shard, str(put.sequence)) == receipt.position[1:] for put in world.ledger.copies[name]
            ):
                world.trace.fail("kept", f"{name.id} of {session} was acknowledged where it is not")


def undrained(world: World) -> str:
    """What is not where it has to be yet; empty if everything is."""
    for shard in world.listed_shards():
        puts = world.ledger.puts[shard.id]
        for put in puts:
            if why := world.leases.not_durable(put):
                return why
        checkpoint = world.leases.checkpoint_of(shard.id)
        last = max((put.sequence for put in puts if not put.trimmed), default=-1)
        if shard.closed and checkpoint != SHARD_END:
            return f"{shard.id} is closed and at {checkpoint}"
        if rank(checkpoint) < last:
            return f"the checkpoint of {shard.id} is {checkpoint}, not {last}"
    return ""


async def check(world: World) -> None:
    """The journals, by what is in them; the readers, by what they give in the end."""
    ledger, trace = world.ledger, world.trace
    for session in world.plan.sessions:
        chain = world.journals.chains.get(session)
        have = set(chain.ids) if chain is not None else set()
        for entry_id in ledger.landed[session]:
            if entry_id not in have and not ledger.lost(Name(session, entry_id)):
                trace.fail("kept", f"{entry_id} of {session} is not in its journal")
        in_body = [decode_envelope(line).id for line in world.store.body(session).splitlines()]
        if in_body != (list(chain.ids) if chain is not None else []):
            trace.fail("once", f"{session}: its body is not what was committed")
        await _check_verify(world, session)
        if not await _complete_read(world, session):
            trace.fail("read", f"{session} cannot be read completely, in calm")
    for tailing in world.tails:
        host = world.host("tailer")
        await tailing.listen_to_end(world.services(host).access(host))


async def _check_verify(world: World, session: str) -> None:
    """`verify` finds a journal whole if nothing of it was ever lost, and not if numbers are missing."""
    chain = world.journals.chains.get(session)
    found = await verify_journal(world.store, session)
    if chain is None or found is None:
        if (chain is None) != (found is None):
            world.trace.fail("notice", f"{session}: verify and the store differ on whether it exists")
        return
    gaps = [writer for writer, held in chain.numbers.items() if len(held) < max(held)]
    lost = [name for name in world.ledger.trimmed | world.ledger.deleted if name.session == session]
    if found.whole and gaps:
        world.trace.fail("notice", f"{session}: verify says whole, and numbers of {gaps[0]} are missing")
    if not found.whole and not lost and not world.deletions[session]:
        world.trace.fail("notice", f"{session}: nothing was lost, and verify says {found.findings[0]}")
    world.trace.counts["verified whole" if found.whole else "verified damaged"] += 1


async def _complete_read(world: World, session: str) -> bool:
    host = world.host("reader")
    return await read_once(world, world.services(host).access(host), session)
