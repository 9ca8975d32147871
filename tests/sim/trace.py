"""What a run did, line by line, what struck it how often, and the first invariant that did not hold."""

from __future__ import annotations

from collections import Counter
from typing import Final, NoReturn

import trio

INVARIANTS: Final = {
    "kept": "an entry that was accepted is in its journal in the end, or in a spool",
    "once": "an entry is in its journal once, as its writer wrote it",
    "order": "a writer's entries stand in a session's journal in the order of their numbers",
    "prefix": "a version of a journal is a true prefix of the next",
    "metadata": "summary, writers' numbers and body agree in every version",
    "position": "everything up to a journal's position is in it, nothing after, and it never goes back",
    "checkpoint": "everything up to a checkpoint is durable, and it never goes back",
    "read": "a merged read has all that the stream had before it began, each entry once, in order",
    "tail": "a tail that is resumed by its cursor misses and repeats nothing",
    "notice": "what is missing is told of in the journal, and nothing else is",
    "drain": "once faults stop, everything drains, and workers stop in time",
    "crash": "nothing raises but what the ports' contracts name",
}


class Violation(AssertionError):  # noqa: N818 - it names what it is; the error is somewhere else
    """An invariant does not hold.

    Args:
        invariant: its name, one of INVARIANTS.
    """

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        assert invariant in INVARIANTS
        self.invariant = invariant


class Trace:
    """What happens in one run.

    Attributes:
        lines: what happened, each with its virtual second.
        counts: kind of fault or event -> how often it struck.
        violation: the first one.
        scope: ends the run when it comes; the pipeline itself must not get to swallow it.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self.violation: Violation | None = None
        self.scope: trio.CancelScope | None = None

    def note(self, what: str) -> None:
        """A line."""
        self.lines.append(f"{trio.current_time():.6f} {what}")

    def strike(self, kind: str, what: str = "") -> None:
        """A line, counted."""
        self.counts[kind] += 1
        self.note(f"{kind} {what}" if what else kind)

    def fail(self, invariant: str, text: str) -> NoReturn:
        """End the run: an invariant does not hold."""
        violation = Violation(invariant, text)
        self.note(f"VIOLATION {violation}")
        if self.violation is None:
            self.violation = violation
            if self.scope is not None:
                self.scope.cancel()
        raise violation
