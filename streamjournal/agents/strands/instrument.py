"""Every agent of a program, also those that others make: sub-agents have hooks of their own.

An agent that serves as another's tool, or that a tool makes as it runs, inherits no hooks. So each
agent, graph and swarm is given them when it is made, until `undo`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Final, Self

from strands import Agent
from strands.multiagent.graph import Graph
from strands.multiagent.swarm import Swarm

from streamjournal.agents.strands.hooks import JournalHooks
from streamjournal.agents.strands.sessions import AnyJournal

_MADE: Final[tuple[Any, ...]] = (Agent, Graph, Swarm)


class Instrumentation:
    """What `instrument` did. Leaving its `with` block, or calling `undo`, ends it for agents made later.

    Args:
        hooks: those that the agents are given.
    """

    def __init__(self, hooks: JournalHooks) -> None:
        self.hooks = hooks
        self._active = True
        self._wrapped: list[tuple[Any, Callable[..., None], Callable[..., None]]] = []
        for kind in _MADE:
            self._wrap(kind)

    def _wrap(self, kind: Any) -> None:
        made = kind.__init__

        @wraps(made)
        def init(agent: Any, *arguments: Any, **keywords: Any) -> None:
            made(agent, *arguments, **keywords)
            if self._active:
                agent.hooks.add_hook(self.hooks)

        kind.__init__ = init
        self._wrapped.append((kind, made, init))

    def undo(self) -> None:
        """Give no more hooks; agents that have them keep them."""
        self._active = False
        for kind, made, init in self._wrapped:
            if kind.__init__ is init:  # else somebody wrapped it since, and ours is inert inside of that
                kind.__init__ = made
        self._wrapped.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def instrument(journal: AnyJournal, *, session_id: str | None = None) -> Instrumentation:
    """Journal every agent, graph and swarm that is made from now on, sub-agents included.

    Sub-agents that are called inside another's tool call share its session, and are shown inside it. An
    agent that has hooks for this journal already is not journaled twice. Call it before agents are made.

    Args:
        session_id: of all of them; see `JournalHooks`.

    Raises:
        InvalidEntryError: the session id cannot be one.
    """
    return Instrumentation(JournalHooks(journal, session_id=session_id))
