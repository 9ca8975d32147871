"""How far the workers are behind, shard by shard, and whether the lease table is theirs alone.

A shard's lag is the age of the oldest record that is not durable yet. It is measured against the
stream's retention, because a record that gets as old as that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from streamjournal.admin.doctor.check import Check, Checks, failed, ok, skipped, warning
from streamjournal.admin.waiting import Waiting, find_waiting
from streamjournal.core.clock import Clock
from streamjournal.core.position import TRIM_HORIZON, StreamIdentity
from streamjournal.leases.port import Lease, Leases
from streamjournal.stream.port import Shard, Stream

_CONCERN: Final = 0.25  # of the retention
_ALARM: Final = 0.5
_KEEP_UP: Final = "see the workers' logs, start more of them; `init --retention-hours` gives them time"
_START: Final = "start a worker: `streamjournal worker`"


class _Known:
    """What all shards share."""

    def __init__(self, identity: StreamIdentity, retention: float, *, embedded: bool) -> None:
        self.stream = identity.named
        self.retention = retention
        self.embedded = embedded


async def check_lag(
    stream: Stream, leases: Leases, clock: Clock, seconds: float, *, embedded: bool
) -> list[Check]:
    """The lease rows, and one line for each listed shard.

    Args:
        embedded: the stream deletes nothing before it is in a journal, so lag alone loses nothing.
    """
    checks = Checks("the stream", seconds)
    known: list[_Known] = []
    shards: list[Shard] = []
    rows: list[Lease] | None = None  # not read

    async def list_shards() -> Check:
        identity = await stream.identity()
        known.append(_Known(identity, await stream.retention(), embedded=embedded))
        shards.extend(await stream.shards())
        return ok("shards", f"{len(shards)} listed", stream=identity.arn, created=identity.created)

    async def list_leases() -> Check:
        nonlocal rows
        rows = list(await leases.rows())
        return _judge_rows(rows, known[0].stream, shards)

    if not await checks.run("shards", list_shards):
        return checks.done
    await checks.run("leases", list_leases)
    if rows is None:  # without its checkpoint, a shard would seem to wait from its oldest record on
        checks.add(skipped("lag", "the lease table's rows could not be read"))
    else:
        own = {row.key: row for row in rows if row.stream == known[0].stream}
        places = {x.id: own[x.id].checkpoint if x.id in own else TRIM_HORIZON for x in shards}
        waiting = await find_waiting(stream, places, clock, seconds=0.8 * seconds)
        checks.done += [_judge(x.id, own.get(x.id), waiting.get(x.id), known[0]) for x in shards]
    return checks.done


def _judge_rows(rows: Sequence[Lease], stream: str, shards: Sequence[Shard]) -> Check:
    """Rows of another stream count as absent; the workers do not touch them, and a person should know."""
    others = sorted({row.stream for row in rows if row.stream != stream})
    owners = sorted({row.holder for row in rows if row.stream == stream and row.holder is not None})
    ours = sum(row.stream == stream for row in rows)
    found = f"{ours} of {len(shards)} shards have one; held by {', '.join(owners) or 'nobody'}"
    facts = {"rows": len(rows), "owners": owners, "other_streams": others}
    if others:
        found += f"; {len(rows) - ours} rows are of another stream: {', '.join(others)}"
        remedy = (
            "if that stream is no more, workers take the shards over; if it is alive, give each its own "
            "STREAMJOURNAL_LEASE_TABLE"
        )
        return warning("leases", found, remedy, **facts)
    return ok("leases", found, **facts)


def _judge(shard_id: str, row: Lease | None, waiting: Waiting | None, known: _Known) -> Check:
    name = f"lag {shard_id}"
    checkpoint = row.checkpoint if row is not None else None
    owner = row.holder if row is not None else None
    if waiting is None:
        return ok(name, "closed, and everything in it is durable", checkpoint=checkpoint, owner=owner)
    if waiting.trimmed:
        found = f"records after its checkpoint {checkpoint} are older than the retention, and gone"
        remedy = "start a worker; it goes on with what is left, and journals say what is missing"
        return failed(name, found, remedy, checkpoint=checkpoint, owner=owner)
    if waiting.lag_ms is None:
        remedy = "see what the checks of the stream above say"
        return failed(
            name, waiting.problem or "it cannot be read", remedy, checkpoint=checkpoint, owner=owner
        )
    behind_ms = waiting.lag_ms
    share = behind_ms / 1000 / known.retention
    facts = {"checkpoint": checkpoint, "owner": owner, "behind_ms": behind_ms, "share": round(share, 4)}
    held = f"held by {owner}" if owner is not None else "held by nobody"
    if not behind_ms:
        return ok(name, f"nothing waits, {held}", **facts)
    found = f"{_duration(behind_ms)} behind, {share:.0%} of the retention, {held}"
    remedy = _KEEP_UP if owner is not None else _START
    if share >= _ALARM and not known.embedded:
        return failed(name, found, remedy, **facts)
    if share >= _CONCERN or owner is None:
        return warning(name, found, remedy, **facts)
    return ok(name, found, **facts)


def _duration(ms: int) -> str:
    if ms < 10_000:
        return f"{ms:,} ms"
    if ms < 600_000:
        return f"{ms / 1000:,.0f} s"
    return f"{ms / 3_600_000:,.1f} h" if ms >= 7_200_000 else f"{ms / 60_000:,.0f} min"
