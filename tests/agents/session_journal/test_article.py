"""What an agent's owner has who wrote it for the one-file journal: only the import is another.

The logic is that of the article's listings, written anew: tools that write as they go, sandboxed code
whose output holds entries, and a later tool that reads what an earlier one left.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

from strands import Agent, tool

from streamjournal.agents.session_journal import (
    extract_journal_entries,
    read_journal,
    setup_journal_bucket,
    write_journal_entry,
    write_journal_entry_with_retry,
)
from tests.agents.strands.scripted import agent, call, say

SESSION = "workflow_a3b2"

SANDBOXED = """
import json

def journal(event_type, details):
    print("===JOURNAL_ENTRY===")
    print(json.dumps({"event_type": event_type, "tool_name": "code_interpreter", "details": details}))
    print("===JOURNAL_END===")

print("loading")
journal("DATA_LOADED", {"rows": 1000, "columns": 12})
journal("STEP", "dropped the empty columns")
print("===JOURNAL_ENTRY===")
print(json.dumps({"details": {"score": 0.93}}))
print("===JOURNAL_END===")
print("done")
"""


def run_in_sandbox(code: str) -> str:
    """Stands for the code interpreter: gives what the code printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


def run_eda(session_id: str, path: str) -> str:
    """A tool that runs code in a sandbox and journals what that said."""
    write_journal_entry(session_id, "TOOL_START", "run_eda", {"path": path})
    output = run_in_sandbox(SANDBOXED)
    for entry in extract_journal_entries(output):
        answer = json.loads(write_journal_entry(session_id, **entry))
        assert answer["status"] == "success"
    write_journal_entry(session_id, "TOOL_END", "run_eda", "finished")
    return output


def start_training(session_id: str, epochs: int) -> str:
    """A tool that starts a job, and writes an entry for each step of it."""
    write_journal_entry_with_retry(session_id, "TRAINING_STARTED", "start_training", {"job": "job-1"})
    for epoch in range(epochs):
        write_journal_entry(session_id, "EPOCH", "start_training", {"epoch": epoch, "loss": 1 / (epoch + 1)})
    answer = json.loads(
        write_journal_entry(session_id, "TRAINING_FINISHED", "start_training", {"job": "job-1"})
    )
    return f"{answer['entry_count']} entries at {answer['s3_path']}"


def check_status(session_id: str) -> dict[str, Any]:
    """A tool that knows nothing of the others but the journal."""
    found = json.loads(read_journal(session_id, filter_event_type="TRAINING_FINISHED"))
    if found["status"] == "not_found" or not found["entries"]:
        return {"running": True}
    last = found["entries"][-1]
    return {"running": False, "job": last["details"]["job"], "at": last["timestamp"]}


def test_the_article_as_plain_functions() -> None:
    """Set up, run, loop, extract, read back with a filter."""
    assert json.loads(setup_journal_bucket())["status"] == "success"
    assert json.loads(read_journal(SESSION))["status"] == "not_found"
    output = run_eda(SESSION, "s3://b/data.csv")
    assert output.startswith("loading")
    assert check_status(SESSION) == {"running": True}
    assert start_training(SESSION, epochs=3).startswith("10 entries at file://")
    assert check_status(SESSION)["job"] == "job-1"

    entries = json.loads(read_journal(SESSION))["entries"]
    assert [(e["event_type"], e["tool_name"]) for e in entries] == [
        ("TOOL_START", "run_eda"),
        ("DATA_LOADED", "code_interpreter"),
        ("STEP", "code_interpreter"),
        ("CODE_INTERPRETER_EVENT", ""),
        ("TOOL_END", "run_eda"),
        ("TRAINING_STARTED", "start_training"),
        *[("EPOCH", "start_training")] * 3,
        ("TRAINING_FINISHED", "start_training"),
    ]
    assert entries[2]["details"] == {"value": "dropped the empty columns"}
    epochs = json.loads(read_journal(SESSION, filter_event_type="EPOCH"))
    assert [e["details"]["epoch"] for e in epochs["entries"]] == [0, 1, 2]


def test_the_functions_as_strands_tools() -> None:
    """The names that were imported are given to an Agent as they are, and its model calls them."""
    bot = agent(
        call(
            (
                "t1",
                "write_journal_entry",
                {"session_id": SESSION, "event_type": "DECISION", "details": {"drop": "a"}},
            )
        ),
        call(("t2", "read_journal", {"session_id": SESSION})),
        say("done"),
        tools=[write_journal_entry, read_journal, write_journal_entry_with_retry, tool(check_status)],
    )
    assert isinstance(bot, Agent)
    bot("go")
    results = [
        json.loads(block["toolResult"]["content"][0]["text"])
        for message in bot.messages
        for block in message["content"]
        if "toolResult" in block
    ]
    assert [result["entry_count"] for result in results] == [1, 1]
    assert results[1]["entries"][0]["details"] == {"drop": "a"}


def test_the_functions_in_tools_of_ones_own() -> None:
    """A `@tool` of the agent's owner calls them as functions, and may pass one on as a tool."""

    @tool
    def load(path: str) -> str:
        """Load, and say so in the journal."""
        return write_journal_entry(SESSION, "DATA_LOADED", "load", {"path": path})

    bot = agent(call(("t1", "load", {"path": "a"})), say("ok"), tools=[load, write_journal_entry])
    bot("go")
    assert json.loads(read_journal(SESSION, "DATA_LOADED"))["entry_count"] == 1
    direct = bot.tool.write_journal_entry(session_id=SESSION, event_type="DIRECT")
    assert json.loads(direct["content"][0]["text"])["entry_count"] == 2
