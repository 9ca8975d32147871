"""emit: numbers, order, re-entry, values that are no JSON, and invalid arguments."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest

from streamjournal.core.entry import split_id
from streamjournal.core.errors import ClosedJournalError, InvalidEntryError
from streamjournal.core.foreign import Foreign
from streamjournal.emit import sessions
from tests.emit.rigs import HandClock, acknowledge_all, lines_of, make_emitter, queued


@pytest.fixture(params=["spool", "memory"])
def emitter(request, tmp_path):
    """An emitter with a spool, and one without."""
    return make_emitter(tmp_path / "spool" if request.param == "spool" else None)


def test_an_entry_has_its_fields(emitter):
    """The line holds what was given, and the contract's six fields in any case."""
    emitter.emit("START", session_id="s")
    emitter.emit(
        "TOOL_END",
        session_id="s",
        tool_name="bash",
        details={"a": 1},
        level="ERROR",
        span_id="b",
        parent_id="a",
        source="sandbox",
    )
    first, second = lines_of(emitter.outbox_of("s"))
    assert list(first) == [
        "id", "timestamp", "session_id", "event_type", "tool_name", "level", "details", "source",
    ]  # fmt: skip
    assert (first["tool_name"], first["level"], first["details"]) == (None, "INFO", {})
    assert second["id"] == first["id"].replace("-1", "-2")
    del second["id"], second["timestamp"]
    assert second == {
        "session_id": "s",
        "event_type": "TOOL_END",
        "tool_name": "bash",
        "level": "ERROR",
        "details": {"a": 1},
        "span_id": "b",
        "parent_id": "a",
        "source": "sandbox",
    }


def test_numbers_under_threads(emitter):
    """Eight threads on five sessions: each session's numbers are 1..n in the order of its queue."""

    def work(me: int) -> None:
        for i in range(400):
            emitter.emit("E", session_id=f"s{(me + i) % 5}", details={"me": me, "i": i})

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert emitter.accepted == 3200
    order: dict[int, int] = defaultdict(lambda: -1)
    for outbox in queued(emitter):
        lines = lines_of(outbox)
        assert [split_id(line["id"]) for line in lines] == [(outbox.writer, n + 1) for n in range(len(lines))]
        order.clear()
        for line in lines:
            assert line["details"]["i"] > order[line["details"]["me"]]
            order[line["details"]["me"]] = line["details"]["i"]
    assert sorted(item.serial for outbox in queued(emitter) for item in outbox.items) == [*range(1, 3201)]


def test_timestamps(tmp_path):
    """UTC with microseconds, through the turn of a second and a clock that goes back."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    for wall in (0.0, 0.25, 0.999999, 1.0, 1.5, 0.75, 60.0):
        hand.wall = hand.steady = 1_800_000_000 + wall
        emitter.emit("E", session_id="s")
    hand.wall -= 0.001
    emitter.emit("E", session_id="s")
    seconds = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines_of(queued(emitter)[0])]
    assert [round(s - 1_800_000_000, 6) for s in seconds] == pytest.approx(
        [0.0, 0.25, 0.999999, 1.0, 1.5, 0.75, 60.0, 59.999], abs=2e-6
    )


def test_a_snapshot_gets_a_new_writer(tmp_path):
    """Wall time that jumps against monotonic time, as after a restored snapshot, ends the writer id."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    a = emitter.emit("E", session_id="s")
    hand.pass_time(3600)
    b = emitter.emit("E", session_id="s")
    assert (a.n, b.n, a.outbox) == (1, 2, b.outbox)
    hand.wall += 500
    c = emitter.emit("E", session_id="s")
    assert c.n == 1
    assert c.outbox.writer != a.outbox.writer
    assert len(emitter.unacknowledged("s")) == 3
    hand.wall -= 500  # a clock that is set back looks the same
    d = emitter.emit("E", session_id="s")
    assert d.outbox.writer not in {a.outbox.writer, c.outbox.writer}
    assert [split_id(line["id"])[1] for line in lines_of(d.outbox)] == [1, 2, 1, 1]


