"""Dead letters back onto the stream: what can be replayed, under which id, and what a second replay does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from streamjournal.admin.dead_letters import Outcome, Replayer, entry_of, newest
from streamjournal.core.clock import Clock
from streamjournal.core.errors import InvalidEntryError, StoreUnavailableError, StreamUnavailableError
from streamjournal.core.position import ShardStart
from streamjournal.store.memory import MemoryStore
from streamjournal.store.names import dead_letter_key
from streamjournal.store.port import DeadLetter
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import MAX_RECORD_BYTES, Accepted, PutRecord, Refused
from streamjournal.stream.records import parse_record

SHARD = "shardId-000000000000"


def letter(data: bytes, n: int = 1, *, key: str = "other", arrival_ms: int = 1_763_817_121_000) -> DeadLetter:
    """The n-th letter of a shard, from a record under `key`."""
    return DeadLetter("0123456789abcdef", SHARD, str(n), 0, key, "as told", data, arrival_ms)


def key_of(it: DeadLetter) -> str:
    return dead_letter_key(it.stream, it.shard, it.sequence, it.index)


def line(session_id: str = "s", n: int = 1, **more: Any) -> bytes:
    """A line of a writer of ours."""
    fields = {
        "id": f"k3v9q2m8x1-{n}",
        "timestamp": "2026-11-22T13:12:01.123456Z",
        "session_id": session_id,
        "event_type": "NOTE",
        "tool_name": None,
        "level": "INFO",
        "details": {"n": n},
    }
    return msgspec.json.encode(fields | more)


def test_a_misplaced_entry_goes_back_as_it_was() -> None:
    """Under its own session and its own id, not a byte changed."""
    it = letter(line("mine", 7))
    replay = entry_of(key_of(it), it)
    assert (replay.session_id, replay.entry_id, replay.line) == ("mine", "k3v9q2m8x1-7", it.data)


def test_another_producers_entry_gets_an_id_that_stays() -> None:
    """The same id with each replay, its own one in source_id, and the time at which the stream took it."""
    it = letter(b'{"session_id":"mine","event_type":"PLAIN","id":"p-1","details":{"x":1.50}}')
    replay = entry_of(key_of(it), it)
    assert replay == entry_of(key_of(it), it)
    assert replay.entry_id != entry_of("dead-letters/another", it).entry_id
    found = msgspec.json.decode(replay.line)
    assert (found["id"], found["source_id"], found["session_id"]) == (replay.entry_id, "p-1", "mine")
    assert found["timestamp"] == "2025-11-22T13:12:01.000000Z"
    assert b'{"x":1.50}' in replay.line


def test_a_plain_entry_without_a_session_belongs_to_its_partition_key() -> None:
    """As it would have on the stream."""
    it = letter(b'{"event_type":"PLAIN"}', key="s")
    assert entry_of(key_of(it), it).session_id == "s"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\x00\x01",
        b"",
        b"[1,2]",
        b'{"session_id":"s"}',
        b'{"session_id":"","event_type":"A"}',
        line("s\x07"),
        line("x" * 257),
        line("s", event_type=""),
        b"\xf3\x89\x9a\xc2 no aggregate",
        aggregate("s", [line("s"), line("s", 2)]),
        b'{"event_type":"A","details":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        line("s")[:-2] + b"\xff}}",
    ],
)
def test_what_is_no_entry_is_not_replayed(data: bytes) -> None:
    """It would only become a dead letter again, under another key."""
    it = letter(data)
    with pytest.raises(InvalidEntryError):
        entry_of(key_of(it), it)


class Bench:
    """A stream with one shard, a store, and a replayer, in virtual time."""

    def __init__(self) -> None:
        self.clock = Clock(monotonic=trio.current_time)
        self.stream = MemoryStream(shards=1)
        self.store = MemoryStore()
        self.puts: list[list[str]] = []
        self.outcomes: list[list[Accepted | Refused] | Exception] = []
        self._put = self.stream.put
        self.stream.put = self.put  # type: ignore[method-assign]

    async def put(self, records: Sequence[PutRecord]) -> list[Accepted | Refused]:
        """Put, or do what the test says first."""
        self.puts.append([record.partition_key for record in records])
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        return await self._put(records)

    async def replay(self, *keys: str, timeout: float = 30.0) -> list[Outcome]:
        """Replay some letters, or all."""
        replayer = Replayer(self.stream, self.store, self.clock, timeout=timeout)
        return [it async for it in (replayer.each(keys) if keys else replayer.all())]

    async def entries(self) -> list[tuple[str, str]]:
        """Session and id of what the worker would find on the stream; poison fails the test."""
        reader = self.stream.reader((await self.stream.shards())[0].id, ShardStart("TRIM_HORIZON"))
        found = []
        for record in (await reader.next()).records:
            items, poison = parse_record(record, "0123456789abcdef")
            assert not poison
            found += [(session, msgspec.json.decode(item.line)["id"]) for session, item in items]
        return found


def in_virtual_time(test: Any) -> None:
    """Run an async function; waits take no time."""
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_replay_puts_acknowledges_and_removes() -> None:
    """Entries go back in the shard's order, one of a session at a time; what is none stays."""

    async def test() -> None:
        it = Bench()
        letters = [letter(line("a", n), n) for n in (9, 10, 11)]
        letters += [letter(line("b", 1), 12), letter(b"\xff", 13), letter(b'{"event_type":"P"}', 14, key="c")]
        keys = await it.store.put_dead_letters(letters)
        outcomes = await it.replay()

        assert {one.key for one in outcomes if one.action == "left"} == {keys[4]}
        assert list(it.store.dead_letters) == [keys[4]]
        assert [one for one in await it.entries() if one[0] == "a"] == [
            ("a", f"k3v9q2m8x1-{n}") for n in (9, 10, 11)
        ]
        assert len(await it.entries()) == 5
        assert it.puts == [["a", "b", "c"], ["a"], ["a"]]
        replayed = next(one for one in outcomes if one.key == keys[3])
        assert replayed.where is not None
        assert (replayed.session_id, replayed.entry_id, replayed.reason) == ("b", "k3v9q2m8x1-1", "")

    in_virtual_time(test)


