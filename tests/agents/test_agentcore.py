"""Sessions of the AgentCore code interpreter, against a stand-in of its API that runs the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamjournal import Journal
from streamjournal.agents.markers import BEGIN, END
from streamjournal.agents.preamble import with_preamble
from streamjournal.core.entry import Entry
from tests.agents.code_interpreter_server import SANDBOX_ID, Server, serving
from tests.docs.pages import ROOT, blocks, printed_by

# The SDK's own: it imports pydantic models of an older form.
pytestmark = pytest.mark.filterwarnings("ignore:Support for class-based `config` is deprecated")

REGION = "us-west-2"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        for name, value in {
            "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(home=tmp_path) as journal:
        yield journal


def code_session(journal: Journal, **options: Any) -> Any:
    from streamjournal.agents.agentcore import journaled_code_session

    return journaled_code_session(REGION, journal, "s", **options)


def entries(journal: Journal) -> list[Entry]:
    return journal.read("s").all()


def events(journal: Journal) -> list[str]:
    return [entry.event_type for entry in entries(journal)]


def stdout(response: dict[str, Any]) -> str:
    """What the code printed, put together from the structured content."""
    return "".join(event["result"]["structuredContent"]["stdout"] for event in response["stream"])


def text(response: dict[str, Any]) -> str:
    """What the model gets."""
    return "".join(block["text"] for event in response["stream"] for block in event["result"]["content"])


PRINTS = f"""
import json
print("before")
for n in range(3):
    print({BEGIN!r}, json.dumps({{"event_type": "STEP", "details": {{"n": n}}}}), {END!r}, sep="\\n")
print("after \\u00e9")
"""


@pytest.mark.parametrize("piece", [0, 1, 7, 30])
@pytest.mark.parametrize("structured", [True, False])
def test_code_is_a_tools_call_with_its_entries(
    journal: Journal, server: Server, piece: int, structured: bool
) -> None:
    """However the service cuts the output into events, and with or without structured content."""
    server.piece, server.structured = piece, structured
    with code_session(journal) as client:
        response = client.execute_code(PRINTS)
        output = stdout(response) if structured else text(response)
    assert output == "before\nafter é\n"
    found = entries(journal)
    assert [one.event_type for one in found] == [
        "SANDBOX_STARTED", "TOOL_START", "STEP", "STEP", "STEP", "TOOL_END", "SANDBOX_STOPPED",
    ]  # fmt: skip
    _, start, *steps, end, _ = found
    assert [step.details["n"] for step in steps] == [0, 1, 2]
    assert {step.source for step in steps} == {"sandbox"}
    assert {one.tool_name for one in (start, *steps, end)} == {"executeCode"}
    assert {one.span_id for one in (start, *steps, end)} == {start.span_id}
    assert start.details["sandbox_id"] == SANDBOX_ID
    assert start.details["arguments"]["code"] == PRINTS
    assert end.details["entries"] == 3
    if structured:
        assert end.details["result"]["stdout"] == "before\nafter é\n"
        assert end.details["exit_code"] == 0
        assert end.details["execution_ms"] > 0


def test_the_text_for_the_model_has_no_entries_either(journal: Journal, server: Server) -> None:
    """It says what stdout says; an entry in both counts once."""
    server.piece = 11
    with code_session(journal) as client:
        assert text(client.execute_code(PRINTS)) == "before\nafter é\n"
    assert events(journal).count("STEP") == 3


def test_results_come_as_they_arrive(journal: Journal, server: Server) -> None:
    """An entry is in the journal while later events have not been read."""
    server.piece = 20
    with code_session(journal) as client:
        stream = client.execute_code(f"print('{BEGIN}{{}}{END}'); print('x' * 200)")["stream"]
        seen = ""
        while "x" not in seen:
            seen += next(stream)["result"]["structuredContent"]["stdout"]
        assert events(journal) == ["SANDBOX_STARTED", "TOOL_START", "CODE_INTERPRETER_EVENT"]
        seen += "".join(event["result"]["structuredContent"]["stdout"] for event in stream)
        assert events(journal)[-1] == "TOOL_END"
    assert seen == "x" * 200 + "\n"


def test_both_session_ids_and_the_timeout_are_kept(journal: Journal, server: Server) -> None:
    """The sandbox's own, and that of the AgentCore runtime that the agent runs in."""
    from bedrock_agentcore.runtime.context import BedrockAgentCoreContext

    runtime = "9c8b1f2e-5a64-4e0f-9d4b-3f1f2a7c6d55"
    BedrockAgentCoreContext.set_request_context("request", runtime)
    try:
        with code_session(journal, timeout=60):
            pass
    finally:
        BedrockAgentCoreContext.set_request_context("request", None)
    started, stopped = entries(journal)
    assert started.details == {
        "sandbox_id": SANDBOX_ID,
        "identifier": "aws.codeinterpreter.v1",
        "region": REGION,
        "timeout_seconds": 60,
        "runtime_session_id": runtime,
    }
    assert stopped.details["sandbox_id"] == SANDBOX_ID
    assert stopped.details["duration_ms"] > 0
    assert server.calls == ["start 60", "stop"]


