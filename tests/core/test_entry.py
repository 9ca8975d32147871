"""The entry: bounds, the contract's six fields, and old lines."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core import entry as e
from streamjournal.core.errors import InvalidEntryError

CONTRACT = ["timestamp", "session_id", "event_type", "tool_name", "level", "details"]


def draft(**changes: Any) -> e.Draft:
    """A draft with nothing but what is always there."""
    fields: dict[str, Any] = {
        "id": "k3v9q2m8x1-17",
        "timestamp": "2026-11-22T13:12:01.123456Z",
        "session_id": "workflow_a3b2",
        "event_type": "TOOL_START",
        "tool_name": None,
        "level": "INFO",
        "details": {},
    }
    return e.Draft(**(fields | changes))


def test_contract_fields_are_always_written() -> None:
    """All six stand in the line even when empty; what is additive and empty does not."""
    assert list(json.loads(e.encode_draft(draft()))) == ["id", *CONTRACT]
    assert list(json.loads(e.encode_draft(draft(tool_name="")))) == ["id", *CONTRACT]
    full = draft(span_id="s", parent_id="p", source="agent", source_id=7)
    assert list(json.loads(e.encode_draft(full)))[7:] == ["span_id", "parent_id", "source", "source_id"]


text_fields = st.text(min_size=1, max_size=60)


@given(text_fields, text_fields, st.none() | st.text(max_size=60), st.dictionaries(st.text(), st.integers()))
def test_line_comes_back(session_id: str, event_type: str, tool: str | None, details: dict[str, int]) -> None:
    """What is encoded is what is decoded, in one line, whatever the text."""
    try:
        e.check_session_id(session_id)
        e.check_event_type(event_type)
    except InvalidEntryError:
        return
    inside = {k: v for k, v in details.items() if -(2**63) <= v < 2**63}
    line = e.encode_draft(draft(session_id=session_id, event_type=event_type, tool_name=tool, details=inside))
    assert b"\n" not in line
    decoded = e.decode_entry(line)
    assert (decoded.session_id, decoded.event_type, decoded.tool_name, decoded.details) == (
        session_id,
        event_type,
        tool,
        inside,
    )
    assert e.decode_envelope(line).session_id == session_id
    assert decoded.to_dict() == json.loads(line)


@pytest.mark.parametrize(
    "session_id",
    ["swe-agent-claude35/astropy__astropy-12907", "../x", "a/b", "a%2Fb", "日本", "CON", ".", "🙂" * 64, " "],
)
def test_real_session_ids_are_taken(session_id: str) -> None:
    """Odd is not wrong: 64 emoji are exactly 256 bytes."""
    assert e.check_session_id(session_id) == session_id


@pytest.mark.parametrize(
    ("session_id", "problem"),
    [
        ("", "must not be empty"),
        ("🙂" * 64 + "x", "257 UTF-8 bytes long; at most 256"),
        ("a\nb", "control character '\\n'"),
        ("a\x00", "control character '\\x00'"),
        ("a\x85b", "control character '\\x85'"),
        ("\ud800", "lone surrogate"),
        (7, "must be text, not int"),
        (None, "is missing"),
        (b"bytes", "must be text, not bytes"),
    ],
)
def test_wrong_session_ids_say_why(session_id: object, problem: str) -> None:
    """The error names the argument and what is wrong with it."""
    with pytest.raises(InvalidEntryError) as refused:
        e.check_session_id(session_id)
    assert refused.value.field == "session_id"
    assert problem in refused.value.problem
    assert str(refused.value) == f"session_id {refused.value.problem}"
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("check", "bound"),
    [
        (e.check_event_type, 256),
        (e.check_level, 32),
        (e.check_timestamp, 64),
        (lambda value: e.check_optional("tool_name", value), 256),
    ],
    ids=["event_type", "level", "timestamp", "tool_name"],
)
def test_other_texts_are_bounded_likewise(check: Any, bound: int) -> None:
    """Bytes count, not characters, and the bound itself is allowed."""
    assert check("x" * bound) == "x" * bound
    for wrong in ("x" * (bound + 1), "é" * (bound // 2) + "x", "a\tb", 5):
        with pytest.raises(InvalidEntryError):
            check(wrong)


def test_optional_text_may_be_absent_or_empty() -> None:
    """A tool name is kept as it was given: None and empty text are different."""
    assert e.check_optional("tool_name", None) is None
    assert e.check_optional("tool_name", "") == ""
    for check in (e.check_event_type, e.check_level, e.check_timestamp):
        with pytest.raises(InvalidEntryError, match="must not be empty"):
            check("")


def test_old_line_gets_what_it_lacks() -> None:
    """Without session id, level, id and details it reads as the session's, at INFO, with an object."""
    old = e.decode_entry(b'{"timestamp":"t","event_type":"X"}', session_id="from-the-name")
    assert (old.session_id, old.level, old.id, old.details, old.tool_name) == (
        "from-the-name",
        "INFO",
        None,
        {},
        None,
    )
    assert old.to_dict() == {
        "timestamp": "t",
        "event_type": "X",
        "session_id": "from-the-name",
        "level": "INFO",
        "details": {},
    }


