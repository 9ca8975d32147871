"""What an agent does is in the journal, in every way that a call can end."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeToolCallEvent, BeforeToolsEvent
from strands.tools.executors import SequentialToolExecutor

from streamjournal import AsyncJournal, InvalidEntryError, Journal, current_session
from streamjournal.agents.strands import JournalHooks
from tests.agents.strands.scripted import LATENCY_MS, USAGE, agent, call, pairs, say, told


@tool
def load(path: str, rows: int = 3) -> dict[str, Any]:
    """Load a file."""
    return {"path": path, "rows": rows}


@tool
def fails(path: str) -> str:
    """Fail."""
    raise RuntimeError(f"no such file: {path}")


def test_a_run_from_its_start_to_its_end(journal: Journal) -> None:
    """Invocation, model calls and tool call are there, each inside the one that it was made in."""
    bot = agent(
        call(("t1", "load", {"path": "a.csv"})),
        say("done"),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
        name="eda",
    )
    bot("go")
    entries = told(journal, "s")
    assert pairs(entries) == [
        ("AGENT_START", "eda"),
        ("MODEL_START", "scripted-1"),
        ("MODEL_END", "scripted-1"),
        ("TOOL_START", "load"),
        ("TOOL_END", "load"),
        ("MODEL_START", "scripted-1"),
        ("MODEL_END", "scripted-1"),
        ("AGENT_END", "eda"),
    ]
    start, _, _, began, ended, *_, end = entries
    assert start.parent_id is None
    assert all(entry.parent_id == start.span_id for entry in entries[1:-1])
    assert end.span_id == start.span_id
    assert began.span_id == ended.span_id
    assert began.details == {"tool_use_id": "t1", "attempt": 1, "arguments": {"path": "a.csv"}}
    assert ended.details.pop("duration_ms") >= 0
    assert ended.details == {"result": '{"path": "a.csv", "rows": 3}'}
    assert end.details["stop_reason"] == "end_turn"
    assert end.details["usage"] == {name: 2 * n for name, n in USAGE.items()}
    assert {entry.level for entry in entries} == {"INFO"}


def test_a_model_calls_tokens_and_latency(journal: Journal) -> None:
    """The end of a model call has the usage and latency that the model told."""
    agent(say("hi"), hooks=[JournalHooks(journal, session_id="s")])("go")
    start, end = told(journal, "s", ["MODEL"])
    assert start.details["attempt"] == 1
    assert end.details["usage"] == USAGE
    assert end.details["latency_ms"] == LATENCY_MS
    assert end.details["stop_reason"] == "end_turn"
    assert end.details["duration_ms"] >= 0


def test_a_tool_that_fails(journal: Journal) -> None:
    """The exception is in the journal, and the agent goes on."""
    bot = agent(
        call(("t1", "fails", {"path": "a"})),
        say("oh"),
        tools=[fails],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot("go")
    start, error = told(journal, "s", ["TOOL"])
    assert (start.event_type, error.event_type, error.level) == ("TOOL_START", "TOOL_ERROR", "ERROR")
    assert error.details["error"]["type"] == "RuntimeError"
    assert error.details["error"]["message"] == "no such file: a"
    assert "in fails" in error.details["error"]["traceback"]


def test_a_tool_that_says_that_it_failed(journal: Journal) -> None:
    """An error result without an exception is an error, too."""

    @tool
    def refuses() -> dict[str, Any]:
        """Refuse."""
        return {"status": "error", "content": [{"text": "not today"}]}

    bot = agent(
        call(("t1", "refuses", {})), say("oh"), tools=[refuses], hooks=[JournalHooks(journal, session_id="s")]
    )
    bot("go")
    error = told(journal, "s", ["TOOL"])[1]
    assert error.event_type == "TOOL_ERROR"
    assert error.details["error"] == {"type": "ToolError", "message": "not today"}


def test_an_unknown_tool(journal: Journal) -> None:
    """A tool that the model made up shows with its name."""
    bot = agent(call(("t1", "nonesuch", {"a": 1})), say("oh"), hooks=[JournalHooks(journal, session_id="s")])
    bot("go")
    start, error = told(journal, "s", ["TOOL"])
    assert pairs([start, error]) == [("TOOL_START", "nonesuch"), ("TOOL_ERROR", "nonesuch")]
    assert start.details["arguments"] == {"a": 1}
    assert error.details["unknown_tool"] is True
    assert "nonesuch" in error.details["error"]["message"]


def test_invalid_arguments(journal: Journal) -> None:
    """Arguments that do not fit are shown as they were given, with what is wrong with them."""
    bot = agent(
        call(("t1", "load", {"rows": "many"})),
        say("oh"),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot("go")
    start, error = told(journal, "s", ["TOOL"])
    assert start.details["arguments"] == {"rows": "many"}
    assert error.event_type == "TOOL_ERROR"
    assert "Validation failed" in error.details["error"]["message"]


def test_a_call_that_a_hook_cancels(journal: Journal) -> None:
    """A cancelled call is a warning, with the message of who cancelled it."""
    bot = agent(
        call(("t1", "load", {"path": "a"})),
        say("oh"),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot.add_hook(lambda event: setattr(event, "cancel_tool", "not allowed"), BeforeToolCallEvent)
    bot("go")
    start, cancelled = told(journal, "s", ["TOOL"])
    assert start.event_type == "TOOL_START"
    assert (cancelled.event_type, cancelled.level) == ("TOOL_ERROR", "WARNING")
    assert cancelled.details["cancelled"] is True
    assert cancelled.details["error"] == {"type": "Cancelled", "message": "not allowed"}


def test_a_batch_of_calls_that_a_hook_cancels(journal: Journal) -> None:
    """Calls that never got to a hook of their own are shown as cancelled."""
    bot = agent(
        call(("t1", "load", {"path": "a"}), ("t2", "load", {"path": "b"})),
        say("oh"),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot.add_hook(lambda event: setattr(event, "cancel", "none of it"), BeforeToolsEvent)
    bot("go")
    entries = told(journal, "s", ["TOOL"])
    assert [entry.event_type for entry in entries] == ["TOOL_START", "TOOL_ERROR"] * 2
    assert [entry.details.get("tool_use_id") for entry in entries[::2]] == ["t1", "t2"]
    assert all(entry.details["error"]["message"] == "none of it" for entry in entries[1::2])


def test_a_call_that_is_retried(journal: Journal) -> None:
    """Each attempt of one toolUseId is a call of its own, and says which it is."""
    results = iter([RuntimeError("busy"), RuntimeError("busy"), "there"])

    @tool
    def flaky() -> str:
        """Work at the third time."""
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    def again(event: AfterToolCallEvent) -> None:
        event.retry = event.exception is not None

    bot = agent(
        call(("t1", "flaky", {})), say("ok"), tools=[flaky], hooks=[JournalHooks(journal, session_id="s")]
    )
    bot.add_hook(again, AfterToolCallEvent)
    bot("go")
    entries = told(journal, "s", ["TOOL"])
    assert [e.event_type for e in entries] == ["TOOL_START", "TOOL_ERROR"] * 2 + ["TOOL_START", "TOOL_END"]
    starts = entries[::2]
    assert [e.details["attempt"] for e in starts] == [1, 2, 3]
    assert {e.details["tool_use_id"] for e in starts} == {"t1"}
    assert len({e.span_id for e in starts}) == 3


def test_a_call_that_is_interrupted_and_resumed(journal: Journal) -> None:
    """An interrupted call is ended with the invocation; when it goes on it is the second attempt."""

    @tool(context=True)
    def delete(tool_context: ToolContext) -> str:
        """Ask first."""
        return f"deleted: {tool_context.interrupt('sure', reason='all of it')}"

    bot = agent(
        call(("t1", "delete", {})), say("ok"), tools=[delete], hooks=[JournalHooks(journal, session_id="s")]
    )
    result = bot("go")
    assert result.stop_reason == "interrupt"
    _, _, _, start, interrupted, end = told(journal, "s")
    assert (start.event_type, interrupted.event_type) == ("TOOL_START", "TOOL_ERROR")
    assert (interrupted.level, interrupted.details["interrupted"]) == ("WARNING", True)
    assert interrupted.span_id == start.span_id
    assert end.details["stop_reason"] == "interrupt"
    assert end.details["interrupts"] == ["sure"]

    bot([{"interruptResponse": {"interruptId": result.interrupts[0].id, "response": "yes"}}])
    again, ended = told(journal, "s", ["TOOL"])[2:]
    assert again.details["attempt"] == 2
    assert ended.details["result"] == "deleted: yes"


def test_a_hook_that_interrupts_before_the_tool(journal: Journal) -> None:
    """There is no event after such a call; with tools one by one the place is left as well."""

    def ask(event: BeforeToolCallEvent) -> None:
        event.interrupt("sure")

    bot = agent(
        call(("t1", "load", {"path": "a"})),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
        tool_executor=SequentialToolExecutor(),
    )
    bot.add_hook(ask, BeforeToolCallEvent)
    assert bot("go").stop_reason == "interrupt"
    assert [e.event_type for e in told(journal, "s", ["TOOL"])] == ["TOOL_START", "TOOL_ERROR"]


def test_calls_at_the_same_time(journal: Journal) -> None:
    """Each of several concurrent calls has its own start, end, and place."""
    meet = threading.Barrier(3, timeout=10)

    @tool
    def together(n: int) -> int:
        """Wait for the others."""
        meet.wait()
        current_session().event("INSIDE", n=n)
        meet.wait()
        return n

    uses = [(f"t{n}", "together", {"n": n}) for n in range(3)]
    bot = agent(call(*uses), say("ok"), tools=[together], hooks=[JournalHooks(journal, session_id="s")])
    bot("go")
    entries = told(journal, "s", ["TOOL", "INSIDE"])
    assert [e.event_type for e in entries[:3]] == ["TOOL_START"] * 3
    started = {e.details["arguments"]["n"]: e.span_id for e in entries if e.event_type == "TOOL_START"}
    inside = {e.details["n"]: e.span_id for e in entries if e.event_type == "INSIDE"}
    ended = {int(e.details["result"]): e.span_id for e in entries if e.event_type == "TOOL_END"}
    assert started == inside == ended
    assert len(set(started.values())) == 3


@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_tools_code_finds_its_session(journal: Journal, one_by_one: bool) -> None:
    """`current_session()` works in sync and async tools, on whatever thread Strands runs them."""

    @tool
    def plain() -> str:
        """Run on a thread."""
        current_session().event("INSIDE", on=threading.current_thread() is threading.main_thread())
        return "ok"

    @tool
    async def awaited() -> str:
        """Run on the loop."""
        await asyncio.sleep(0)
        current_session().event("INSIDE")
        return "ok"

    executor = {"tool_executor": SequentialToolExecutor()} if one_by_one else {}
    bot = agent(
        call(("t1", "plain", {}), ("t2", "awaited", {})),
        say("ok"),
        tools=[plain, awaited],
        hooks=[JournalHooks(journal, session_id="s")],
        **executor,
    )
    bot("go")
    inside = [entry for entry in journal.read("s") if entry.event_type == "INSIDE"]
    assert sorted(str(entry.tool_name) for entry in inside) == ["awaited", "plain"]
    with pytest.raises(LookupError):
        current_session()


def test_a_direct_call(journal: Journal) -> None:
    """`agent.tool.x()` is recorded; a tool's own argument `session_id` does not name our session."""

    @tool
    def browse(session_id: str) -> str:
        """Have a session of its own kind."""
        return session_id

    bot = agent(tools=[browse, load], hooks=[JournalHooks(journal)], name="bot")
    bot.tool.browse(session_id="browser-1")
    inside = agent(tools=[load], hooks=[JournalHooks(journal)])
    with journal.session("mine"):
        inside.tool.load(path="a")
    assert list(journal.read("browser-1")) == []
    start, end = told(journal, "mine", ["TOOL"])
    assert (start.event_type, end.event_type) == ("TOOL_START", "TOOL_END")
    assert start.details["direct"] is True
    assert start.parent_id is None


