"""Results of a code interpreter, in forms that a real one does not always give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamjournal import Journal
from streamjournal.agents.code_results import CodeResults
from streamjournal.agents.markers import BEGIN, END
from streamjournal.agents.sandbox_entries import SandboxOutput


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(home=tmp_path) as journal:
        yield journal


def read(journal: Journal, *results: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a call that the service answers with some results."""
    session = journal.session("s")
    span = session.tool("executeCode")
    span.start()
    output = SandboxOutput(session, span=span)
    stream = ({"result": result} for result in results)
    return list(CodeResults(stream, span, output, None, on_end=lambda _: None))


def of(kind: str, text: str) -> dict[str, Any]:
    if kind == "text":
        return {"content": [{"type": "text", "text": text}]}
    return {"structuredContent": {kind: text}}


def both(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Stdout and the text of events."""
    results = [event["result"] for event in events]
    return (
        "".join(result.get("structuredContent", {}).get("stdout", "") for result in results),
        "".join(block.get("text", "") for result in results for block in result.get("content", ())),
    )


@pytest.mark.parametrize(
    "last", [of("stdout", "b"), {"content": [{"type": "image", "data": b"x"}]}, {"content": []}, {}]
)
def test_what_is_held_back_at_the_end_is_given(journal: Journal, last: dict[str, Any]) -> None:
    """Also where the last event has no text of its own."""
    events = read(journal, of("text", "a==="), last)
    assert both(events)[1] == "a==="
    assert len(events) == 2


def test_an_entry_in_text_and_stdout_counts_once(journal: Journal) -> None:
    """And is taken out of both, wherever each is cut."""
    block = f'{BEGIN}\n{{"event_type":"A"}}\n{END}\n'
    first = {**of("stdout", "x" + block[:20]), **of("text", "x" + block[:40])}
    second = {**of("stdout", block[20:] + "y"), **of("text", block[40:] + "y")}
    assert both(read(journal, first, second)) == ("xy", "xy")
    assert [one.event_type for one in journal.read("s")] == ["TOOL_START", "A", "TOOL_END"]


def test_what_came_before_an_exception_is_given_before_it_is_raised(journal: Journal) -> None:
    """Output that was held back is not lost with the stream."""
    session = journal.session("s")
    span = session.tool("executeCode")
    span.start()

    def stream() -> Iterator[dict[str, Any]]:
        yield {"result": of("stdout", "a===")}
        raise ConnectionError("gone")

    results = CodeResults(stream(), span, SandboxOutput(session, span=span), None, on_end=lambda _: None)
    assert both([next(results)]) == ("a===", "")
    with pytest.raises(ConnectionError, match="gone"):
        next(results)
    assert [one.event_type for one in journal.read("s")] == ["TOOL_START", "TOOL_ERROR"]


def test_long_output_is_shown_in_part(journal: Journal) -> None:
    """The journal has its start; the caller all of it."""
    assert both(read(journal, *[of("stdout", "x" * 5000)] * 4))[0] == "x" * 20_000
    end = journal.read("s").all()[-1]
    assert end.details["result"]["stdout"] == "x" * 8000
