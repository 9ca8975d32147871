"""Which session an agent's entries belong to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from streamjournal.agents.strands.calls import AnySession, Open
from streamjournal.client import AsyncJournal, Journal
from streamjournal.core.entry import check_session_id
from streamjournal.core.errors import InvalidEntryError
from streamjournal.emit.spans import current_place

AnyJournal = Journal | AsyncJournal
SESSION_ID = "session_id"  # the key in `invocation_state`
_AGENTCORE = "bedrock_agentcore.runtime.context"

_log = logging.getLogger("streamjournal.agents.strands")


def known_session(
    journal: AnyJournal, explicit: str | None, invocation_state: Mapping[str, Any] | None
) -> AnySession | None:
    """The session that is given, by the first who gives one: the explicit id, `invocation_state`, the
    session around the running code (also that of a parent agent's tool call), AgentCore's runtime.
    """
    if explicit is not None:
        return journal.session(explicit)
    session = _usable(journal, (invocation_state or {}).get(SESSION_ID))
    if session is not None:
        return session
    around: AnySession | None = current_place().session
    if around is not None and around.journal is journal:
        return around
    return _usable(journal, _agentcore_session())


def session_for(
    journal: AnyJournal,
    explicit: str | None,
    invocation_state: Mapping[str, Any] | None,
    open_: Open,
    name: str,
) -> AnySession:
    """The session that is given, or one that is made up and kept for this agent.

    Args:
        name: what a made-up id begins with.
    """
    known = known_session(journal, explicit, invocation_state)
    if known is not None:
        return known
    if open_.generated is None:
        drawn = journal.clock.draw_id()
        open_.generated = _usable(journal, f"{name[:60]}-{drawn}") or journal.session(f"agent-{drawn}")
    return open_.generated


def _usable(journal: AnyJournal, session_id: object) -> AnySession | None:
    if session_id is None or session_id == "":
        return None
    try:
        return journal.session(check_session_id(session_id))
    except InvalidEntryError as problem:
        _log.warning("a session id that cannot be one is passed over: %s", problem)
        return None


def _agentcore_session() -> object:
    """The session of the AgentCore runtime, where the program runs in one: then it is imported already."""
    module = sys.modules.get(_AGENTCORE)
    return module.BedrockAgentCoreContext.get_session_id() if module is not None else None
