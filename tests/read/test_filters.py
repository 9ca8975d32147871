"""Filters: which lines pass."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streamjournal.core.errors import InvalidEntryError
from streamjournal.read.filters import EVERYTHING, Filter

LINE = (
    '{"id":"w-1","timestamp":"2026-11-22T13:12:01.5Z","session_id":"s","event_type":"TOOL_ERROR",'
    '"tool_name":"run_eda","level":"ERROR","details":{"path":"C:\\\\temp","who":"Zoë \\"Q\\""}}'
).encode()
MOMENT = datetime(2026, 11, 22, 13, 12, 1, 500_000, UTC)


@pytest.mark.parametrize(
    ("passes", "test"),
    [
        (True, EVERYTHING),
        (True, Filter(event_types="TOOL_ERROR")),
        (True, Filter(event_types=["A", "TOOL_ERROR"])),
        (False, Filter(event_types=["A"])),
        (True, Filter(tool="run_eda")),
        (False, Filter(tool="run")),
        (True, Filter(level="warn")),
        (False, Filter(level="CRITICAL")),
        (True, Filter(since=MOMENT)),
        (False, Filter(until=MOMENT)),
        (True, Filter(text="ZOË")),
        (True, Filter(text='zoë "q"')),
        (True, Filter(text="c:\\temp")),
        (False, Filter(text="nobody")),
        (False, Filter(text="zoë", level="CRITICAL")),
    ],
)
def test_each_test(*, passes: bool, test: Filter) -> None:
    """All tests must hold; text is found as a person reads it, whatever its case."""
    assert test(LINE) is passes


@pytest.mark.parametrize(
    "bad", [b"scribble \\u00e9", b"\xff\\u0041", b"[1]", b"", b'{"event_type":5}', b"[" * 10**5]
)
def test_what_is_no_entry_passes_only_without_tests(bad: bytes) -> None:
    """It raises nothing, either."""
    assert EVERYTHING(bad)
    for test in (Filter(text="zoë"), Filter(level="DEBUG"), Filter(event_types="X")):
        assert not test(bad)


def test_older_lines() -> None:
    """A line without a level is INFO, with null too; escaped letters are found."""
    for level in ("", ',"level":null'):
        old = f'{{"timestamp":"t","event_type":"X","details":{{"a":"\\u00e9"}}{level}}}'.encode()
        assert Filter(level="INFO")(old)
        assert not Filter(level="WARNING")(old)
        assert Filter(text="É")(old)
        assert not Filter(since=MOMENT)(old)  # its timestamp names no moment


def test_a_line_that_cannot_be_decoded_is_not_hidden_by_where() -> None:
    """It passes, so that the read can say what is wrong with it."""
    line = (
        b'{"id":"w-1","timestamp":"t","session_id":"s","event_type":"X","tool_name":null,"level":"INFO",'
        b'"details":{"n":1e400}}'
    )
    assert Filter(where={"a": 1})(line)


def test_where_is_a_function_or_a_mapping() -> None:
    """Anything else is told at once."""
    with pytest.raises(InvalidEntryError, match="where must be a function"):
        Filter(where=5)  # type: ignore[arg-type]
