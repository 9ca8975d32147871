"""Agents inside agents, graphs and swarms, journaled without being handed any hooks."""

from __future__ import annotations

from typing import Any

import pytest
from strands import Agent, tool
from strands.hooks import BeforeNodeCallEvent
from strands.multiagent import GraphBuilder, Swarm

from streamjournal import Entry, Journal, current_session
from streamjournal.agents.strands import JournalHooks, instrument
from tests.agents.strands.scripted import USAGE, agent, call, pairs, say, told

EVERYTHING = ("AGENT", "TOOL", "MULTIAGENT", "NODE")


def parents(entries: list[Entry]) -> dict[str, str | None]:
    """The name of each call, and of the call that it was made in."""
    starts = [entry for entry in entries if entry.event_type.endswith("_START")]
    names = {
        entry.span_id: f"{entry.event_type.removesuffix('_START')} {entry.tool_name}" for entry in starts
    }
    return {names[entry.span_id]: names.get(entry.parent_id) for entry in starts}


def test_an_agent_as_a_tool(journal: Journal) -> None:
    """The sub-agent's calls are in the session of the agent that called it, inside that tool call."""

    @tool
    def look_up(word: str) -> str:
        """Look up."""
        current_session().event("INSIDE")
        return word

    with instrument(journal):
        inner = agent(
            call(("i1", "look_up", {"word": "a"})), say("found"), tools=[look_up], name="researcher"
        )
        outer = agent(
            call(("o1", "researcher", {"input": "find a"})), say("ok"), tools=[inner], name="writer"
        )
    outer("go", invocation_state={"session_id": "s"})
    entries = told(journal, "s", EVERYTHING)
    assert parents(entries) == {
        "AGENT writer": None,
        "TOOL researcher": "AGENT writer",
        "AGENT researcher": "TOOL researcher",
        "TOOL look_up": "AGENT researcher",
    }
    assert sum(entry.event_type.endswith("_END") for entry in entries) == 4
    (inside,) = [entry for entry in journal.read("s") if entry.event_type == "INSIDE"]
    assert inside.tool_name == "look_up"


def test_an_agent_that_a_tool_makes(journal: Journal) -> None:
    """An agent made and asked within a tool's code is shown inside that call."""

    @tool
    def delegate() -> str:
        """Ask somebody else."""
        return str(agent(say("done"), name="helper")("help"))

    with instrument(journal, session_id="s"):
        agent(call(("t1", "delegate", {})), say("ok"), tools=[delegate], name="boss")("go")
    assert parents(told(journal, "s", EVERYTHING)) == {
        "AGENT boss": None,
        "TOOL delegate": "AGENT boss",
        "AGENT helper": "TOOL delegate",
    }


def test_a_graph(journal: Journal) -> None:
    """Invocation, nodes and their agents, each inside the other; nodes tell their status and tokens."""
    with instrument(journal):
        builder = GraphBuilder()
        builder.set_execution_timeout(60)
        builder.add_node(agent(say("one"), name="first"), "a")
        builder.add_node(agent(say("two"), name="second"), "b")
        builder.add_edge("a", "b")
        builder.set_graph_id("pipeline")
        graph = builder.build()
    graph("go", invocation_state={"session_id": "s"})
    entries = told(journal, "s", EVERYTHING)
    graph_name = "MULTIAGENT pipeline"
    assert parents(entries) == {
        graph_name: None,
        "NODE a": graph_name,
        "AGENT first": "NODE a",
        "NODE b": graph_name,
        "AGENT second": "NODE b",
    }
    nodes = [entry.details for entry in entries if entry.event_type == "NODE_END"]
    assert [node["status"] for node in nodes] == ["completed"] * 2
    assert all(node["usage"]["totalTokens"] == USAGE["totalTokens"] for node in nodes)
    assert entries[-1].event_type == "MULTIAGENT_END"
    assert entries[-1].details["status"] == "completed"


