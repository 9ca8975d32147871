"""The outbox: one session's entries that the stream has not acknowledged, in their order.

emit adds at the right end, in its critical section; the sender looks at the left end and takes an
entry out once the stream has it. A deque's own operations are atomic, so the two share no lock.

Who has the outbox: `ready` is True while it is queued for the sender or in a lane of the sender's. emit
appends first and looks at `ready` second; the sender clears `ready` first and looks for items second. So
whatever their timing, one of the two sees the other's step, and no entry is left without an owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamjournal.core.position import Position

if TYPE_CHECKING:
    from streamjournal.emit.receipt import Receipt


class Account:
    """What the sender has done with the entries of one source (an emitter, or a recovered spool).

    Written by the sender only, so that emit can read it without a lock.
    """

    __slots__ = ("refused", "released_bytes", "settled")

    def __init__(self) -> None:
        self.settled = 0  # entries acknowledged, or refused for good
        self.refused = 0  # of those, refused for good
        self.released_bytes = 0


class Outbox:
    """One session's entries on their way.

    Args:
        session_id: the session, which is the partition key too.
        writer: the writer's id for this session.
        account: where the sender notes what it did.
        hurry: asks the sender not to wait for more entries.
        before: the session's outbox under an earlier writer id; what is in it goes first.
    """

    __slots__ = (
        "account",
        "before",
        "dropped",
        "dropped_since",
        "hurry",
        "items",
        "n",
        "on_empty",
        "position",
        "prefix",
        "ready",
        "retired",
        "session_id",
        "slow",
        "writer",
    )

    def __init__(
        self,
        session_id: str,
        writer: str,
        account: Account,
        hurry: Callable[[], None],
        before: Outbox | None = None,
    ) -> None:
        self.session_id = session_id
        self.writer = writer
        self.prefix = f"{writer}-"
        self.account = account
        self.hurry = hurry
        self.before = before
        self.n = 0
        self.items: deque[Receipt] = deque()
        self.ready = False
        self.on_empty: Callable[[], None] | None = None  # told when the last entry is settled
        self.position: Position | None = None  # of the last acknowledged entry
        self.retired = False  # its writer id is not to be used any more
        self.dropped = 0  # entries that the overflow policy dropped and no notice tells of yet
        self.dropped_since = ""
        self.slow = False  # retired, or a notice is due: its next entry needs more than emit's short way

    def must_wait(self) -> bool:
        """Whether entries of the session under an earlier writer id go first."""
        if self.before is not None and not (self.before.items or self.before.must_wait()):
            self.before = None
        return self.before is not None

    def unacknowledged(self) -> list[bytes]:
        """The lines that the stream may not have yet, oldest first. Callable from any thread."""
        before = self.before
        earlier = before.unacknowledged() if before is not None else []
        snapshot = self.items.copy()  # one C call: iterating while emit appends would raise
        return earlier + [line for line in (item.line for item in snapshot) if line is not None]