def test_code_that_fails_is_a_tool_error(journal: Journal, server: Server) -> None:
    """The service gives it as a result, and so does the client; the journal says what it was."""
    with code_session(journal) as client:
        list(client.execute_code("print('so far'); raise ValueError('no such column')")["stream"])
    error = entries(journal)[2]
    assert (error.event_type, error.level) == ("TOOL_ERROR", "ERROR")
    assert error.details["error"]["message"] == "ValueError: no such column"
    assert error.details["exit_code"] == 1
    assert error.details["output"]["stdout"] == "so far\n"


def test_other_operations_are_tool_calls_too(journal: Journal, server: Server) -> None:
    """Files are data: markers in them make no entries, and what is read is as it was written."""
    block = f'{BEGIN}\n{{"event_type":"A"}}\n{END}\n'
    with code_session(journal) as client:
        client.upload_file("a.txt", block)
        assert client.download_file("a.txt") == block
        assert stdout(client.execute_command("echo hello")) == "hello\n"
    calls = [(one.event_type, one.tool_name) for one in entries(journal)[1:-1]]
    assert calls == [
        (event, tool)
        for tool in ("writeFiles", "readFiles", "executeCommand")
        for event in ("TOOL_START", "TOOL_END")
    ]


def test_results_that_nobody_reads_are_journaled(journal: Journal, server: Server) -> None:
    """Before the next operation, and at the end of the session; they can still be read then."""
    with code_session(journal) as client:
        first = client.execute_code(PRINTS)
        client.execute_code(PRINTS)
        assert events(journal)[1:] == ["TOOL_START", *["STEP"] * 3, "TOOL_END", "TOOL_START"]
        assert stdout(first) == "before\nafter é\n"
    assert events(journal)[-5:] == [*["STEP"] * 3, "TOOL_END", "SANDBOX_STOPPED"]


def test_output_that_ends_within_a_block_is_whole(journal: Journal, server: Server) -> None:
    """What was held back is in the last event, and the report in the journal."""
    server.piece = 6
    output = f"a\n{BEGIN}\n{{\n"
    with code_session(journal) as client:
        assert stdout(client.execute_code(f"print({output!r}, end='')")) == output
        assert text(client.execute_code(f"print({output!r}, end='')")) == output
    report = entries(journal)[2]
    assert (report.event_type, report.details["malformed"]) == ("SANDBOX_MALFORMED", 1)


def test_with_a_nonce_the_preambles_entries_count_and_no_others(journal: Journal, server: Server) -> None:
    """Plain markers are output then."""
    plain = f'{BEGIN}{{"event_type":"PLAIN"}}{END}'
    with code_session(journal, nonce="n1") as client:
        code = with_preamble(f"print({plain!r}); journal('MINE', n=1)", "n1")
        assert stdout(client.execute_code(code)) == plain + "\n"
    assert [one for one in events(journal) if one in ("MINE", "PLAIN")] == ["MINE"]


