"""When a reader has come to what was the end of a shard when it began."""

from __future__ import annotations

from streamjournal.stream.caught_up import CaughtUp
from streamjournal.stream.port import ReadBatch, Record


def batch(*arrivals: int, behind: int = 0, ended: bool = False, fresh: bool = True) -> ReadBatch:
    """Records that came at these milliseconds."""
    records = [Record("s", str(n), "key", b"x", arrival) for n, arrival in enumerate(arrivals)]
    return ReadBatch(records, behind, ended, fresh)


def test_a_quiet_shard_says_that_nothing_more_is_there() -> None:
    """An empty answer that is not behind; one that is behind has more to come."""
    assert CaughtUp()(batch())
    reached = CaughtUp()
    assert [reached(batch(behind=5)), reached(batch(100)), reached(batch())] == [False, False, True]


def test_an_ended_shard_has_no_more() -> None:
    """Whatever else the answer says."""
    assert CaughtUp()(batch(100, behind=7, ended=True))


def test_on_a_busy_shard_a_later_record_tells() -> None:
    """One that came after the newest record at the first look, once nothing is known to be behind it."""
    reached = CaughtUp()
    assert not reached(batch(100, behind=900))  # so the newest came at 1000
    assert not reached(batch(990, behind=20))
    assert not reached(batch(1000))
    assert reached(batch(1001))


def test_who_never_catches_up_stops_at_a_record_that_is_much_later() -> None:
    """Records that were there at the start are behind him then, though arrival times are approximate."""
    reached = CaughtUp()
    assert not reached(batch(100, behind=900))
    assert not reached(batch(11_000, behind=500))
    assert reached(batch(11_001, behind=500))


def test_an_old_answer_says_nothing() -> None:
    """What was read before he came does not tell what was there when he came."""
    reached = CaughtUp()
    assert not reached(batch(fresh=False))
    assert not reached(batch(100, fresh=False))
    assert not reached(batch(50_000, behind=1))  # the first look; the old answer was none
    assert reached(batch())
