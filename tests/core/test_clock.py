"""Time and chance that are passed in."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.clock import SYSTEM, Clock, format_timestamp, parse_timestamp


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001  # made UTC below
def test_timestamps_are_rfc_3339_with_microseconds(moment: datetime) -> None:
    """Formatting and parsing agree to the microsecond, and the text sorts as the time does."""
    moment = moment.replace(tzinfo=UTC)
    time_ns = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
    text = format_timestamp(time_ns)
    assert len(text) == len("2026-11-22T13:12:01.123456Z")
    assert parse_timestamp(text) == moment
    assert format_timestamp(time_ns + 1_000) > text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T13:12:01Z", datetime(2026, 11, 22, 13, 12, 1, tzinfo=UTC)),
        ("2026-11-22T13:12:01", datetime(2026, 11, 22, 13, 12, 1, tzinfo=UTC)),
        ("2026-11-22 13:12:01+02:00", datetime(2026, 11, 22, 11, 12, 1, tzinfo=UTC)),
        ("2026-11-22T13:12:01.123456789Z", datetime(2026, 11, 22, 13, 12, 1, 123456, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
    ],
)
def test_foreign_timestamps_parse_where_they_can(text: str, moment: datetime | None) -> None:
    """Without a zone it is UTC; what names no moment is None and no error."""
    assert parse_timestamp(text) == moment


def test_ids_come_from_the_injected_chance() -> None:
    """The same seed draws the same ids, and ids are lower-case letters and digits."""
    one, two = Clock(rng=random.Random(7)), Clock(rng=random.Random(7))
    ids = [one.draw_id() for _ in range(100)]
    assert ids == [two.draw_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(i) == 10 and i.isascii() and i.isalnum() and i == i.lower() for i in ids)
    assert len(one.draw_id(25)) == 25


@given(st.floats(0, 1e6), st.integers())
def test_jitter_is_half_to_all_of_the_wait(seconds: float, seed: int) -> None:
    """A jittered wait is never longer than asked, and never less than half."""
    assert seconds / 2 <= Clock(rng=random.Random(seed)).jitter(seconds) <= seconds


def test_wall_time_is_the_injected_one() -> None:
    """Seconds are the nanoseconds that were passed in; the system's clock is the default."""
    assert Clock(time_ns=lambda: 1_500_000_000).time() == 1.5
    assert SYSTEM.monotonic() <= SYSTEM.monotonic()
