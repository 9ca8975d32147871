"""Lines that somebody else wrote become entries, and keep what they said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.core.entry import decode_entry
from streamjournal.core.errors import InvalidEntryError
from streamjournal.core.foreign import Foreign

NOW = "2026-11-22T13:12:01.000000Z"


def become(line: bytes | str, *, session_id: str | None = None) -> dict[str, Any]:
    """The entry that a line becomes, as a dict in the order of its fields."""
    raw = line.encode() if isinstance(line, str) else line
    made = Foreign(raw, session_id=session_id).line("w-1", timestamp=NOW)
    assert b"\n" not in made
    result: dict[str, Any] = json.loads(made)
    return result


def test_bare_line_gains_what_the_contract_writes() -> None:
    """A session and an event are enough; the rest gets its defaults, in the contract's order."""
    assert list(become('{"event_type":"X","session_id":"s"}').items()) == [
        ("id", "w-1"),
        ("timestamp", NOW),
        ("session_id", "s"),
        ("event_type", "X"),
        ("tool_name", None),
        ("level", "INFO"),
        ("details", {}),
    ]


def test_own_timestamp_is_kept_character_for_character() -> None:
    """Whatever its form, it is the writer's business."""
    for timestamp in ("2026-11-22T13:12:01.123456789+05:30", "22/Nov/2026", "1763817121"):
        line = f'{{"timestamp":"{timestamp}","event_type":"X","session_id":"s"}}'
        assert become(line)["timestamp"] == timestamp


def test_own_id_moves_to_source_id() -> None:
    """Only ids of ours are known to be unique; theirs is kept beside, whatever type it has."""
    for own in ('"abc"', "17", '{"a":1}'):
        entry = become(f'{{"id":{own},"event_type":"X","session_id":"s"}}')
        assert (entry["id"], entry["source_id"]) == ("w-1", json.loads(own))
    assert "source_id" not in become('{"id":null,"event_type":"X","session_id":"s"}')


def test_digits_and_unknown_fields_survive() -> None:
    """Numbers keep their digits, and fields that we do not know their place in the line."""
    details = b'{"n":1E5,"big":123456789012345678901234567890}'
    line = b'{"cost":0.10,"event_type":"X","session_id":"s","details":' + details + b"}"
    made = Foreign(line).line("w-1", timestamp=NOW)
    assert b'"cost":0.10' in made
    assert details in made


@pytest.mark.parametrize("name", ["timestamp", "session_id", "tool_name", "level", "details", "id"])
def test_null_is_absence(name: str) -> None:
    """A field that is null reads as one that is not there; the session is then the caller's."""
    given_null = become(f'{{"{name}":null,"event_type":"X"}}', session_id="s")
    assert given_null == become('{"event_type":"X"}', session_id="s")


def test_the_lines_own_session_wins() -> None:
    """The caller's session is for lines that do not say theirs."""
    assert become('{"event_type":"X","session_id":"own"}', session_id="other")["session_id"] == "own"


@pytest.mark.parametrize(
    ("details", "kept"),
    [('"text"', {"value": "text"}), ("[1]", {"value": [1]}), ("7", {"value": 7}), ("{}", {})],
)
def test_details_become_an_object(details: str, kept: dict[str, Any]) -> None:
    """Readers count on an object."""
    assert become(f'{{"event_type":"X","session_id":"s","details":{details}}}')["details"] == kept


def test_line_over_several_lines_becomes_one() -> None:
    """A pretty-printed producer must not tear the journal."""
    pretty = json.dumps(
        {"event_type": "X", "session_id": "s", "details": {"a": [1, {"b": "x\ny"}]}}, indent=2
    )
    for text in (pretty, pretty.replace("\n", "\r\n")):
        assert become(text)["details"] == {"a": [1, {"b": "x\ny"}]}


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ('{"t":"\\ud800"}', {"t": "\ufffd"}),
        ('{"n":NaN,"i":-Infinity,"h":1e400}', {"n": None, "i": None, "h": None}),
    ],
)
def test_json_of_looser_writers_is_repaired(details: str, kept: dict[str, Any]) -> None:
    """Python's own json writes NaN and lone surrogates; the entry is not lost for it."""
    assert become(f'{{"event_type":"X","session_id":"s","details":{details}}}')["details"] == kept


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"", "entry"),
        (b"{", "entry"),
        (b"not json", "entry"),
        (b"[1]", "entry"),
        (b"NaN", "entry"),
        (b"\xff\xfe", "entry"),
        (b"[" * 200_000, "entry"),
        (b'{"session_id":"s"}', "event_type"),
        (b'{"session_id":"s","event_type":""}', "event_type"),
        (b'{"session_id":"s","event_type":7}', "event_type"),
        (b'{"event_type":"X"}', "session_id"),
        (b'{"event_type":"X","session_id":""}', "session_id"),
        (b'{"event_type":"X","session_id":"s","level":3}', "level"),
        (b'{"event_type":"X","session_id":"s","timestamp":1763817121}', "timestamp"),
        (b'{"event_type":"X","session_id":"s","tool_name":["t"]}', "tool_name"),
    ],
)
def test_line_that_cannot_be_an_entry_says_why(line: bytes, field: str) -> None:
    """The error names the field; nothing half-right gets through."""
    with pytest.raises(InvalidEntryError) as refused:
        Foreign(line)
    assert refused.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text() | st.sampled_from(["id", "details", "level", "tool_name"]), json_values))
def test_any_object_is_an_entry_or_refused(fields: dict[str, Any]) -> None:
    """What Python's json can write is either taken, and then reads back, or refused in our words."""
    line = json.dumps(fields | {"event_type": "X", "session_id": "s"}).encode()
    try:
        made = Foreign(line).line("w-1", timestamp=NOW)
    except InvalidEntryError:
        assert {"level", "timestamp", "tool_name"} & fields.keys()  # the only ones that have bounds here
        return
    read = decode_entry(made)
    assert (read.id, read.session_id, read.event_type) == ("w-1", "s", "X")
    assert isinstance(read.details, dict)
