"""The nodes of graphs and swarms, as the hooks journal them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strands.hooks import (
    AfterMultiAgentInvocationEvent,
    AfterNodeCallEvent,
    BeforeMultiAgentInvocationEvent,
    BeforeNodeCallEvent,
)

from streamjournal.agents.strands.calls import AnySession, Call, Open
from streamjournal.agents.strands.sessions import AnyJournal, session_for


class NodeHooks:
    """What the hooks do about a multi-agent's events.

    Args:
        session_id: of all their entries, if it is given.
        of: gives what is open in a graph or swarm.
    """

    def __init__(self, journal: AnyJournal, session_id: str | None, of: Callable[[Any], Open]) -> None:
        self._journal = journal
        self._session_id = session_id
        self._of = of

    def before_multiagent(self, event: BeforeMultiAgentInvocationEvent) -> None:
        """MULTIAGENT_START."""
        pattern = type(event.source).__name__.lower()
        name = str(getattr(event.source, "id", "") or pattern)
        session = self._session(event.source, event.invocation_state, name)
        self._of(event.source).begin(Call(session, "MULTIAGENT", name, pattern=pattern))

    def after_multiagent(self, event: AfterMultiAgentInvocationEvent) -> None:
        """MULTIAGENT_END or _ERROR, and an end for the nodes that were interrupted."""
        open_ = self._of(event.source)
        open_.interrupt()
        if not open_.invocations:
            return
        call = open_.invocations.pop()
        status = _status(getattr(event.source, "state", None))
        call.note(status=status)
        error = call.raised()
        if error is None and status == "failed":
            call.fail("NodeFailed", "a node failed; its own entry says why")
        call.finish(error)

    def before_node(self, event: BeforeNodeCallEvent) -> None:
        """NODE_START."""
        open_ = self._of(event.source)
        session = open_.session or self._session(event.source, event.invocation_state, event.node_id)
        call = Call(session, "NODE", event.node_id, outer=open_.invocation)
        open_.inner[event.node_id] = call
        call.__enter__()

    def after_node(self, event: AfterNodeCallEvent) -> None:
        """NODE_END or _ERROR, with the node's status and tokens."""
        call = self._of(event.source).inner.pop(event.node_id, None)
        if call is None:
            return
        results = getattr(getattr(event.source, "state", None), "results", None) or {}
        found = results.get(event.node_id)
        status = _status(found)
        outcome = getattr(found, "result", None)
        call.note(status=status, usage=dict(getattr(found, "accumulated_usage", None) or {}))
        error = outcome if isinstance(outcome, Exception) else call.raised()
        if error is None and (found is None or status == "failed"):
            call.fail("Cancelled", "the node did not run to its end", level="WARNING", cancelled=True)
        call.finish(error)
        call.leave()

    def _session(self, source: Any, invocation_state: Any, name: str) -> AnySession:
        return session_for(self._journal, self._session_id, invocation_state, self._of(source), name)


def _status(of: Any) -> str | None:
    status = getattr(of, "status", None) or getattr(of, "completion_status", None)  # a swarm's state
    return None if status is None else str(getattr(status, "value", status))
