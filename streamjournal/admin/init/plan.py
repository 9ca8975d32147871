"""How `init` goes about each resource: look first, then change only what differs.

Planning asks and changes nothing. So a dry run is the plan without its second half, and a wrong name
or a missing right shows before anything has been made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple, Protocol

import anyio

from streamjournal.core.errors import NotConfiguredError, UnavailableError

Action = Literal["created", "changed", "unchanged"]

POLL_SECONDS: Final = 1.0
READY_SECONDS: Final = 600.0  # a new stream takes half a minute, resharding a large one several


class Step(NamedTuple):
    """What became, or in a dry run would become, of one resource.

    Args:
        resource: `stream agents`, `bucket journals: versioning`.
        action: `unchanged` if it was as wanted already.
        detail: what it is then, for a person.
    """

    resource: str
    action: Action
    detail: str


class Planned(NamedTuple):
    """A step, and what takes it; None where nothing is to do."""

    step: Step
    apply: Callable[[], Awaitable[None]] | None


class Plan(Protocol):
    """Plans the steps for one resource."""

    async def plan(self) -> list[Planned]:
        """Look at what is there, and give the steps to what is wanted."""
        ...

    async def aclose(self) -> None:
        """Free connections."""
        ...


def unchanged(resource: str, detail: str) -> Planned:
    """A resource that is as wanted."""
    return Planned(Step(resource, "unchanged", detail), None)


async def until_active(status: Callable[[], Awaitable[str]], what: str) -> None:
    """Wait until a resource's status is ACTIVE.

    Raises:
        NotConfiguredError: somebody is deleting it.
        UnavailableError: it is not ACTIVE after READY_SECONDS.
    """
    with anyio.move_on_after(READY_SECONDS):
        while (now := await status()) != "ACTIVE":
            refuse_deleting(now, what)
            await anyio.sleep(POLL_SECONDS)
        return
    raise UnavailableError(
        f"{what} is not ACTIVE after {READY_SECONDS:.0f} seconds; run `streamjournal init` again"
    )


def refuse_deleting(status: str, what: str) -> None:
    """Stop at a resource that is on its way out: what is made of it now would go with it."""
    if status == "DELETING":
        raise NotConfiguredError(
            f"{what} is being deleted; run `streamjournal init` again when it is gone, or choose another name"
        )
