"""The beginning of a tail of all sessions: the newest entries that are on the stream and not flushed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import NamedTuple

from streamjournal.core.backoff import Backoff
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.item import Item
from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.read.cursor import Cursor
from streamjournal.read.filters import Filter
from streamjournal.read.unflushed import Scan, StreamState
from streamjournal.read.words import Access, Block, Missing
from streamjournal.stream.port import Shard
from streamjournal.stream.records import parse_record


class _Found(NamedTuple):
    """An entry, and the place before the record that it is in."""

    shard_id: str
    before: str
    item: Item


class Recent:
    """Looks for them.

    Args:
        is_new: whether an entry of a session was not seen before.
        patient: wait for a stream that does not answer.
    """

    def __init__(
        self,
        access: Access,
        state: StreamState,
        passes: Filter,
        is_new: Callable[[str, Item], bool],
        *,
        patient: bool,
    ) -> None:
        self._access = access
        self._state = state
        self._passes = passes
        self._is_new = is_new
        self._patient = patient
        self._scan = Scan(access.feeds, state, access.clock)
        self._found: deque[_Found] = deque()
        self.ends: dict[str, str] = {}
        self.missing: list[Missing] = []

    async def look(self, count: int | None) -> Block:
        """The last `count` entries after the checkpoints (None: all), shard by shard.

        Then `ends` says where to go on in each shard (SHARD_END where the worker has drained it), and
        `missing` what could not be read.
        """
        self._found = deque(maxlen=count)
        for shard in self._state.shards:
            place = self._state.checkpoints.get(shard.id, TRIM_HORIZON)
            self.ends[shard.id] = place if place == SHARD_END else await self._look_at(shard, place)
        self.missing += [Missing("range", str(gap)) for gap in self._scan.trimmed]
        kept, ends, digest = list(self._found), self.ends, self._state.digest
        return Block([one.item.line for one in kept], lambda i: _cursor_after(kept, i, ends, digest))

    async def _look_at(self, shard: Shard, place: str) -> str:
        """One shard to its end; gives the place reached."""
        backoff = Backoff(self._access.clock, first=0.2, longest=5.0)
        while True:
            try:
                async with aclosing(self._scan.records(shard, place)) as records:
                    async for record in records:
                        for session_id, item in parse_record(record, self._state.digest).items:
                            if self._is_new(session_id, item) and self._passes(item.line):
                                self._found.append(_Found(shard.id, place, item))
                        place = record.sequence
            except (UnavailableError, NotConfiguredError) as problem:
                if not backoff.failures:
                    self.missing.append(Missing("stream", str(problem)))
                if not self._patient:
                    return place
                await backoff.wait()
            else:
                return place


def _cursor_after(kept: list[_Found], index: int, ends: Mapping[str, str], digest: str) -> Cursor:
    """The place after one of the entries kept: of the shards before its own, the end; of those after it,
    the place before their first entry that was kept.
    """
    here = kept[index]
    places = dict(ends)
    for one in reversed(kept[index + 1 :]):
        places[one.shard_id] = one.before
    places[here.shard_id] = here.before
    return Cursor(None, shards=places, last_id=place_of(here.item), stream=digest)


def place_of(item: Item) -> str:
    """An entry's place on the stream: among all sessions ids are not unique, and this is."""
    return f"{item.position.shard}:{item.position.sequence}:{item.place}"
