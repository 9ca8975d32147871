"""Hooks that journal a Strands agent: its invocations, model calls and tool calls, and nodes of graphs.

An exception in a hook kills the agent, and a hook runs on its event loop. So nothing leaves these, and
they do no I/O: to emit is a matter of memory. Strands tells of a call's end by an event of its own, which
does not come where a call is interrupted; what is still open at the invocation's end is ended then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from strands.hooks import (
    AfterInvocationEvent,
    AfterModelCallEvent,
    AfterMultiAgentInvocationEvent,
    AfterNodeCallEvent,
    AfterToolCallEvent,
    AfterToolsEvent,
    BaseHookEvent,
    BeforeInvocationEvent,
    BeforeModelCallEvent,
    BeforeMultiAgentInvocationEvent,
    BeforeNodeCallEvent,
    BeforeToolCallEvent,
    BeforeToolsEvent,
    HookCallback,
    HookProvider,
    HookRegistry,
)

from streamjournal.agents.strands.calls import (
    AnySession,
    Call,
    Open,
    arguments_of,
    enclosing,
    result_of,
    text_of,
)
from streamjournal.agents.strands.complaints import Complaints
from streamjournal.agents.strands.nodes import NodeHooks
from streamjournal.agents.strands.sessions import AnyJournal, known_session, session_for
from streamjournal.core.entry import check_session_id

_IN_LOOP: Final = "event_loop_cycle_id"  # in `invocation_state`: the model asked for it, not the program

_hooked: WeakKeyDictionary[HookRegistry, list[AnyJournal]] = WeakKeyDictionary()


class JournalHooks(HookProvider):
    """Journals whatever the agents do that it is given to: `Agent(hooks=[JournalHooks(journal)])`.

    One object may serve any number of agents, graphs and swarms, also at the same time.

    Args:
        session_id: of all their entries. None: `invocation_state["session_id"]`, else the session around
            the running code, else that of the AgentCore runtime, else one made up for each agent.

    Raises:
        InvalidEntryError: the session id cannot be one.
    """

    def __init__(self, journal: AnyJournal, *, session_id: str | None = None) -> None:
        self._journal = journal
        self._session_id = session_id if session_id is None else check_session_id(session_id)
        self._open: WeakKeyDictionary[Any, Open] = WeakKeyDictionary()
        self._complaints = Complaints(journal.clock)
        self._nodes = NodeHooks(journal, self._session_id, self._of)

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Called by Strands. A second time for the same agent and journal does nothing."""
        journals = _hooked.setdefault(registry, [])
        if any(journal is self._journal for journal in journals):
            return
        journals.append(self._journal)
        nodes = self._nodes
        for event_type, handle in (
            (BeforeInvocationEvent, self._before_invocation),
            (AfterInvocationEvent, self._after_invocation),
            (BeforeModelCallEvent, self._before_model),
            (AfterModelCallEvent, self._after_model),
            (BeforeToolsEvent, self._before_tools),
            (AfterToolsEvent, self._after_tools),
            (BeforeToolCallEvent, self._before_tool),
            (AfterToolCallEvent, self._after_tool),
            (BeforeMultiAgentInvocationEvent, nodes.before_multiagent),
            (AfterMultiAgentInvocationEvent, nodes.after_multiagent),
            (BeforeNodeCallEvent, nodes.before_node),
            (AfterNodeCallEvent, nodes.after_node),
        ):
            registry.add_callback(event_type, self._quiet(handle))

    def session_of(self, agent: Any) -> str | None:
        """The session of an agent's last invocation, also if it was made up; None before the first."""
        session = self._of(agent).session
        return session.session_id if session is not None else None

    def _quiet(self, handle: Callable[[Any], None]) -> HookCallback[Any]:
        def callback(event: BaseHookEvent) -> None:
            try:
                handle(event)
            except Exception as problem:  # noqa: BLE001  # whatever it is, it must not end the agent
                self._complaints.log(type(event).__name__, problem)

        return callback

    def _of(self, source: Any) -> Open:
        open_ = self._open.get(source)
        return open_ if open_ is not None else self._open.setdefault(source, Open())

    # Invocations

    def _before_invocation(self, event: BeforeInvocationEvent) -> None:
        agent = event.agent
        open_ = self._of(agent)
        name = str(agent.name)
        session = session_for(self._journal, self._session_id, event.invocation_state, open_, name)
        open_.begin(Call(session, "AGENT", name, model=_model_name(agent)))

    def _after_invocation(self, event: AfterInvocationEvent) -> None:
        open_ = self._of(event.agent)
        stop_reason = event.result.stop_reason if event.result is not None else None
        in_background = getattr(event.agent, "_background_tasks", None) is not None
        if len(open_.invocations) <= 1 and not (in_background and stop_reason == "end_turn"):
            open_.interrupt()
        if open_.model is not None:
            open_.model.fail("Interrupted", "no answer before the invocation ended", level="WARNING")
            open_.model = None
        if stop_reason != "interrupt":
            open_.attempts.clear()
        if open_.invocations:
            call = open_.invocations.pop()
            interrupts = [it.name for it in (event.result.interrupts if event.result else None) or ()]
            call.note(stop_reason=stop_reason, usage=dict(open_.usage))
            if interrupts:
                call.note(interrupts=interrupts)
            call.finish(call.raised() if event.result is None else None)

    # Model calls

    def _before_model(self, event: BeforeModelCallEvent) -> None:
        open_ = self._of(event.agent)
        cycle = event.invocation_state.get(_IN_LOOP)
        again = cycle is not None and cycle == open_.cycle[0]
        open_.cycle = (cycle, open_.cycle[1] + 1 if again else 1)
        open_.model = Call(
            self._session(event.agent, open_),
            "MODEL",
            _model_name(event.agent),
            outer=open_.invocation,
            attempt=open_.cycle[1],
            messages=len(event.agent.messages),
        )
        if event.projected_input_tokens is not None:
            open_.model.note(projected_input_tokens=event.projected_input_tokens)
        open_.model.start()

    def _after_model(self, event: AfterModelCallEvent) -> None:
        open_ = self._of(event.agent)
        call, open_.model = open_.model, None
        if call is None:
            return
        answer = event.stop_response
        if answer is not None:
            told: Any = answer.message.get("metadata") or {}
            usage = dict(told.get("usage") or {})
            open_.usage.update({name: n for name, n in usage.items() if isinstance(n, int)})
            call.note(stop_reason=answer.stop_reason, usage=usage)
            call.note(latency_ms=(told.get("metrics") or {}).get("latencyMs"))
        call.finish(event.exception)

    # Tool calls

    def _before_tools(self, event: BeforeToolsEvent) -> None:
        asked = [block["toolUse"] for block in event.message["content"] if "toolUse" in block]
        self._of(event.agent).asked = {use["toolUseId"]: dict(use) for use in asked}

    def _after_tools(self, event: AfterToolsEvent) -> None:
        """Calls that were cancelled as a batch have no events of their own."""
        open_ = self._of(event.agent)
        for block in event.message["content"]:
            result = block.get("toolResult")
            use = open_.asked.get(result["toolUseId"]) if result is not None else None
            if use is None or open_.attempts[use["toolUseId"]]:
                continue
            call = self._tool_call(event.agent, open_, use, direct=False)
            call.start()
            call.fail("Cancelled", text_of(result), level="WARNING", cancelled=True)
        open_.asked = {}

    def _before_tool(self, event: BeforeToolCallEvent[Any]) -> None:
        open_ = self._of(event.agent)
        use = event.tool_use
        before = open_.inner.pop(use["toolUseId"], None)
        if before is not None:
            before.fail("Interrupted", "it was called again", level="WARNING", interrupted=True)
            before.leave()
        call = self._tool_call(event.agent, open_, dict(use), direct=_IN_LOOP not in event.invocation_state)
        open_.inner[use["toolUseId"]] = call
        call.__enter__()

    def _tool_call(self, agent: Any, open_: Open, use: dict[str, Any] | Any, *, direct: bool) -> Call:
        tool_use_id = str(use["toolUseId"])
        open_.attempts[tool_use_id] += 1
        session = self._session(agent, open_)
        call = Call(
            session,
            "TOOL",
            str(use["name"]),
            outer=(enclosing(session) if direct else None) or open_.invocation,
            arguments=arguments_of(use.get("input")),
            tool_use_id=tool_use_id,
            attempt=open_.attempts[tool_use_id],
        )
        if direct:
            call.note(direct=True)
            del open_.attempts[tool_use_id]  # its id is drawn for this one call
        return call

    def _after_tool(self, event: AfterToolCallEvent[Any]) -> None:
        call = self._of(event.agent).inner.pop(event.tool_use["toolUseId"], None)
        if call is None:
            return
        result: Any = event.result
        try:
            if event.cancel_message is not None:
                call.fail("Cancelled", event.cancel_message, level="WARNING", cancelled=True)
            elif result.get("cancelled") is True:
                call.fail("Cancelled", text_of(result), level="WARNING", cancelled=True)
            elif event.exception is not None:
                if event.selected_tool is None:
                    call.note(unknown_tool=True)
                call.finish(event.exception)
            elif result.get("status") == "error":
                call.fail("ToolError", text_of(result))
            else:
                call.result(result_of(result))
                call.end()
        finally:
            call.leave()

    def _session(self, agent: Any, open_: Open) -> AnySession:
        """The invocation's session; outside of one (a direct call) what is around, or the agent's last one.

        A direct call's `invocation_state` holds the tool's own arguments, so it says nothing of sessions.
        """
        if open_.invocations:
            session: AnySession = open_.invocations[-1].session
            return session
        known = known_session(self._journal, self._session_id, None) or open_.session
        return known or session_for(self._journal, self._session_id, None, open_, str(agent.name))


def _model_name(agent: Any) -> str:
    """The model's id, or its class, of a model that tells none."""
    model = agent.model
    try:
        config = model.get_config()
        found = config.get("model_id") if isinstance(config, dict) else None
    except Exception:  # noqa: BLE001  # anybody's model; its name is not worth an agent
        found = None
    return str(found or type(model).__name__)
