"""Readers: merged reads, and a tail that is broken off and resumed by its cursor."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from streamjournal.core.entry import decode_envelope, split_id
from streamjournal.core.errors import StreamjournalError
from streamjournal.read.cursor import Cursor
from streamjournal.read.merged import MergedRead
from streamjournal.read.tail import Tail
from streamjournal.read.words import Access
from tests.sim.ledger import Ledger, Name
from tests.sim.trace import Trace

if TYPE_CHECKING:
    from tests.sim.world import World


class Heard:
    """What a reader was given of a session, in order, each entry once.

    Args:
        invariant: what does not hold, where that is not so.
        known: what he may not be given: because he was, before the journal was deleted, or because he was
            told that it was trimmed before he came to it.
    """

    def __init__(
        self,
        session: str,
        invariant: str,
        ledger: Ledger,
        trace: Trace,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self._session = session
        self._invariant = invariant
        self._ledger = ledger
        self._trace = trace
        self.known = known
        self.ids: dict[str, None] = {}
        self._highest: dict[str, int] = {}

    def add(self, line: bytes) -> None:
        """The next line."""
        session, entry_id = self._session, decode_envelope(line).id
        if entry_id in self.ids:
            self._trace.fail(self._invariant, f"{session}: {entry_id} was given twice")
        self.ids[entry_id] = None
        number = split_id(entry_id)
        if number is None:
            return
        writer, n = number
        highest = self._highest.get(writer, 0)
        self._highest[writer] = max(n, highest)
        out_of_order = [n] if n < highest else range(highest + 1, n)
        for m in out_of_order:
            name = Name(session, f"{writer}-{m}")
            if name.id not in self.known and not self._ledger.lost(name):
                self._trace.fail(
                    self._invariant, f"{session}: {entry_id} was given after {writer}-{highest}, without {m}"
                )

    def lacks(self, expected: set[str]) -> list[str]:
        """What was expected, was not given, and is not lost by now."""
        given = {*self.ids, *self.known}
        return sorted(i for i in expected - given if not self._ledger.lost(Name(self._session, i)))

    def must_have(self, expected: set[str]) -> None:
        """Everything expected, but for what is lost by now."""
        missing = self.lacks(expected)
        if missing:
            text = f"{self._session}: {missing[0]} and {len(missing) - 1} more were not given"
            self._trace.fail(self._invariant, text)


async def read_once(world: World, access: Access, session: str) -> bool:
    """One merged read, checked; whether it was complete."""
    expected = set(world.ledger.landed[session])
    merged = MergedRead(access, session)
    heard = Heard(session, "read", world.ledger, world.trace)
    try:
        async with aclosing(merged.blocks()) as blocks:
            async for block in blocks:
                for line in block.lines:
                    heard.add(line)
    except StreamjournalError as problem:
        world.trace.note(f"read of {session} failed: {problem}")
        return False
    world.trace.note(f"read {len(heard.ids)} of {session}, missing {[m.what for m in merged.missing]}")
    if merged.complete:
        heard.must_have(expected)
        world.trace.counts["reads"] += 1
    return merged.complete


class Tailing:
    """A tail of one session through all its resumptions."""

    def __init__(self, world: World, session: str) -> None:
        self._world = world
        self._session = session
        self._cursor: Cursor | None = None
        self._begin(frozenset())

    def _begin(self, known: frozenset[str]) -> None:
        self.heard = Heard(self._session, "tail", self._world.ledger, self._world.trace, known)
        self._deletions = self._world.deletions[self._session]

    def _hear(self, line: bytes) -> None:
        """The next line. The tail may begin again once for each deletion of the journal, and when the entry
        that its cursor names was lost: nobody can tell any more what was before it.
        """
        name = Name(self._session, decode_envelope(line).id)
        repeats = name.id in self.heard.ids
        if repeats and self._world.ledger.lost(name):  # a late copy came of what was lost after he had it
            return
        deleted = self._deletions < self._world.deletions[self._session]
        at = self._cursor.last_id if self._cursor is not None else None
        if repeats and (deleted or (at and self._world.ledger.lost(Name(self._session, at)))):
            self._world.trace.strike("tail begins again", self._session)
            self._begin(self.heard.known.union(self.heard.ids))
        self.heard.add(line)

    async def listen(self, access: Access, seconds: float) -> None:
        """Go on from the cursor for a while."""
        trace, told = self._world.trace, 0
        with trio.move_on_after(seconds):
            try:
                async with Tail(access, self._session, history=None, resume=self._cursor) as tail:
                    async for line in tail:
                        for missing in tail.missing[told:]:
                            trace.note(f"tail of {self._session}: {missing.what} {missing.why}")
                            if missing.what == "range":
                                self.heard.known |= self._trimmed()
                        told = len(tail.missing)
                        self._hear(line)
                        self._cursor = Cursor.parse(str(tail.cursor), session_id=self._session)
            except StreamjournalError as problem:
                trace.note(f"tail of {self._session} failed: {problem}")

    def _trimmed(self) -> frozenset[str]:
        """What a tail that says that a range is missing may leave out, be it in the journal or not."""
        puts = [put for put in self._world.ledger.of_session[self._session] if put.trimmed]
        return frozenset(name.id for put in puts for name in put.names)

    async def listen_to_end(self, access: Access) -> None:
        """Go on until everything was given, and no longer than a minute."""
        world = self._world
        expected = set(world.ledger.landed[self._session])
        deadline = trio.current_time() + 60
        while trio.current_time() < deadline:
            await self.listen(access, 5)
            if not self.heard.lacks(expected):
                return
        self.heard.must_have(expected)


async def keep_reading(world: World) -> None:
    """A process that reads, with feeds that its reads and tails share."""
    host = world.host("reader")
    access = world.services(host).access(host)
    while True:
        await read_once(world, access, world.rng.choice(world.plan.sessions))
        await trio.sleep(world.rng.random() * world.plan.read_every)
        if world.rng.random() < 0.1:
            access = world.services(host).access(host)


async def keep_tailing(world: World, tailing: Tailing) -> None:
    """A tail that is broken off at any moment, and resumed: in this process, or in another."""
    host = world.host("tailer")
    access = world.services(host).access(host)
    while True:
        broken_off = "tail broken off" in world.plan.kinds
        await tailing.listen(access, world.rng.random() * 6 if broken_off else 1000)
        if broken_off:
            world.trace.strike("tail broken off")
        await trio.sleep(world.rng.random())
        if world.rng.random() < 0.5:
            access = world.services(host).access(host)
