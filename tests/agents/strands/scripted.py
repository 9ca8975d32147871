"""A model that says what a script says: no network, and the rest of Strands as it is."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

from strands import Agent
from strands.models import Model

from streamjournal import Entry, Journal

USAGE = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}
LATENCY_MS = 42


def say(text: str) -> list[dict[str, Any]]:
    """The events of an answer in words."""
    return [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockStart": {"start": {}}},
        {"contentBlockDelta": {"delta": {"text": text}}},
        {"contentBlockStop": {}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": USAGE, "metrics": {"latencyMs": LATENCY_MS}}},
    ]


def call(*uses: tuple[str, str, Any]) -> list[dict[str, Any]]:
    """The events of an answer that calls tools: (toolUseId, name, input)."""
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}]
    for tool_use_id, name, arguments in uses:
        events += [
            {"contentBlockStart": {"start": {"toolUse": {"name": name, "toolUseId": tool_use_id}}}},
            {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps(arguments)}}}},
            {"contentBlockStop": {}},
        ]
    return [
        *events,
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": USAGE, "metrics": {"latencyMs": LATENCY_MS}}},
    ]


class ScriptedModel(Model):
    """Gives one prepared answer after the other; an exception in their place is raised."""

    def __init__(self, *answers: list[dict[str, Any]] | BaseException) -> None:
        self._answers = list(answers)
        self.seen: list[Any] = []

    def update_config(self, **model_config: Any) -> None:
        pass

    def get_config(self) -> dict[str, Any]:
        return {"model_id": "scripted-1"}

    def structured_output(self, *arguments: Any, **keywords: Any) -> AsyncGenerator[dict[str, Any], None]:
        raise NotImplementedError

    async def stream(self, messages: Any, *arguments: Any, **keywords: Any) -> AsyncIterable[Any]:
        self.seen.append(json.loads(json.dumps(messages, default=str)))
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        for event in answer:
            yield event


def agent(*answers: list[dict[str, Any]] | BaseException, **arguments: Any) -> Agent:
    """An agent on a scripted model that prints nothing."""
    return Agent(model=ScriptedModel(*answers), callback_handler=None, **arguments)


def told(journal: Journal, session_id: str, kinds: Iterable[str] = ("TOOL", "AGENT", "MODEL")) -> list[Entry]:
    """A session's entries about calls of these kinds."""
    return [e for e in journal.read(session_id) if e.event_type.partition("_")[0] in kinds]


def pairs(entries: Iterable[Entry]) -> list[tuple[str, str | None]]:
    """Event types and names."""
    return [(e.event_type, e.tool_name) for e in entries]
