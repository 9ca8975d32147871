"""Entries of sandboxed code in the journal: whose they are is the host's to say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamjournal import Journal
from streamjournal.agents.markers import markers
from streamjournal.agents.sandbox_entries import SandboxOutput, host_view
from streamjournal.core.entry import Entry


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(home=tmp_path) as journal:
        yield journal


def block(entry: Any, nonce: str | None = None) -> bytes:
    begin, end = markers(nonce)
    text = entry if isinstance(entry, str) else json.dumps(entry)
    return f"{begin}\n{text}\n{end}\n".encode()


def run(journal: Journal, *printed: Any) -> list[Entry]:
    """The entries of a run that printed some blocks."""
    output = SandboxOutput(journal.session("s"), tool_name="run_python")
    assert output.feed(b"".join(map(block, printed))) == b"" or output.malformed
    output.finish()
    return journal.read("s").all()


def test_an_entry_is_the_hosts_sessions_and_its_tools(journal: Journal) -> None:
    """Session, tool, span, time and source are the host's; what the sandbox says of them is kept beside."""
    session = journal.session("s")
    with session.tool("run_python") as span:
        output = SandboxOutput(session, span=span)
        printed = {
            "id": "aaaaaaaaaa-1",
            "timestamp": "1999-01-01T00:00:00Z",
            "session_id": "another",
            "tool_name": "another",
            "source": "agent",
            "span_id": "1234",
            "event_type": "DATA_LOADED",
            "level": "DEBUG",
            "details": {"rows": 3},
            "more": [1],
        }
        assert output.feed(b"a\n" + block(printed) + b"b") == b"a\nb"
    entry = session.read(event_types="DATA_LOADED").all()[0]
    assert (entry.session_id, entry.tool_name, entry.source) == ("s", "run_python", "sandbox")
    assert (entry.span_id, entry.parent_id, entry.level) == (span.id, span.parent_id, "DEBUG")
    assert entry.id != "aaaaaaaaaa-1"
    assert entry.timestamp > "2000"
    said = {name: printed[name] for name in printed if name not in ("event_type", "level", "details")}
    assert entry.details == {"rows": 3, "$sandbox": said}
    assert journal.read("another").all() == []


@pytest.mark.parametrize(
    "event_type",
    ["TOOL_START", "TOOL_END", "TOOL_ERROR", "tool_end", " TOOL_END", "SESSION_START", "SESSION_END",
     "ENTRIES_DROPPED", "ENTRIES_TRIMMED", "JOURNAL_RESTARTED", "SANDBOX_ENTRY", "SANDBOX_MALFORMED"],
)  # fmt: skip
def test_an_entry_that_poses_as_the_hosts_is_kept_under_another_name(
    journal: Journal, event_type: str
) -> None:
    """A sandbox cannot end its own tool, nor the session, nor speak as the journal."""
    printed = {"event_type": event_type, "level": "INFO", "details": {"result": "fine"}}
    (entry,) = run(journal, printed)
    assert (entry.event_type, entry.level, entry.source) == ("SANDBOX_ENTRY", "WARNING", "sandbox")
    assert entry.details == {"printed": printed}


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ({}, ("CODE_INTERPRETER_EVENT", {}, "INFO")),
        ({"details": None}, ("CODE_INTERPRETER_EVENT", {}, "INFO")),
        ({"event_type": "A", "details": "text"}, ("A", {"value": "text"}, "INFO")),
        ({"event_type": "A", "details": [1]}, ("A", {"value": [1]}, "INFO")),
        ({"event_type": "A", "rows": 1}, ("A", {"$sandbox": {"rows": 1}}, "INFO")),
        ({"event_type": 7}, ("CODE_INTERPRETER_EVENT", {"$sandbox": {"event_type": 7}}, "INFO")),
        ({"event_type": "a\nb"}, ("CODE_INTERPRETER_EVENT", {"$sandbox": {"event_type": "a\nb"}}, "INFO")),
        ({"event_type": "A", "level": []}, ("A", {"$sandbox": {"level": []}}, "INFO")),
        ({"event_type": "A", "level": "ERROR"}, ("A", {}, "ERROR")),
        (
            {"event_type": "A", "x": 1, "details": {"$sandbox": 2}},
            ("A", {"$sandbox": {"x": 1, "$sandbox": 2}}, "INFO"),
        ),
        (
            {"event_type": "A", "details": {"$blob": "k", "bytes": 1, "sha256": "0"}},
            ("A", {"value": {"$blob": "k", "bytes": 1, "sha256": "0"}}, "INFO"),
        ),
    ],
)
def test_what_does_not_fit_the_envelope_is_kept_in_the_details(
    printed: dict[str, Any], expected: tuple[str, Any, str]
) -> None:
    """Nothing that was printed is lost, and nothing of it is refused."""
    assert host_view(printed) == expected


def test_malformed_blocks_are_reported_once_at_the_end(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """One entry with the count, and reason and start of the first ten; with the blocks beyond the bound."""
    output = SandboxOutput(journal.session("s"), tool_name="run_python", max_entries=1)
    bad = [block(f"oops {n}") for n in range(12)]
    given = output.feed(b"".join(bad)) + output.feed(block({"n": 1}) * 3) + output.finish()
    assert given == b"".join(bad) + block({"n": 1}) * 2
    assert output.finish() == b""
    assert caplog.text.count("more than 1 entries; the rest stays in its output") == 1
    taken, report = journal.read("s").all()
    assert taken.event_type == "CODE_INTERPRETER_EVENT"
    assert (report.event_type, report.level, report.source) == ("SANDBOX_MALFORMED", "WARNING", "agent")
    assert report.tool_name == "run_python"
    assert (report.details["malformed"], report.details["beyond_limit"]) == (12, 2)
    assert [example["start"] for example in report.details["examples"]] == [f"oops {n}" for n in range(10)]
    assert "no JSON" in report.details["examples"][0]["reason"]


def test_secrets_that_a_sandbox_prints_are_taken_out(journal: Journal) -> None:
    """Its entries go the way of all entries."""
    (entry,) = run(journal, {"event_type": "A", "details": {"password": "hunter2"}})
    assert entry.details["password"] == "<redacted>"


def test_a_journal_that_takes_nothing_does_not_end_the_run(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """The output goes on, and the log says what is missing."""
    output = SandboxOutput(journal.session("s"))
    journal.close()
    assert output.feed(b"a\n" + block({"event_type": "A"}) + b"b\n") == b"a\nb\n"
    assert "A from a sandbox is not in the journal" in caplog.text


def test_text_comes_as_text(journal: Journal) -> None:
    """Characters that are no UTF-8 stay as they are."""
    output = SandboxOutput(journal.session("s"), nonce="n")
    text = "é\udc80===JOURNAL_ENTRY"
    assert output.feed_text(text + ":n") == "é\udc80"
    assert output.holds
    assert output.finish_text() == "===JOURNAL_ENTRY:n"