def test_a_late_emit_does_not_revive_a_retired_writer(tmp_path):
    """A thread that looked its outbox up before the snapshot numbers its entry under the new writer."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    emitter.emit("E", session_id="s")
    looked_up = emitter.outbox_of("s")
    hand.wall += 500
    emitter.emit("E", session_id="other")
    emitter._known["s", "E", None, "INFO"] = looked_up  # what the other thread holds
    receipt = emitter.emit("E", session_id="s")
    assert receipt.outbox is not looked_up
    assert receipt.id != f"{looked_up.prefix}2"


def test_an_unseen_fork_gets_a_new_writer(tmp_path, monkeypatch):
    """A fork that Python's hooks did not see is found out within a second, and shares nothing."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    parent = emitter.emit("E", session_id="s")
    parent_map = bytes(parent.segment.map)
    monkeypatch.setattr("os.getpid", lambda: -1)
    hand.pass_time(1)
    child = emitter.emit("E", session_id="s")
    assert child.n == 1
    assert child.outbox.writer != parent.outbox.writer
    assert child.segment is not parent.segment
    assert bytes(parent.segment.map) == parent_map
    assert emitter.delivery().pending == 1
    assert emitter.spool.instance != parent.segment.path.parent.name


def test_idle_sessions_are_forgotten(monkeypatch, tmp_path):
    """Beyond the bound idle sessions are forgotten, and their writer id is never used for them again."""
    monkeypatch.setattr(sessions, "_MAX_SESSIONS", 50)
    emitter = make_emitter(tmp_path)
    ids = [emitter.emit("E", session_id=f"s{i}").id for i in range(50)]
    busy = emitter.outbox_of("s49")
    for outbox in queued(emitter)[:-1]:
        outbox.items.clear()
        outbox.ready = False
    ids.append(emitter.emit("E", session_id="one more").id)
    assert emitter.outbox_of("s0") is None
    assert emitter.outbox_of("s49") is busy
    again = emitter.emit("E", session_id="s0")
    ids.append(again.id)
    assert again.n == 1
    assert len({split_id(i)[0] for i in ids}) == 2
    assert emitter.emit("E", session_id="s49").n == 2


def test_busy_sessions_beyond_the_bound(monkeypatch):
    """When none is idle, the bound moves: not every new session looks through all of them."""
    monkeypatch.setattr(sessions, "_MAX_SESSIONS", 50)
    emitter = make_emitter()
    for i in range(1000):
        emitter.emit("E", session_id=f"s{i}")
    assert len({split_id(o.prefix + "1")[0] for o in queued(emitter)}) <= 7
    assert all(emitter.emit("E", session_id=f"s{i}").n == 2 for i in range(1000))


class Colour(Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


class Word(StrEnum):
    GO = "go"


@dataclass
class Point:
    x: int
    y: object


class BadZone(tzinfo):
    def utcoffset(self, moment):
        raise RuntimeError("no zone today")


class Hostile:
    @property
    def __class__(self):
        raise RuntimeError("no class")

    def __repr__(self):
        raise RuntimeError("no repr")

    def __getattr__(self, name):
        raise RuntimeError("no attributes")


CYCLE: dict = {}
CYCLE["self"] = CYCLE
DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]

ODD_VALUES = {
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "bad zone": datetime(2026, 1, 1, tzinfo=BadZone()),
    "decimal": Decimal("1.10"),
    "bytes": b"\xff\x00",
    "uuid": UUID(int=1),
    "path": Path("/x"),
    "enum": Colour.RED,
    "text subclass": Text("t"),
    "set": {1, 2},
    "dataclass": Point(1, object()),
    "numpy scalar": np.float32(1.5),
    "numpy array": np.arange(3),
    "tuple key": {(1, 2): 3},
    "none key": {None: 1},
    "nan": math.nan,
    "infinity": -math.inf,
    "lone surrogate": "a\ud800b",
    "surrogate key": {"\udcff": 1},
    "huge integer": 10**5000,
    "cycle": CYCLE,
    "deep": DEEP,
    "exception": ValueError("x"),
    "object": object(),
    "hostile": Hostile(),
    "generator": (i for i in range(3)),
    "type": int,
    "function": math.sin,
}