def test_a_model_that_is_asked_again(journal: Journal) -> None:
    """Each attempt within a cycle says which it is; the next cycle begins at 1."""

    def again(event: AfterModelCallEvent) -> None:
        event.retry = event.exception is not None

    bot = agent(
        RuntimeError("busy"),
        call(("t1", "load", {"path": "a"})),
        say("ok"),
        tools=[load],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot.add_hook(again, AfterModelCallEvent)
    bot("go")
    entries = told(journal, "s", ["MODEL"])
    assert [e.event_type for e in entries[1::2]] == ["MODEL_ERROR", "MODEL_END", "MODEL_END"]
    assert [e.details["attempt"] for e in entries[::2]] == [1, 2, 1]
    assert [e.event_type for e in told(journal, "s", ["AGENT"])] == ["AGENT_START", "AGENT_END"]


def test_a_model_that_fails(journal: Journal) -> None:
    """A model's failure is in the journal, and so is what it makes of the invocation."""
    bot = agent(RuntimeError("no answer"), hooks=[JournalHooks(journal, session_id="s")])
    with pytest.raises(RuntimeError, match="no answer"):
        bot("go")
    _, _, model_error, agent_error = told(journal, "s")
    assert (model_error.event_type, agent_error.event_type) == ("MODEL_ERROR", "AGENT_ERROR")
    assert model_error.details["error"]["message"] == "no answer"
    assert agent_error.details["error"]["type"] == "RuntimeError"
    assert agent_error.level == "ERROR"


def test_an_exception_that_was_there_before_is_no_error_of_the_agent(journal: Journal) -> None:
    """An agent that is asked inside an `except` block, and cancelled by a hook, has not raised that."""

    async def ask() -> None:
        from strands.hooks import BeforeInvocationEvent

        bot = agent(hooks=[JournalHooks(journal, session_id="s")])
        bot.add_hook(lambda event: setattr(event, "cancel", "no"), BeforeInvocationEvent)
        try:
            raise KeyError("before")
        except KeyError:
            await bot.invoke_async("go")

    asyncio.run(ask())
    assert [e.event_type for e in told(journal, "s")] == ["AGENT_START", "AGENT_END"]


def test_an_invocation_that_is_cancelled(journal: Journal) -> None:
    """Whoever cancels an agent in the middle of a tool call leaves nothing open."""

    async def cancel() -> None:
        begun = asyncio.Event()

        @tool
        async def endless() -> str:
            """Never end."""
            begun.set()
            await asyncio.Event().wait()
            return "never"

        bot = agent(
            call(("t1", "endless", {})), tools=[endless], hooks=[JournalHooks(journal, session_id="s")]
        )
        asked = asyncio.create_task(bot.invoke_async("go"))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(cancel())
    entries = told(journal, "s")
    assert pairs(entries)[-3:] == [
        ("TOOL_START", "endless"),
        ("TOOL_ERROR", "endless"),
        ("AGENT_ERROR", "Strands Agents"),
    ]
    assert [e.level for e in entries[-2:]] == ["WARNING", "WARNING"]
    assert entries[-2].details["interrupted"] is True
    assert entries[-1].details["error"]["type"] == "CancelledError"


def test_a_tool_in_the_background(journal: Journal) -> None:
    """A call that goes on after the invocation is ended by its own end, and its code knows its place."""

    async def run() -> None:
        go_on, ended = asyncio.Event(), asyncio.Event()

        @tool
        async def slow() -> str:
            """Take longer than the invocation."""
            await go_on.wait()
            current_session().event("INSIDE")
            return "there"

        bot = agent(
            call(("t1", "slow", {})),
            say("it runs"),
            tools=[slow],
            hooks=[JournalHooks(journal, session_id="s")],
            background_tasks={"always": ["slow"], "wait_for_completion": False},
        )
        bot.hooks.add_callback(AfterToolCallEvent, lambda _: ended.set(), order=100)
        await bot.invoke_async("go")
        go_on.set()
        async with asyncio.timeout(30):
            await ended.wait()

    asyncio.run(run())
    entries = told(journal, "s", ["AGENT", "TOOL", "INSIDE"])
    assert [e.event_type for e in entries] == ["AGENT_START", "TOOL_START", "AGENT_END", "INSIDE", "TOOL_END"]
    assert len({e.span_id for e in entries if e.tool_name == "slow"}) == 1
    assert entries[-1].details["result"] == "there"


def test_an_async_journal(journal: Journal) -> None:
    """Hooks take a journal of either kind."""

    async def run() -> None:
        async with AsyncJournal() as other:
            bot = agent(
                call(("t1", "load", {"path": "a"})),
                say("ok"),
                tools=[load],
                hooks=[JournalHooks(other, session_id="s")],
            )
            await bot.invoke_async("go")

    asyncio.run(run())
    assert len(told(journal, "s")) == 8


def test_nothing_leaves_a_hook(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that takes nothing any more does not end the agent; the log says so once, not per call."""
    other = Journal()
    other.close()
    bot = agent(
        *[call((f"t{n}", "load", {"path": "a"})) for n in range(5)],
        say("done"),
        tools=[load],
        hooks=[JournalHooks(other, session_id="s")],
    )
    with caplog.at_level(logging.WARNING, logger="streamjournal"):
        assert bot("go").stop_reason == "end_turn"
    lines = [record for record in caplog.records if record.name.startswith("streamjournal")]
    assert len(lines) == 1
    assert "closed" in lines[0].getMessage()


def test_strange_arguments_and_media(journal: Journal) -> None:
    """A picture is told of, not kept; a long argument is shown in part."""

    @tool
    def paint(prompt: str) -> dict[str, Any]:
        """Paint."""
        image = {"format": "png", "source": {"bytes": b"\x89PNG" * 1000}}
        return {"status": "success", "content": [{"text": prompt[:5]}, {"image": image}]}

    bot = agent(
        call(("t1", "paint", {"prompt": "x" * 100_000})),
        say("ok"),
        tools=[paint],
        hooks=[JournalHooks(journal, session_id="s")],
    )
    bot("go")
    start, end = told(journal, "s", ["TOOL"])
    assert start.details["arguments"]["prompt"]["$cut"] == 100_002
    assert end.details["result"] == ["xxxxx", {"image": {"format": "png", "bytes": 4000}}]


def test_hooks_that_are_given_twice(journal: Journal) -> None:
    """A second object for the same journal does not record everything twice."""
    bot = agent(
        say("hi"), hooks=[JournalHooks(journal, session_id="s"), JournalHooks(journal, session_id="s")]
    )
    bot("go")
    assert len(told(journal, "s")) == 4


def test_one_object_for_two_agents_at_once(journal: Journal) -> None:
    """Calls of agents that run at the same time under one toolUseId are not mixed up."""
    hooks = JournalHooks(journal)

    async def run() -> None:
        bots = [
            agent(call(("t1", "load", {"path": name})), say("ok"), tools=[load], hooks=[hooks], name=name)
            for name in ("one", "two")
        ]
        await asyncio.gather(
            *(bot.invoke_async("go", invocation_state={"session_id": bot.name}) for bot in bots)
        )

    asyncio.run(run())
    for name in ("one", "two"):
        entries = told(journal, name)
        assert len(entries) == 8
        assert entries[0].tool_name == name
        assert [e.details["arguments"]["path"] for e in entries if e.event_type == "TOOL_START"] == [name]


# bedrock-agentcore 1.25 defines a model in pydantic's old way
@pytest.mark.filterwarnings("ignore:Support for class-based `config` is deprecated")
def test_which_session(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Explicit, then invocation_state, then the session around, then AgentCore's, then a made-up one."""
    from bedrock_agentcore.runtime.context import BedrockAgentCoreContext

    def session_of(hooks: JournalHooks, **arguments: Any) -> str:
        bot = agent(say("hi"), hooks=[hooks], name="bot")
        bot("go", **arguments)
        found = hooks.session_of(bot)
        assert found is not None
        assert pairs(told(journal, found))[-1] == ("AGENT_END", "bot")
        return found

    state = {"invocation_state": {"session_id": "from-state"}}
    made_up = session_of(JournalHooks(journal))
    assert made_up.startswith("bot-")
    assert session_of(JournalHooks(journal), invocation_state={"session_id": "\n"}).startswith("bot-")
    monkeypatch.setattr(BedrockAgentCoreContext, "get_session_id", lambda: "from-agentcore")
    assert session_of(JournalHooks(journal)) == "from-agentcore"
    with journal.session("around"):
        assert session_of(JournalHooks(journal)) == "around"
        assert session_of(JournalHooks(journal), **state) == "from-state"
        assert session_of(JournalHooks(journal, session_id="explicit"), **state) == "explicit"
    with pytest.raises(InvalidEntryError):
        JournalHooks(journal, session_id="")


def test_a_made_up_session_is_kept_for_the_agent(journal: Journal) -> None:
    """Two turns of one conversation are one session."""
    hooks = JournalHooks(journal)
    bot = agent(say("hi"), say("again"), hooks=[hooks])
    assert hooks.session_of(bot) is None
    bot("go")
    first = hooks.session_of(bot)
    bot("go on")
    assert hooks.session_of(bot) == first
    assert first is not None
    assert len(told(journal, first, ["AGENT"])) == 4


def test_an_agent_is_not_kept_alive(journal: Journal) -> None:
    """Hooks that live longer than their agents hold on to none."""
    import gc
    import weakref

    hooks = JournalHooks(journal)
    bot: Agent | None = agent(say("hi"), hooks=[hooks])
    assert bot is not None
    bot("go")
    gone = weakref.ref(bot)
    bot = None
    gc.collect()
    assert gone() is None