def test_a_nonce_that_cannot_be_one_starts_nothing(journal: Journal, server: Server) -> None:
    """It is told before there is a sandbox to pay for."""
    with pytest.raises(ValueError, match="nonce"), code_session(journal, nonce="a b"):
        raise AssertionError
    assert server.calls == []


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("throttle", "ThrottlingException", "slow down"),
        ("exception", "EventStreamError", "the sandbox died"),
        ("break", "ProtocolError", "ended prematurely"),
    ],
)
def test_what_the_service_raises_goes_on_and_is_a_tool_error(
    journal: Journal, server: Server, fault: str, kind: str, message: str
) -> None:
    """Refused calls, exceptions in the stream, streams that break; the sandbox is stopped all the same."""
    with pytest.raises(Exception, match=message) as caught, code_session(journal) as client:  # noqa: PT012
        server.fault = fault
        list(client.execute_code(PRINTS)["stream"])
    assert type(caught.value).__name__ == kind
    assert server.running == set()
    assert events(journal)[-2:] == ["TOOL_ERROR", "SANDBOX_STOPPED"]
    error = entries(journal)[-2].details["error"]
    assert error["type"] == kind
    assert message in error["message"]
    if fault != "throttle":  # what came before the fault counts
        assert events(journal).count("STEP") == 3


def test_an_answer_without_a_result_is_a_tool_error(journal: Journal, server: Server) -> None:
    """A stream that ends well, and said nothing."""
    server.fault = "empty"
    with code_session(journal) as client:
        assert list(client.execute_code("pass")["stream"]) == []
    assert "without a result" in entries(journal)[2].details["error"]["message"]


@pytest.mark.chaos
def test_a_service_that_stops_answering_is_a_timeout(journal: Journal, server: Server) -> None:
    """The SDK's read timeout goes on, and the call is over in the journal."""
    import boto3
    from botocore.config import Config

    with pytest.raises(Exception, match="timed out"), code_session(journal) as client:  # noqa: PT012
        config = Config(read_timeout=0.3, retries={"total_max_attempts": 1})
        client.data_plane_client = boto3.client("bedrock-agentcore", region_name=REGION, config=config)
        server.fault = "stall"
        list(client.execute_code(PRINTS)["stream"])
    assert events(journal)[-2:] == ["TOOL_ERROR", "SANDBOX_STOPPED"]


def test_a_sandbox_that_cannot_be_started(journal: Journal, server: Server) -> None:
    """The SDK's exception goes on, and the journal has it."""
    server.fault = "no-start"
    with pytest.raises(Exception, match="not allowed to start"), code_session(journal):
        raise AssertionError
    (failed,) = entries(journal)
    assert (failed.event_type, failed.level) == ("SANDBOX_START_FAILED", "ERROR")
    assert failed.details["error"]["type"] == "AccessDeniedException"


def test_a_stop_that_fails_does_not_hide_what_went_wrong(journal: Journal, server: Server) -> None:
    """The block's exception goes on; without one, the stop's does."""
    server.fault = "no-stop"
    with pytest.raises(RuntimeError, match="the block's"), code_session(journal):
        raise RuntimeError("the block's")
    with pytest.raises(Exception, match="cannot stop"), code_session(journal):
        pass
    assert events(journal) == ["SANDBOX_STARTED", "SANDBOX_STOP_FAILED"] * 2
    assert entries(journal)[1].level == "WARNING"


def test_a_block_that_is_left_ends_its_calls(journal: Journal, server: Server) -> None:
    """Results that were not read to their end are not waited for, but their call ends."""
    server.piece = 5
    with pytest.raises(KeyboardInterrupt), code_session(journal) as client:  # noqa: PT012
        stream = client.execute_code(PRINTS)["stream"]
        next(stream)
        raise KeyboardInterrupt
    end = entries(journal)[-2]
    assert (end.event_type, end.details["closed"]) == ("TOOL_END", True)


def test_a_closed_journal_does_not_end_the_sandboxs_work(journal: Journal, server: Server) -> None:
    """Code runs and its output comes, with warnings in the log."""
    with code_session(journal) as client:
        journal.close()
        assert stdout(client.execute_code(PRINTS)) == "before\nafter é\n"


def test_the_page_runs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/agentcore.md, against the stand-in."""
    (code,) = (block for block in blocks(ROOT / "docs" / "agentcore.md") if block.kind == "python")
    exec(compile(code.text, code.name, "exec"), {})
    assert capsys.readouterr().out == printed_by(code)
    assert server.calls == ["start 900", "executeCode", "stop"]