@pytest.mark.parametrize("name", ODD_VALUES)
@pytest.mark.parametrize("nested", [True, False])
def test_values_that_are_no_json(emitter, name, nested):
    """As details or in them, first entry or a later one: emit takes any value, and the line is JSON."""
    value = ODD_VALUES[name]
    details = {"value": value} if nested else value
    for _ in range(3):
        emitter.emit("E", session_id="s", details=details)
    emitter.emit("E", session_id="s", details={"fine": 1})
    lines = lines_of(emitter.outbox_of("s"))
    assert [split_id(line["id"])[1] for line in lines] == [1, 2, 3, 4]
    assert all(isinstance(line["details"], dict) for line in lines)
    assert lines[0]["details"] == lines[1]["details"] == lines[2]["details"] or name == "generator"
    for line in emitter.unacknowledged("s"):
        assert b"\n" not in line


def test_details_are_taken_at_once(emitter):
    """The caller may change its dict once emit has returned."""
    details = {"list": [1], "odd": object()}
    for _ in range(2):
        emitter.emit("E", session_id="s", details=details)
        details["list"].append(2)
    assert [line["details"]["list"] for line in lines_of(emitter.outbox_of("s"))] == [[1], [1, 2]]


def test_text_subclasses(emitter):
    """Names that are a subclass of str are as good as any, also where the plain text was seen before."""
    for _ in range(2):
        for text in (str, Text):
            emitter.emit(
                text("E"), session_id=text("s"), tool_name=text("t"), level=text("INFO"), span_id=text("x")
            )
    emitter.emit(Word.GO, session_id="s", level=Word.GO, source=Text("sandbox"))
    lines = lines_of(emitter.outbox_of("s"))
    assert len(lines) == 5
    assert {line["event_type"] for line in lines} == {"E", "go"}
    assert all(type(outbox.session_id) is str for outbox in queued(emitter))


class Unhashable(str):
    __slots__ = ()
    __hash__ = None


class HashRaises:
    def __hash__(self):
        raise RuntimeError("no hash")


INVALID = [
    ("session_id", ""),
    ("session_id", "x" * 257),
    ("session_id", "日" * 86),
    ("session_id", "a\nb"),
    ("session_id", "a\x00"),
    ("session_id", "\ud800"),
    ("session_id", None),
    ("session_id", b"bytes"),
    ("session_id", []),
    ("session_id", HashRaises()),
    ("event_type", ""),
    ("event_type", None),
    ("event_type", {}),
    ("event_type", "x" * 257),
    ("tool_name", []),
    ("tool_name", 5),
    ("tool_name", "\x7f"),
    ("tool_name", np.array(["a", "b"])),
    ("level", ""),
    ("level", "x" * 33),
    ("level", {"a": 1}),
    ("level", 20),
    ("span_id", 5),
    ("span_id", "a\n"),
    ("span_id", np.array(["a", "b"])),
    ("parent_id", ["x"]),
    ("source", 3),
    ("source", "a\nb"),
    ("source", object()),
]


@pytest.mark.parametrize(
    ("field", "value"), INVALID, ids=[f"{field}-{i}" for i, (field, _) in enumerate(INVALID)]
)
def test_invalid_arguments(emitter, field, value):
    """An argument out of bounds is refused by name; nothing was accepted, and no number taken."""
    for expected in (1, 2):
        good = {"event_type": "E", "session_id": "s"}
        with pytest.raises(InvalidEntryError) as caught:
            emitter.emit(**{**good, field: value})
        assert caught.value.field == field
        assert emitter.emit(**good).n == expected
    assert emitter.accepted == 2


def test_odd_session_ids_are_taken(emitter):
    """Anything within the bounds names a session."""
    names = ["a/b", "../x", "日本", "CON", ".", "👍" * 64, " ", "a%2Fb", Unhashable("u")]
    for name in names:
        assert emitter.emit("E", session_id=name).n == 1
    assert {o.session_id for o in queued(emitter)} == set(map(str, names))


