"""docs/entry-format.md says what the code does: conversions, bounds, levels, notices, names."""

from __future__ import annotations

import enum
import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pytest

from streamjournal import Journal
from streamjournal.core import entry
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.store.meta import MAX_META_BYTES, Meta
from streamjournal.store.names import journal_key
from tests.docs.pages import ROOT, rows, section

PAGE = ROOT / "docs" / "entry-format.md"
CONVERSIONS = {row[0]: row[1] for row in rows(section(PAGE, "Values that are not JSON"))}


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int = 1


class Plain(msgspec.Struct):
    x: int = 1


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>" + "x" * 2_000


class Name:
    def __repr__(self) -> str:
        raise RuntimeError


class Pair(NamedTuple):
    a: int
    b: int


CYCLE: dict[str, Any] = {}
CYCLE["me"] = CYCLE


def nested(inside: Any, levels: int) -> Any:
    """`inside` in so many lists."""
    return inside if levels == 0 else [nested(inside, levels - 1)]


# The first cell of each row of the table -> values, and what they become.
EXAMPLES: dict[str, list[tuple[Any, Any]]] = {
    "`datetime`, `date`, `time`": [
        (datetime(2026, 11, 22, 13, tzinfo=UTC), "2026-11-22T13:00:00Z"),
        (datetime(2026, 11, 22, 13), "2026-11-22T13:00:00"),  # noqa: DTZ001 - a naive one, on purpose
        (date(2026, 11, 22), "2026-11-22"),
        (time(13), "13:00:00"),
    ],
    "`timedelta`": [(timedelta(seconds=90.5), "PT90.5S")],
    "`Decimal`, `UUID`": [
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    "`bytes`, `bytearray`, `memoryview`": [(kind(b"abc"), "YWJj") for kind in (bytes, bytearray, memoryview)],
    "enum": [(Colour.RED, "red")],
    "dataclass, `msgspec.Struct`": [(Point(), {"x": 1}), (Plain(), {"x": 1})],
    "tuple, named tuple, set, frozenset, deque, other sized iterables": [
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset({1}), [1]),
        (deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
    ],
    "NaN, infinity": [(float("nan"), None), (float("inf"), None), (float("-inf"), None)],
    "numpy scalar, array": [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.longdouble(1), "1.0"),
    ],
    "key that is no text": [({(1, 2): 0}, {"(1, 2)": 0}), ({None: 0}, {"None": 0}), ({1.5: 0}, {"1.5": 0})],
    "lone surrogate in text": [("a\ud800b", "a\ufffdb")],
    "object inside itself": [(CYCLE, {"me": "<cycle>"})],
    "nesting deeper than 64 (only where the value needs converting at all)": [
        (nested(Opaque(), 70), nested("<too deep>", 64)),  # the details themselves are one level more
    ],
    "integer beyond 64 bits": [(2**70, 2**70), ([2**70, Path("/a")], [str(2**70), "/a"])],
    "exception": [(ValueError("its text"), "ValueError: its text")],
    "path": [(Path("/a/b"), "/a/b")],
    "anything else": [(Opaque(), repr(Opaque())[:1_000])],
    "a value whose own code raises": [(Name(), "<Name that cannot be converted: RuntimeError>")],
}


def test_every_conversion_has_an_example() -> None:
    """The table has the rows that are tried out below, and no other."""
    assert list(CONVERSIONS) == list(EXAMPLES)


@pytest.mark.parametrize("row", EXAMPLES)
def test_conversions(row: str) -> None:
    """Each kind of value becomes what the table says."""
    with Journal(spool="off") as journal:
        for value, _ in EXAMPLES[row]:
            journal.emit("NOTE", session_id="s", details={"value": value})
        found = [one.details["value"] for one in journal.read("s")]
    assert found == [expected for _, expected in EXAMPLES[row]]


def test_details_that_are_no_mapping() -> None:
    """They become {"value": …}, and none become {}."""
    with Journal(spool="off") as journal:
        for details in ([1], "text", None):
            journal.emit("NOTE", session_id="s", details=details)
        assert [one.details for one in journal.read("s")] == [{"value": [1]}, {"value": "text"}, {}]


def test_bounds() -> None:
    """The fields' bounds are those of the code."""
    told = {row[0]: row[2] for row in rows(section(PAGE, "Fields")) if len(row) == 4}
    assert told["`timestamp`"] == f"{entry.MAX_TIMESTAMP_BYTES} bytes"
    assert told["`session_id`"].startswith(f"1 to {entry.MAX_SESSION_ID_BYTES} UTF-8 bytes")
    assert told["`event_type`"].startswith(f"1 to {entry.MAX_NAME_BYTES} UTF-8 bytes")
    assert told["`tool_name`"].startswith(f"{entry.MAX_NAME_BYTES} UTF-8 bytes")
    assert told["`level`"].startswith(f"1 to {entry.MAX_LEVEL_BYTES} UTF-8 bytes")


def test_fields() -> None:
    """The two tables have an entry's fields, each once; the example has fields of the tables only."""
    told = [name.strip("` ") for row in rows(section(PAGE, "Fields")) for name in row[0].split(",")]
    assert sorted(told) == sorted(entry.Draft.__struct_fields__)
    example = json.loads(PAGE.read_text().partition("```json\n")[2].partition("```")[0])
    assert set(example) <= set(told)


def test_levels() -> None:
    """The levels and their other names rank as the page says."""
    text = section(PAGE, "Levels")
    assert " < ".join(f"`{level}`" for level in entry.LEVELS) in text
    for other, level in (("TRACE", "DEBUG"), ("WARN", "WARNING"), ("FATAL", "CRITICAL"), ("MINE", "INFO")):
        assert entry.level_rank(other) == entry.level_rank(level)


def test_notices() -> None:
    """The table of notices has those that the code writes."""
    told = [row[0].strip("`") for row in rows(section(PAGE, "Notices"))]
    assert told == [entry.ENTRIES_DROPPED, entry.ENTRIES_TRIMMED, entry.JOURNAL_RESTARTED]


def test_metadata() -> None:
    """The table of the metadata has the keys that a commit writes, and the bound is the code's."""
    meta = Meta("g", "c", Position("s", "a", "1"), WriterNumbers(), Summary(), crc=0)
    told = [row[0].strip("`") for row in rows(section(PAGE, "Metadata"))]
    assert sorted(told) == sorted(meta.encode())
    assert f"at most {MAX_META_BYTES:,} bytes" in section(PAGE, "Metadata")


def test_object_names() -> None:
    """The example of a name is the name that the code makes."""
    text = section(PAGE, "Object names")
    assert f"`swe-agent/astropy-12907` is `{journal_key('journals/', 'swe-agent/astropy-12907')}`" in text
