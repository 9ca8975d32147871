"""The list of sessions: the journals' summaries, and what is on the stream and not in them yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import anyio
import msgspec

from streamjournal.core.clock import Clock, parse_timestamp
from streamjournal.core.errors import NotConfiguredError, StreamjournalError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.read.unflushed import Numbered, Scan, StreamState, start_in, stream_state
from streamjournal.read.words import Access, Missing
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


class _Known(NamedTuple):
    """A journal's head, and what its lines say where it has no metadata.

    Args:
        numbers: None if the metadata tells.
    """

    head: Head
    summary: Summary
    numbers: WriterNumbers | None

    def numbered(self) -> Numbered:
        """Tells which numbers the journal has."""
        numbered = Numbered(self.head)
        if self.numbers is not None:
            numbered.learn(self.numbers)
        return numbered


class HeadCache:
    """Journals' heads by version, so that a list that is asked for again costs no requests for them."""

    def __init__(self) -> None:
        self._heads: OrderedDict[str, tuple[str, _Known]] = OrderedDict()

    async def of(self, store: Store, listed: Listed) -> _Known | None:
        """The head of a listed journal. An older tool's has no summary: its lines are counted, once."""
        known = self._heads.get(listed.name)
        if known is not None and known[0] == listed.version:
            self._heads.move_to_end(listed.name)
            return known[1]
        head = await store.head_named(listed.name)
        if head is None:
            return None
        if head.meta is None:
            numbers, summary = await read_history(store, head.session_id)
            found = _Known(head, summary, numbers)
        else:
            found = _Known(head, head.meta.summary, None)
        self._heads[listed.name] = (listed.version, found)
        if len(self._heads) > _MAX_CACHED:
            self._heads.popitem(last=False)
        return found


class _Unflushed(NamedTuple):
    """An entry on the stream, without its line: there may be a day's worth of them.

    Args:
        item: its `line` is empty.
        size: bytes of the line.
        arrival_ms: when the stream took it, milliseconds since 1970.
    """

    item: Item
    shard: Shard
    size: int
    arrival_ms: int


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
    heads = await _heads(access.store, cache, page, missing)
    beyond = {x.name: x for x in listed[len(page) :]}
    late = [beyond[name] for name in map(session_name, found.keys() - heads.keys()) if name in beyond]
    heads |= await _heads(access.store, cache, late, missing)
    rows = [
        _session(access.clock, session_id, heads.get(session_id), found.get(session_id, []), state)
        for session_id in heads.keys() | found.keys()
    ]
    rows.sort(key=lambda row: (row[0], row[1].session_id), reverse=True)
    return SessionList([session for _, session in rows][:limit], missing)


async def _heads(
    store: Store, cache: HeadCache, listed: Sequence[Listed], missing: list[Missing]
) -> dict[str, _Known]:
    """By session; one whose metadata cannot be read does not keep the others from being listed."""
    found: dict[str, _Known] = {}
    failures: list[Exception] = []
    queue = iter(listed)

    async def work() -> None:
        for one in queue:
            try:
                known = await cache.of(store, one)
            except (UnavailableError, NotConfiguredError) as problem:
                failures.append(problem)
                return
            except StreamjournalError as problem:
                missing.append(Missing("journal", f"{one.name}: {problem}"))
                continue
            if known is not None:
                found[known.head.session_id] = known

    async with anyio.create_task_group() as tasks:
        for _ in range(min(_PARALLEL, len(listed))):
            tasks.start_soon(work)
    if failures:
        raise failures[0]
    return found


async def _unflushed(
    access: Access, state: StreamState | None, missing: list[Missing]
) -> dict[str, list[_Unflushed]]:
    """By session, what lies after the shards' checkpoints."""
    found: dict[str, list[_Unflushed]] = {}
    if state is None:
        return found
    scan = Scan(access.feeds, state, access.clock)
    try:
        for shard in state.shards:
            place = start_in(state, shard, None)
            if place is None:
                continue
            async with aclosing(scan.records(shard, place)) as records:
                async for record in records:
                    for session_id, item in parse_record(record, state.digest).items:
                        bare = msgspec.structs.replace(item, line=b"")
                        one = _Unflushed(bare, shard, len(item.line), record.arrival_ms)
                        found.setdefault(session_id, []).append(one)
    except UnavailableError as problem:
        missing.append(Missing("stream", str(problem)))
    missing += [Missing("range", str(gap)) for gap in scan.trimmed]
    return found


def _session(
    clock: Clock,
    session_id: str,
    known: _Known | None,
    unflushed: list[_Unflushed],
    state: StreamState | None,
) -> tuple[float, Session]:
    """A row of the list, with the time of its last change in front."""
    summary, numbered, reached, size, changed = Summary(), Numbered(None), None, 0, 0.0
    if known is not None:
        head = known.head
        summary, numbered, size, changed = known.summary, known.numbered(), head.size, head.modified
        reached = head.meta.position if head.meta is not None else None
    entries, errors, first, last = summary.entries, summary.errors, summary.first, summary.last
    status = summary.status
    for item, shard, bytes_, arrival_ms in unflushed:
        if state is not None and _behind(state, shard, item.position, reached):
            continue
        if not numbered.is_new(item.writer, item.n):
            continue
        entries += 1
        errors += item.level == "ERROR"
        first = first or item.timestamp
        last = item.timestamp or last
        status = item.status or status
        size += bytes_ + 1
        changed = max(changed, arrival_ms / 1000)
    shown = "abandoned" if status == "running" and _is_quiet(last, changed, clock) else status
    return changed, Session(session_id, entries, errors, first, last, shown, size)


def _behind(state: StreamState, shard: Shard, position: Position, reached: Position | None) -> bool:
    """Whether the journal has a record by its position."""
    start = start_in(state, shard, reached)
    if start is None:
        return True
    return start.isdigit() and int(position.sequence) <= int(start)


def _is_quiet(last: str, changed: float, clock: Clock) -> bool:
    moment = parse_timestamp(last) or datetime.fromtimestamp(changed, UTC)
    return clock.time() - moment.timestamp() > _ABANDONED_AFTER