def test_foreign_lines(emitter):
    """A foreign line is accepted under an id of ours and keeps its timestamp."""
    emitter.emit("E", session_id="s")
    line = b'{"id":"x","timestamp":"then","session_id":"s","event_type":"OLD","n":1.50}'
    receipt = emitter.emit_foreign(Foreign(line))
    assert receipt.n == 2
    last = emitter.unacknowledged("s")[1]
    assert b'"n":1.50' in last
    assert msgspec.json.decode(last)["timestamp"] == "then"
    assert msgspec.json.decode(last)["source_id"] == "x"


def test_closed(emitter):
    """After close every way in is shut, also for names that were seen before."""
    emitter.emit("E", session_id="s")
    emitter.close()
    with pytest.raises(ClosedJournalError):
        emitter.emit("E", session_id="s")
    with pytest.raises(ClosedJournalError):
        emitter.emit("F", session_id="t")
    with pytest.raises(ClosedJournalError):
        emitter.emit_foreign(Foreign(b'{"session_id":"s","event_type":"E"}'))
    assert emitter.accepted == 1


class EmitsWhenAsked(tzinfo):
    """Its encoding emits."""

    def __init__(self, emitter):
        self.emitter = emitter

    def utcoffset(self, moment):
        self.emitter.emit("INNER", session_id="s", details={"odd": object()})
        return


def test_encoding_that_emits(emitter):
    """An emit inside an emit's encoding is accepted after the outer one's number is settled."""
    details = {"when": datetime(2026, 1, 1, tzinfo=EmitsWhenAsked(emitter))}
    for _ in range(20):
        emitter.emit("OUTER", session_id="s", details=details)
    lines = lines_of(emitter.outbox_of("s"))
    assert [split_id(line["id"])[1] for line in lines] == list(range(1, len(lines) + 1))
    assert sum(line["event_type"] == "OUTER" for line in lines) == 20
    assert sum(line["event_type"] == "INNER" for line in lines) >= 20


def test_signal_handlers_that_emit(emitter):
    """Handlers that interrupt emit at any place emit themselves: no deadlock, no loss, no gap."""
    fired = 0

    def handler(signum, frame):
        nonlocal fired
        fired += 1
        emitter.emit("SIGNAL", session_id=f"s{fired % 3}", details={"odd": {fired}})

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    count = 0
    try:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            emitter.emit("E", session_id=f"s{count % 3}", details={"i": count})
            count += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert fired > 50
    assert emitter.accepted == count + fired
    lines = [line for outbox in queued(emitter) for line in lines_of(outbox)]
    assert sum(line["event_type"] == "SIGNAL" for line in lines) == fired
    for outbox in queued(emitter):
        assert [split_id(line["id"])[1] for line in lines_of(outbox)] == list(range(1, outbox.n + 1))


class EmitsWhenDeleted:
    """In a cycle, so that only the garbage collector deletes it."""

    def __init__(self, emitter):
        self.emitter = emitter
        self.me = self

    def __del__(self):
        self.emitter.emit("DELETED", session_id="s")


def test_garbage_that_emits(emitter):
    """A `__del__` that the collector runs inside emit emits: no deadlock, no loss, no gap."""
    threshold = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for i in range(500):
            EmitsWhenDeleted(emitter)
            emitter.emit("E", session_id="s", details={"i": [[i], [i]], "odd": Point(1, object())})
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    lines = lines_of(emitter.outbox_of("s"))
    assert len(lines) == 1000
    assert [split_id(line["id"])[1] for line in lines] == list(range(1, 1001))


def test_acknowledging_makes_room(tmp_path):
    """What the sender settles leaves memory and, segment by segment, the spool."""
    emitter = make_emitter(tmp_path)
    for _ in range(5):
        for _ in range(2000):
            emitter.emit("E", session_id="s", details={"text": "x" * 1000})
        assert emitter.buffered > 2_000_000
        acknowledge_all(emitter)
        assert emitter.buffered == 0
    assert len(list(tmp_path.glob("*/*.seg"))) <= 4
    assert emitter.emit("E", session_id="s").n == 10_001
