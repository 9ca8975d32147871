"""Dead letters: what they hold, and back onto the stream with those that are entries after all.

A letter that is replayed gets an id that is the same each time: its own, where a writer of ours gave
it one, else one made from the letter's key. So the journal's numbers recognise it, and replaying it
twice (after a crash, or by two people) changes nothing. That is why the order here is simple: put,
wait for the stream's acknowledgement, then remove the letter.

A letter that the worker would only make into a letter again is never put: it is parsed as the worker
parses it first. What the worker parks for another reason gets a new key, and a replay takes only what
was there when it began; so it ends.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, NamedTuple

import anyio

from streamjournal.core.backoff import Backoff
from streamjournal.core.clock import Clock, format_timestamp
from streamjournal.core.entry import UNDECODABLE, check_session_id, decode_envelope, split_id
from streamjournal.core.errors import (
    DeadLetterError,
    InvalidEntryError,
    StreamjournalError,
    StreamUnavailableError,
    UnavailableError,
)
from streamjournal.core.foreign import Foreign
from streamjournal.emit.batch import details_of, fits_a_record, with_blob
from streamjournal.store.names import dead_letter_order
from streamjournal.store.port import DeadLetter, ListedLetter, Store
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.port import (
    MAX_PUT_BYTES,
    Accepted,
    PutRecord,
    Record,
    Refused,
    Stream,
)
from streamjournal.stream.records import parse_record

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_AT_ONCE: Final = 64  # letters in memory, each up to a record's size


class Replay(NamedTuple):
    """A letter as the entry that it can be replayed as.

    Args:
        line: the entry's line, under its id.
    """

    key: str
    session_id: str
    entry_id: str
    line: bytes


class Outcome(NamedTuple):
    """What became of a letter.

    Args:
        action: `replayed`: the stream has its entry; `left`: it is where it was.
        where: shard and sequence number of its entry on the stream.
        reason: why it was left, or could not be removed after its replay; else empty.
    """

    key: str
    action: Literal["replayed", "left"]
    session_id: str | None = None
    entry_id: str | None = None
    where: tuple[str, str] | None = None
    reason: str = ""


async def newest(store: Store, number: int) -> tuple[list[ListedLetter], int]:
    """The letters that were written last, the newest last, and how many there are altogether.

    Args:
        number: at most so many.
    """
    found: list[tuple[float, tuple[str, int, str, int], ListedLetter]] = []
    count = 0
    async for letter in store.list_dead_letters():
        count += 1
        ranked = (letter.modified, dead_letter_order(letter.key), letter)
        if len(found) < number:
            heapq.heappush(found, ranked)
        else:
            heapq.heappushpop(found, ranked)
    return [letter for *_, letter in sorted(found)], count


def entry_of(key: str, letter: DeadLetter) -> Replay:
    """The entry that a letter is, put right: under the session that it names.

    Raises:
        InvalidEntryError: it is none, and replaying it would make a letter of it again.
    """
    replay = _own(key, letter) or _foreign(key, letter)
    record = Record(letter.shard, "0", replay.session_id, _record_of(replay).data, letter.arrival_ms)
    items, poison = parse_record(record, letter.stream)
    if poison or len(items) != 1 or items[0][1].writer is None:
        raise InvalidEntryError("entry", poison[0].reason if poison else "cannot be told apart from others")
    return replay


def _own(key: str, letter: DeadLetter) -> Replay | None:
    """The entry of a line that has an id of ours already."""
    try:
        envelope = decode_envelope(letter.data)
    except UNDECODABLE:
        return None
    if split_id(envelope.id) is None or not envelope.event_type or b"\n" in letter.data:
        return None
    return Replay(key, check_session_id(envelope.session_id), envelope.id, letter.data)


def _foreign(key: str, letter: DeadLetter) -> Replay:
    """The entry of another producer's line, under an id that is the letter's for good."""
    foreign = Foreign(letter.data, session_id=letter.partition_key)
    entry_id = f"{_writer_of(key)}-1"
    line = foreign.line(entry_id, timestamp=format_timestamp(letter.arrival_ms * 1_000_000))
    return Replay(key, foreign.session_id, entry_id, line)


def _writer_of(key: str) -> str:
    """A writer id that is always the same for the same letter."""
    rest = int.from_bytes(hashlib.sha256(key.encode()).digest())
    letters = []
    for _ in range(10):
        rest, digit = divmod(rest, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def _record_of(replay: Replay) -> PutRecord:
    return PutRecord(replay.session_id, aggregate(replay.session_id, [replay.line]))


class Replayer:
    """Puts letters back onto the stream.

    Args:
        timeout: seconds to go on without any progress.
    """

    def __init__(self, stream: Stream, store: Store, clock: Clock, *, timeout: float) -> None:
        self._stream = stream
        self._store = store
        self._clock = clock
        self._timeout = timeout

    async def all(self) -> AsyncIterator[Outcome]:
        """Replay every letter that is there now."""
        keys = [letter.key async for letter in self._store.list_dead_letters()]
        async for outcome in self.each(keys):
            yield outcome

    async def each(self, keys: Sequence[str]) -> AsyncIterator[Outcome]:
        """Replay letters, those of a shard in its order.

        Raises:
            StreamUnavailableError: the stream takes nothing; run it again, nothing is doubled.
            StoreUnavailableError, NotConfiguredError: the letters cannot be read.
        """
        ordered = sorted(set(keys), key=dead_letter_order)
        for first in range(0, len(ordered), _AT_ONCE):
            outcomes: list[Outcome] = []
            looked = [await self._look(key, outcomes) for key in ordered[first : first + _AT_ONCE]]
            waiting = [replay for replay in looked if replay is not None]
            for outcome in outcomes:
                yield outcome
            async for outcome in self._put_all(waiting):
                yield outcome

    async def _look(self, key: str, outcomes: list[Outcome]) -> Replay | None:
        """The letter as an entry; otherwise its outcome is known."""
        try:
            letter = await self._store.get_dead_letter(key)
            if letter is None:
                outcomes.append(Outcome(key, "left", reason="there is no such dead letter"))
                return None
            return await self._shortened(entry_of(key, letter))
        except (InvalidEntryError, DeadLetterError) as problem:
            outcomes.append(Outcome(key, "left", reason=f"it is no entry: {problem}"))
        return None

    async def _shortened(self, replay: Replay) -> Replay:
        """The entry with its details in the store, if it is over the record limit."""
        session_id, line = replay.session_id, replay.line
        if fits_a_record(session_id, line):
            return replay
        blob = await self._store.put_blob(session_id, replay.entry_id, details_of(line))
        line = with_blob(line, blob)
        if not fits_a_record(session_id, line):
            raise InvalidEntryError("entry", "is over the record limit even without its details")
        return replay._replace(line=line)

    async def _put_all(self, waiting: list[Replay]) -> AsyncIterator[Outcome]:
        """Put until each is taken or refused for good; one of a session at a time, as everywhere."""
        backoff = Backoff(self._clock)
        since = self._clock.monotonic()
        while waiting:
            call = _next_call(waiting)
            try:
                results = await self._stream.put([_record_of(replay) for replay in call])
            except UnavailableError as problem:
                results = [Refused(type(problem).__name__, str(problem))] * len(call)
            settled = [
                (replay, result)
                for replay, result in zip(call, results, strict=True)
                if isinstance(result, Accepted) or result.permanent
            ]
            if settled:
                backoff.worked()
                since = self._clock.monotonic()
            elif self._clock.monotonic() - since >= self._timeout:
                raise StreamUnavailableError(
                    f"the stream has taken no dead letter for {self._timeout:g} s ({_why(results)}); "
                    "run it again: what was replayed already is not doubled"
                )
            for replay, result in settled:
                waiting.remove(replay)
                yield await self._settle(replay, result)
            if len(settled) < len(call):
                await anyio.sleep(backoff.failed())

    async def _settle(self, replay: Replay, result: Accepted | Refused) -> Outcome:
        key, session_id, entry_id, _ = replay
        if isinstance(result, Refused):
            reason = f"the stream refuses it ({result.code}: {result.message})"
            return Outcome(key, "left", session_id, entry_id, reason=reason)
        reason = ""
        try:
            await self._store.remove_dead_letter(key)
        except StreamjournalError as problem:
            reason = f"it is listed still, since it could not be removed: {problem}"
        return Outcome(key, "replayed", session_id, entry_id, (result.shard, result.sequence), reason)


def _next_call(waiting: Sequence[Replay]) -> list[Replay]:
    """What may go together: one of each session, the first that waits, within the bounds of a put."""
    call: list[Replay] = []
    sessions: set[str] = set()
    size = 0
    for replay in waiting:
        if replay.session_id in sessions:
            continue
        sessions.add(replay.session_id)
        record = len(_record_of(replay).data) + len(replay.session_id.encode())
        if call and size + record > MAX_PUT_BYTES:
            continue
        call.append(replay)
        size += record
    return call


def _why(results: Sequence[Accepted | Refused]) -> str:
    return next((it.message or it.code for it in results if isinstance(it, Refused)), "no answer")