def test_unknown_fields_survive_a_read() -> None:
    """What this version does not know is in the line and in the dict, unchanged."""
    line = b'{"event_type":"X","session_id":"s","level":"WARN","details":{"n":1.50},"trace":{"a":[1,2]}}'
    decoded = e.decode_entry(line)
    assert decoded.line == line
    assert decoded.to_dict()["trace"] == {"a": [1, 2]}


NO_ENTRIES = [
    *(b"", b"{", b"[1]", b'"x"', b"null", b"{}", b"\xff{}", b"[" * 200_000),
    *(b'{"event_type":""}', b'{"event_type":3}', b'{"event_type":"X"} {}'),
]


@pytest.mark.parametrize("line", NO_ENTRIES, ids=lambda line: repr(line[:20]))
def test_line_that_is_no_entry_is_refused(line: bytes) -> None:
    """Torn, foreign and hostile lines are one error, not a crash of the reader."""
    with pytest.raises(InvalidEntryError):
        e.decode_entry(line)


@pytest.mark.parametrize(
    ("entry_id", "parts"),
    [
        ("k3v9q2m8x1-17", ("k3v9q2m8x1", 17)),
        ("k3v9q2m8x1-1", ("k3v9q2m8x1", 1)),
        ("k3v9q2m8x1-0", None),  # numbers begin at 1
        ("k3v9q2m8x1-017", None),  # one number has one form
        ("k3v9q2m8x-17", None),
        ("K3V9Q2M8X1-17", None),
        ("k3v9q2m8x1-17\n", None),
        ("k3v9q2m8x1-٣", None),
        ("shardId-000000000000:495903:0", None),
        ("", None),
    ],
)
def test_only_ids_of_our_writers_are_split(entry_id: str, parts: tuple[str, int] | None) -> None:
    """An id that merely looks alike must not count as a writer's number."""
    assert e.split_id(entry_id) == parts


def test_levels_rank_by_severity() -> None:
    """Any spelling ranks, and an unknown level counts as INFO."""
    assert [e.level_rank(level) for level in e.LEVELS] == [0, 1, 2, 3, 4]
    assert e.level_rank("warn") == e.level_rank("WARNING")
    assert e.level_rank("fatal") == e.level_rank("CRITICAL")
    assert e.level_rank("NOTICE") == e.level_rank("INFO")


def test_notice_is_an_entry_of_the_journal_itself() -> None:
    """The system's own words are entries like any other, and say who speaks."""
    line = e.notice("k3v9q2m8x1-1", "s", e.ENTRIES_DROPPED, 0, {"dropped": 3})
    spoken = e.decode_entry(line)
    assert (spoken.source, spoken.level, spoken.event_type) == ("journal", "WARNING", "ENTRIES_DROPPED")
    assert spoken.timestamp == "1970-01-01T00:00:00.000000Z"
    assert spoken.details == {"dropped": 3}


def test_resolved_details_show_in_the_dict() -> None:
    """Details that were fetched from a blob replace the reference that the line holds."""
    stored = e.decode_entry(b'{"event_type":"X","session_id":"s","details":{"$blob":"k"}}')
    resolved = msgspec.structs.replace(stored, details={"large": True})
    assert resolved.to_dict()["details"] == {"large": True}
