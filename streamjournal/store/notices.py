"""What the committer itself says in a journal: that entries are missing there, and which.

Every range of numbers that is missing when a later one is committed is told by exactly one notice,
right before that entry. Those at the start of a new journal are told together, by its first line. A
notice is part of the commit that counts the numbers, so a commit that is tried again repeats none. A
range may still be filled later (by a dead letter that is replayed): its notice stays, and `verify` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from streamjournal.core.clock import format_timestamp
from streamjournal.core.entry import ENTRIES_TRIMMED, JOURNAL_RESTARTED, notice
from streamjournal.core.item import Item
from streamjournal.core.numbers import Jump

_WHY = (
    "trimmed from the stream before a worker read them, kept as dead letters, "
    "or deleted with a journal or a part of it"
)


class Deletion(Enum):
    """When a journal was deleted, as far as its worker knows."""

    SEEN = "while its worker ran"
    FOUND = "while no worker wrote to it"


def with_notices(
    session_id: str,
    fresh: list[Item],
    jumps: Iterable[Jump],
    now: int,
    *,
    new: bool,
    deleted: Deletion | None,
) -> list[Item]:
    """The items to be committed, with the notices that are due before them.

    Args:
        fresh: in order; not empty.
        jumps: where the writers' numbers jump among them.
        now: nanoseconds since 1970.
        new: this begins a journal.
        deleted: there was an earlier journal of the session.
    """
    missing = {jump.writer: jump.last for jump in jumps if new and jump.first == 1}
    after = {(jump.writer, jump.last + 1): jump for jump in jumps if not (new and jump.first == 1)}
    if not (missing or after or deleted):
        return fresh
    told: list[Item] = []
    if missing or deleted:
        told.append(_restarted(session_id, fresh[0], missing, now, deleted=deleted))
    for item in fresh:
        jump = after.get((item.writer, item.n)) if item.writer is not None else None
        if jump is not None:
            told.append(_trimmed(session_id, item, jump, now))
        told.append(item)
    return told


def _restarted(
    session_id: str, before: Item, missing: dict[str, int], now: int, *, deleted: Deletion | None
) -> Item:
    if deleted:
        reason = f"the journal was deleted {deleted.value}; it begins again here"
    else:
        reason = f"there is no journal, and {_late(missing)}: those before were {_WHY}"
    details = {"reason": reason, "missing": missing, "position": before.position.encode()}
    return _item(session_id, before, "restarted", JOURNAL_RESTARTED, now, details)


def _late(missing: dict[str, int]) -> str:
    writer, last = next(iter(missing.items()))
    if len(missing) > 1:
        return f"the first entries of {len(missing)} writers to come are not their number 1"
    return f"the first entry of writer {writer} to come is number {last + 1}"


def _trimmed(session_id: str, before: Item, jump: Jump, now: int) -> Item:
    writer, first, last = jump
    if first > 1:
        reason = f"after number {first - 1} of writer {writer} came number {last + 1}: those between"
    else:
        reason = f"the first entry of writer {writer} to come is number {last + 1}: those before"
    details = {
        "writer": writer,
        "first": first,
        "last": last,
        "entries": last - first + 1,
        "reason": f"{reason} were {_WHY}",
        "position": before.position.encode(),
    }
    return _item(session_id, before, f"trimmed:{writer}-{last + 1}", ENTRIES_TRIMMED, now, details)


def _item(
    session_id: str, before: Item, what: str, event_type: str, now: int, details: dict[str, Any]
) -> Item:
    """A notice before an item, with an id by that item's place: the same whenever it is tried again."""
    where = before.position
    line = notice(f"{where.shard}:{where.sequence}:{what}", session_id, event_type, now, details)
    return Item(line, where, None, 0, format_timestamp(now), "WARNING", None)