def test_a_node_that_fails(journal: Journal) -> None:
    """The node's error is in the journal, and the graph's."""
    with instrument(journal):
        builder = GraphBuilder()
        builder.set_execution_timeout(60)
        builder.add_node(agent(RuntimeError("no answer"), name="first"), "a")
        graph = builder.build()
    with pytest.raises(RuntimeError, match="no answer"):
        graph("go", invocation_state={"session_id": "s"})
    errors = [entry for entry in told(journal, "s", EVERYTHING) if entry.event_type.endswith("_ERROR")]
    assert [entry.event_type for entry in errors] == ["AGENT_ERROR", "NODE_ERROR", "MULTIAGENT_ERROR"]
    assert {entry.details["error"]["message"] for entry in errors} == {"no answer"}


def test_a_swarm_that_hands_over(journal: Journal) -> None:
    """Each turn of a swarm is a node; the hand-over is a tool call in the first one."""
    with instrument(journal):
        first = agent(
            call(("h1", "handoff_to_agent", {"agent_name": "second", "message": "yours"})),
            say("handed over"),
            name="first",
        )
        swarm = Swarm([first, agent(say("done"), name="second")], id="team")
    swarm("go", invocation_state={"session_id": "s"})
    found = parents(told(journal, "s", EVERYTHING))
    assert found == {
        "MULTIAGENT team": None,
        "NODE first": "MULTIAGENT team",
        "AGENT first": "NODE first",
        "TOOL handoff_to_agent": "AGENT first",
        "NODE second": "MULTIAGENT team",
        "AGENT second": "NODE second",
    }
    with pytest.raises(LookupError):
        current_session()


def test_a_node_that_a_hook_cancels(journal: Journal) -> None:
    """A cancelled node does not look as if it had run."""
    with instrument(journal):
        swarm = Swarm([agent(name="only")], id="team")
    swarm.hooks.add_callback(BeforeNodeCallEvent, lambda event: setattr(event, "cancel_node", "no"))
    swarm("go", invocation_state={"session_id": "s"})
    ended = [entry for entry in told(journal, "s", EVERYTHING) if not entry.event_type.endswith("_START")]
    assert pairs(ended) == [("NODE_ERROR", "only"), ("MULTIAGENT_ERROR", "team")]
    assert ended[0].details["cancelled"] is True


def test_nothing_is_left_behind(journal: Journal) -> None:
    """After `undo` agents are made as ever; undoing in another order than doing does no harm."""
    before = Agent.__init__
    first = instrument(journal, session_id="first")
    second = instrument(journal, session_id="second")
    first.undo()
    second.undo()
    agent(say("hi"))("go")
    assert told(journal, "first") == told(journal, "second") == []
    with instrument(journal, session_id="third"):
        assert Agent.__init__.__wrapped__ is not None  # type: ignore[attr-defined]
    assert (
        Agent.__init__ is not before
    )  # the first's wrapper stays, inert, since the second was outside of it
    Agent.__init__ = before  # type: ignore[method-assign]
    agent(say("hi"))("go")
    assert told(journal, "third") == []


def test_an_agent_with_hooks_of_its_own_is_journaled_once(journal: Journal) -> None:
    """Explicit hooks and `instrument` together record each call once, in the explicit session."""
    with instrument(journal, session_id="everybody"):
        agent(say("hi"), hooks=[JournalHooks(journal, session_id="mine")])("go")
    assert len(told(journal, "mine")) == 4
    assert told(journal, "everybody") == []


def test_subclasses(journal: Journal) -> None:
    """A class of one's own that calls its parent's `__init__` is journaled as well."""

    class Mine(Agent):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(name="mine", **arguments)

    from tests.agents.strands.scripted import ScriptedModel

    with instrument(journal, session_id="s"):
        Mine(model=ScriptedModel(say("hi")), callback_handler=None)("go")
    assert pairs(told(journal, "s", ["AGENT"])) == [("AGENT_START", "mine"), ("AGENT_END", "mine")]
