"""What bounds the MCP server's answers: frames, sizes, and the time of one call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError

from streamjournal.core.entry import decode_entry
from streamjournal.core.errors import StoreUnavailableError
from streamjournal.read.words import Missing
from streamjournal.views.mcp import server
from streamjournal.views.mcp.framing import (
    BEGIN,
    END,
    MAX_ENTRY_BYTES,
    Answer,
    entry_line,
    framed,
    missing_lines,
    plain,
    shown,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text() | st.just(END), values | st.just(END), max_size=4))
def test_no_content_leaves_the_frame(value: dict[str, Any]) -> None:
    """Whatever is in a line, it stays one line of the same JSON, without < and > and anything unseen."""
    line = shown(msgspec.json.encode(value))
    assert json.loads(line) == value
    assert line.isprintable()
    text = framed([line], {"cursor": END})
    assert (text.count("<"), text.count(">")) == (2, 2)
    assert text.splitlines()[1:4] == [BEGIN, line, END]


def test_what_is_missing_is_in_the_frame() -> None:
    """Reasons quote lines and services: they are bounded and escaped, each is told once, and not too many."""
    many = [Missing("line", f"{END}\u202e{'x' * 5_000}")] * 3 + [Missing("line", f"{n}") for n in range(99)]
    lines = missing_lines(many)
    assert len(lines) == 20
    assert all(len(line) < 1_000 and "<" not in line and line.isprintable() for line in lines)
    assert Answer(1).text(many, complete=False).count("<") == 2


@pytest.mark.parametrize("fill", ["x", "é", "\u202e", "\U000e0041", "<", '"', "\\"])
@pytest.mark.parametrize("where", ["details", "unknown", "event_type", "timestamp"])
def test_no_entry_is_too_long(fill: str, where: str) -> None:
    """Whatever makes an entry long, also a field that we do not know, it comes as JSON of a bounded size."""
    fields = {"event_type": "NOTE", "timestamp": "t", "details": {}} | {where: fill * 100_000}
    line = entry_line(decode_entry(msgspec.json.encode(fields), session_id="s"))
    assert len(line.encode()) <= MAX_ENTRY_BYTES
    found = json.loads(line)
    assert found["cut_from_bytes"] > 100_000
    assert found["event_type"] == (fill * 128 if where == "event_type" else "NOTE")


def test_errors_stay_outside() -> None:
    """An error's text is one line, bounded, and cannot look like a frame."""
    text = plain(f"{BEGIN}\nno\u2028{'y' * 9_000}")
    assert len(text) <= 2_000
    assert text.isprintable()
    assert "<" not in text


class Slow:
    """A journal that answers after an hour; of a read, `count` entries come at once."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.missing: list[Missing] = []
        self.cursor = "start"

    async def sessions(self, limit: int) -> None:
        await anyio.sleep(3_600)

    async def verify(self, session_id: str) -> None:
        await anyio.sleep(3_600)

    def read(self, session_id: str, **_: Any) -> Slow:
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        for n in range(self.count):
            self.cursor = f"after {n}"
            yield decode_entry(b'{"event_type":"NOTE"}', session_id="s")
        await anyio.sleep(3_600)


def in_virtual_time(tool: str, journal: Any, **arguments: Any) -> str:
    """A tool's answer, of a journal for which time passes at once."""

    async def main() -> str:
        answer = await getattr(server._Tools(journal), tool)(**arguments)
        assert anyio.current_time() < 60
        return answer

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("sessions", {}), ("verify", {"session_id": "s"}), ("latest", {"session_id": "s"})],
)
def test_a_call_does_not_take_for_ever(tool: str, arguments: dict[str, Any]) -> None:
    """What cannot be answered within a client's patience is an error that says so."""
    with pytest.raises(ToolError, match="longer than 45 s; instead: "):
        in_virtual_time(tool, Slow(), **arguments)


@pytest.mark.parametrize(("count", "cursor"), [(0, "start"), (3, "after 2")])
def test_a_long_read_comes_in_parts(count: int, cursor: str) -> None:
    """A read that takes long gives what it has, and where to go on."""
    facts = json.loads(in_virtual_time("read", Slow(count), session_id="s").splitlines()[-1])
    assert facts == {"entries": count, "more": True, "complete": True, "cursor": cursor}


def test_a_store_that_fails_half_way() -> None:
    """An error in the middle of a read is the tool's, with what to do."""

    class Failing(Slow):
        async def __aiter__(self) -> AsyncIterator[Any]:
            yield decode_entry(b'{"event_type":"NOTE"}', session_id="s")
            raise StoreUnavailableError("bucket journals: timed out")

    with pytest.raises(ToolError, match="bucket journals: timed out; try again later"):
        in_virtual_time("read", Failing(), session_id="s")


def test_an_unknown_session_on_a_stream_that_cannot_be_read() -> None:
    """Nothing found is not "no such session" while the stream is away."""

    class Away(Slow):
        async def __aiter__(self) -> AsyncIterator[Any]:
            self.missing.append(Missing("stream", "stream agents: no answer"))
            for _ in ():
                yield _

    with pytest.raises(ToolError, match="cannot be read now: stream agents: no answer"):
        in_virtual_time("read", Away(), session_id="s")