def test_a_replay_that_was_killed_before_the_removal_is_repeated_under_the_same_ids() -> None:
    """So the journal's numbers drop the second one."""

    async def test() -> None:
        it = Bench()
        letters = [letter(line("a", 3), 1), letter(b'{"event_type":"P"}', 2, key="c")]
        await it.store.put_dead_letters(letters)
        first = await it.replay()
        await it.store.put_dead_letters(letters)
        second = await it.replay()
        assert [one.entry_id for one in first] == [one.entry_id for one in second]
        found = await it.entries()
        assert len(found) == 4
        assert len(set(found)) == 2

    in_virtual_time(test)


def test_no_answer_and_throttles_are_waited_for() -> None:
    """The same records again, in their order, until the stream has them."""

    async def test() -> None:
        it = Bench()
        await it.store.put_dead_letters([letter(line("a", 1), 1), letter(line("b", 1), 2)])
        busy = Refused("ProvisionedThroughputExceededException", "busy")
        it.outcomes = [StreamUnavailableError("away"), [busy, busy]]
        outcomes = await it.replay()
        assert [one.action for one in outcomes] == ["replayed", "replayed"]
        assert it.puts == [["a", "b"]] * 3
        assert it.store.dead_letters == {}

    in_virtual_time(test)


def test_a_stream_that_stays_away_ends_the_replay() -> None:
    """After the time given, with every letter where it was."""

    async def test() -> None:
        it = Bench()
        await it.store.put_dead_letters([letter(line("a", 1), 1)])
        it.outcomes = [StreamUnavailableError("no route")] * 1000
        began = trio.current_time()
        with pytest.raises(StreamUnavailableError, match="no route"):
            await it.replay(timeout=30.0)
        assert 30 <= trio.current_time() - began < 60
        assert len(it.store.dead_letters) == 1

    in_virtual_time(test)


def test_what_the_stream_refuses_for_good_is_left() -> None:
    """The letter stays as it is: no second one is made of it."""

    async def test() -> None:
        it = Bench()
        (key,) = await it.store.put_dead_letters([letter(line("a", 1), 1)])
        it.outcomes = [[Refused("ValidationException", "not this", permanent=True)]]
        (outcome,) = await it.replay()
        assert (outcome.action, outcome.key) == ("left", key)
        assert "not this" in outcome.reason
        assert list(it.store.dead_letters) == [key]

    in_virtual_time(test)


def test_a_letter_that_cannot_be_removed_says_so() -> None:
    """The entry is back, and the letter is listed still; nobody needs to fear a second replay."""

    async def test() -> None:
        it = Bench()
        await it.store.put_dead_letters([letter(line("a", 1), 1)])

        async def refuse(key: str) -> None:
            raise StoreUnavailableError("away")

        it.store.remove_dead_letter = refuse  # type: ignore[method-assign]
        (outcome,) = await it.replay()
        assert outcome.action == "replayed"
        assert "could not be removed: away" in outcome.reason

    in_virtual_time(test)


def test_an_entry_that_outgrew_the_record_limit_leaves_its_details_in_the_store() -> None:
    """Another producer's line gets longer by its id."""

    async def test() -> None:
        it = Bench()
        fields = b'{"event_type":"P","details":{"text":"%s"}}'
        await it.store.put_dead_letters([letter(fields % (b"x" * (MAX_RECORD_BYTES - 45)), 1, key="s")])
        (outcome,) = await it.replay()
        assert outcome.action == "replayed"
        ((blob, data),) = it.store.blobs.items()
        assert len(data) > MAX_RECORD_BYTES - 100
        assert outcome.entry_id is not None
        assert outcome.entry_id in blob
        assert await it.entries() == [("s", outcome.entry_id)]

    in_virtual_time(test)


def test_keys_that_are_none_are_left() -> None:
    """A slip of the pen is told, the others go on."""

    async def test() -> None:
        it = Bench()
        (key,) = await it.store.put_dead_letters([letter(line("a", 1), 1)])
        outcomes = await it.replay("nowhere", key, key)
        assert {one.key: one.action for one in outcomes} == {"nowhere": "left", key: "replayed"}
        assert len(outcomes) == 2

    in_virtual_time(test)


def test_newest_is_bounded_and_ends_with_the_last() -> None:
    """However many there are; equal times go by the stream's order."""

    async def test() -> None:
        seconds = iter(range(100))
        store = MemoryStore(Clock(time_ns=lambda: next(seconds) // 3 * 10**9))
        for n in range(1, 31):
            await store.put_dead_letters([letter(b"x", n)])
        found, count = await newest(store, 4)
        assert count == 30
        assert [it.key.rpartition("/")[2] for it in found] == [f"{n}-0.json" for n in (27, 28, 29, 30)]

    in_virtual_time(test)
