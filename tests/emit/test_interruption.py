"""What happens at every single step of an emit: other code emits there, or raises there.

A `__del__` may run at any line, since the garbage collector may. A signal handler, which may raise,
runs where a function begins and after a call into C, and nowhere else ("eval breaker" in CPython's
ceval). So these tests go through all such places, one run for each, instead of hoping that a timer
hits the bad one.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from streamjournal.core.entry import split_id
from streamjournal.emit.outbox import Account
from streamjournal.emit.recovery import Orphan
from tests.emit.rigs import HandClock, lines_of, make_emitter, queued

_OURS = "/streamjournal/emit/"


class Interrupted(BaseException):
    """What a handler raises."""


class AtStep:
    """Calls `act` at the n-th step of the code in emit/ that runs inside the block.

    Args:
        lines: also where no signal handler could run.
    """

    def __init__(self, n: int, act, *, lines: bool) -> None:
        self.n = n
        self.act = act
        self.lines = lines
        self.steps = 0

    def __enter__(self):
        sys.setprofile(self._profile)
        if self.lines:
            sys.settrace(self._trace)
        return self

    def __exit__(self, *exc):
        sys.settrace(None)
        sys.setprofile(None)

    def _profile(self, frame, event, arg):
        if event in ("call", "c_return") and _OURS in frame.f_code.co_filename:
            self._step()

    def _trace(self, frame, event, arg):
        if _OURS not in frame.f_code.co_filename:
            return None
        self._step()
        return self._trace

    def _step(self):
        self.steps += 1
        if self.steps == self.n:
            sys.settrace(None)
            sys.setprofile(None)
            self.act()


def prepared(case: str, tmp_path):
    """An emitter whose next emit goes the way that `case` names, and that emit."""
    hand = HandClock()
    settings = {"buffer_bytes": 10_000} if case == "drop" else {}
    emitter = make_emitter(None if case == "memory" else tmp_path, hand.clock(), **settings)
    if case != "first":
        emitter.emit("E", session_id="s")
    if case == "second":
        hand.pass_time(2)
    if case == "snapshot":
        hand.wall += 100
    if case == "drop":
        emitter.emit("BIG", session_id="s", details={"text": "x" * 20_000})
    details = {"text": "x" * 1_048_000} if case == "segment" else {"odd": object()} if case == "odd" else {}
    return emitter, lambda: emitter.emit("OUTER", session_id="s", details=details)


CASES = ["first", "again", "second", "snapshot", "memory", "segment", "odd", "drop"]


def steps_of(case, tmp_path, *, lines):
    emitter, emit = prepared(case, tmp_path)
    with AtStep(-1, None, lines=lines) as counting:
        emit()
    assert emitter.accepted
    return counting.steps


def check_numbers(emitter, receipts):
    """Each session and writer has 1..n in order, each receipt its line, and an owner for all of it."""
    by_writer = Counter()
    for outbox in dict.fromkeys([*queued(emitter), *(r.outbox for r in receipts if r.n)]):
        assert outbox.ready, "nobody would send it"
        assert outbox in emitter.ready
        assert emitter.awake
        for item, line in zip(outbox.items, lines_of_own(outbox), strict=True):
            writer, n = split_id(line["id"])
            by_writer[writer] += 1
            assert (writer, n) == (outbox.writer, by_writer[writer])
            assert item.n == n
        assert outbox.n == by_writer[outbox.writer]
    assert sum(by_writer.values()) == emitter.accepted
    serials = [item.serial for outbox in queued(emitter) for item in outbox.items]
    assert sorted(serials) == list(range(1, emitter.accepted + 1))


def lines_of_own(outbox):
    outbox.before = None
    return lines_of(outbox)


def check_spool(emitter, tmp_path):
    """Recovery would find exactly what is queued, under the same ids and with the same bytes."""
    expected = {item.id: item.line for outbox in queued(emitter) for item in outbox.items}
    for segment in emitter.spool._segments:
        assert segment.written == sum(
            item.segment is segment for outbox in queued(emitter) for item in outbox.items
        )
    folder = tmp_path / emitter.spool.instance
    emitter.spool.close()
    orphan = Orphan(folder)
    found = [item for outbox in orphan.outboxes(Account()) for item in outbox.items]
    assert len(found) == len(expected)
    assert {item.id: item.line for item in found} == expected
    orphan.close()


@pytest.mark.parametrize("case", CASES)
def test_emits_at_every_step(case, tmp_path):
    """Wherever another emit comes in: both are accepted, numbered without gap, and spooled once."""
    for n in range(1, steps_of(case, tmp_path / "count", lines=True) + 1):
        emitter, emit = prepared(case, tmp_path / str(n))
        receipts = []

        def act(emitter=emitter, receipts=receipts, n=n):
            receipts.append(emitter.emit("INNER", session_id="s", details={"n": n}))

        with AtStep(n, act, lines=True):
            receipts.append(emit())
        assert len(receipts) == 2
        receipts.append(emitter.emit("LAST", session_id="s"))
        assert all(receipt.n for receipt in receipts), f"step {n}: an entry was not accepted"
        check_numbers(emitter, receipts)
        if case != "memory":
            check_spool(emitter, tmp_path / str(n))


@pytest.mark.parametrize("case", CASES)
def test_a_handler_raises_at_every_step(case, tmp_path):
    """Wherever a handler raises (Ctrl-C): the entry is in as a whole or not at all, and emit goes on."""

    def interrupt():
        raise Interrupted

    taken = Counter()
    for n in range(1, steps_of(case, tmp_path / "count", lines=False) + 1):
        emitter, emit = prepared(case, tmp_path / str(n))
        before = emitter.accepted
        receipts = []
        with pytest.raises(Interrupted), AtStep(n, interrupt, lines=False):
            emit()
        taken[emitter.accepted - before] += 1
        receipts = [emitter.emit("AFTER", session_id="s", details={"odd": {1}}) for _ in range(2)]
        assert all(receipt.n for receipt in receipts)
        check_numbers(emitter, receipts)
        if case != "memory":
            check_spool(emitter, tmp_path / str(n))
    assert len(taken) > 1, "the steps lie on both sides of the acceptance"
