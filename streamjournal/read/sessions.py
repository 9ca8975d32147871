"""The list of sessions: the journals' summaries, and what is on the stream and not in them yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import anyio
import msgspec

from streamjournal.core.clock import Clock, parse_timestamp
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.read.merged import Access, Missing
from streamjournal.read.unflushed import Numbered, Scan, StreamState, start_in, stream_state
from streamjournal.store.history import read_history
from streamjournal.store.names import session_name
from streamjournal.store.port import Head, Listed, Store
from streamjournal.stream.port import Shard
from streamjournal.stream.records import parse_record

_PARALLEL = 16
_ABANDONED_AFTER = 3600.0  # seconds without an entry
_MAX_CACHED = 20_000


class Session(msgspec.Struct, frozen=True):
    """A session in the list.

    Args:
        entries, errors: all, and those at level ERROR.
        first, last: timestamps of the first and last entry, as written.
        status: `running`; `ended`; `failed` (SESSION_END with an error); `abandoned` (no entry for an
            hour, and no end).
        bytes: of its entries' lines.
    """

    session_id: str
    entries: int
    errors: int
    first: str
    last: str
    status: Literal["running", "ended", "failed", "abandoned"]
    bytes: int


class SessionList(NamedTuple):
    """Sessions, the one written to last first.

    Args:
        missing: what could not be looked at.
    """

    sessions: list[Session]
    missing: list[Missing]

    @property
    def complete(self) -> bool:
        """Whether everything could be looked at."""
        return not self.missing


class HeadCache:
    """Journals' heads by version, so that a list that is asked for again costs no requests for them."""

    def __init__(self) -> None:
        self._heads: OrderedDict[str, tuple[str, Head]] = OrderedDict()

    async def of(self, store: Store, listed: Listed) -> Head | None:
        """The head of a listed journal."""
        known = self._heads.get(listed.name)
        if known is not None and known[0] == listed.version:
            return known[1]
        head = await store.head_named(listed.name)
        if head is not None:
            self._heads[listed.name] = (listed.version, head)
            if len(self._heads) > _MAX_CACHED:
                self._heads.popitem(last=False)
        return head


async def list_sessions(access: Access, cache: HeadCache, *, limit: int | None = None) -> SessionList:
    """The sessions, at most `limit`.

    Raises:
        StoreUnavailableError, NotConfiguredError: the journals cannot be listed.
    """
    missing: list[Missing] = []
    state: StreamState | None = None
    try:
        state = await stream_state(access.stream, access.leases)
    except (UnavailableError, NotConfiguredError) as problem:
        missing.append(Missing("stream", str(problem)))
    listed = sorted([x async for x in access.store.journals()], key=lambda x: x.modified, reverse=True)
    found = await _unflushed(access, state, missing)
    # A session with news on the stream belongs to the newest, whatever its journal's age.
    page = listed if limit is None else listed[:limit]
    heads = {head.session_id: head for head in await _heads(access.store, cache, page)}
    beyond = {x.name: x for x in listed[len(page) :]}
    late = [beyond[name] for name in map(session_name, found.keys() - heads.keys()) if name in beyond]
    heads |= {head.session_id: head for head in await _heads(access.store, cache, late)}
    rows = []
    for session_id in heads.keys() | found.keys():
        head = heads.get(session_id)
        rows.append(await _session(access, session_id, head, found.get(session_id, []), state))
    rows.sort(key=lambda row: (row[0], row[1].session_id), reverse=True)
    return SessionList([session for _, session in rows][:limit], missing)


async def _heads(store: Store, cache: HeadCache, listed: Sequence[Listed]) -> list[Head]:
    found: list[Head] = []
    queue = iter(listed)

    async def work() -> None:
        for one in queue:
            head = await cache.of(store, one)
            if head is not None:
                found.append(head)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(_PARALLEL, len(listed))):
            tasks.start_soon(work)
    return found


async def _unflushed(
    access: Access, state: StreamState | None, missing: list[Missing]
) -> dict[str, list[tuple[Item, Shard]]]:
    """By session, what lies after the shards' checkpoints."""
    found: dict[str, list[tuple[Item, Shard]]] = {}
    if state is None:
        return found
    scan = Scan(access.feeds, state, access.clock)
    try:
        for shard in state.shards:
            place = start_in(state, shard, None)
            if place is None:
                continue
            async for record in scan.records(shard, place):
                for session_id, item in parse_record(record, state.digest).items:
                    found.setdefault(session_id, []).append((item, shard))
    except UnavailableError as problem:
        missing.append(Missing("stream", str(problem)))
    missing += [Missing("range", str(gap)) for gap in scan.trimmed]
    return found


async def _session(
    access: Access,
    session_id: str,
    head: Head | None,
    items: list[tuple[Item, Shard]],
    state: StreamState | None,
) -> tuple[float, Session]:
    """A row of the list, with the time of its last change in front."""
    summary, numbered, reached = await _journal_part(access, head)
    size = head.size if head is not None else 0
    entries, errors, first, last, status = (
        summary.entries,
        summary.errors,
        summary.first,
        summary.last,
        summary.status,
    )
    changed = head.modified if head is not None else 0.0
    for item, shard in items:
        if state is not None and _behind(state, shard, item.position, reached):
            continue
        if not numbered.is_new(item.writer, item.n):
            continue
        entries += 1
        errors += item.level == "ERROR"
        first = first or item.timestamp
        last = item.timestamp
        status = item.status or status
        size += len(item.line) + 1
        changed = access.clock.time()
    shown = "abandoned" if status == "running" and _is_quiet(last, changed, access.clock) else status
    return changed, Session(session_id, entries, errors, first, last, shown, size)


async def _journal_part(access: Access, head: Head | None) -> tuple[Summary, Numbered, Position | None]:
    if head is None:
        return Summary(), Numbered(None), None
    if head.meta is not None:
        return head.meta.summary, Numbered(head.meta), head.meta.position
    numbers, summary = await read_history(access.store, head.session_id)  # an older tool's journal
    numbered = Numbered(None)
    numbered.learn(numbers)
    return summary, numbered, None


def _behind(state: StreamState, shard: Shard, position: Position, reached: Position | None) -> bool:
    """Whether the journal has a record by its position."""
    start = start_in(state, shard, reached)
    if start is None:
        return True
    return start.isdigit() and int(position.sequence) <= int(start)


def _is_quiet(last: str, changed: float, clock: Clock) -> bool:
    moment = parse_timestamp(last) or datetime.fromtimestamp(changed, UTC)
    return clock.time() - moment.timestamp() > _ABANDONED_AFTER
