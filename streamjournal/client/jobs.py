"""Long jobs that run somewhere else (a training, an export): their start, changes and end as entries.

TRAINING_STARTED, then TRAINING_STATUS at every change, then TRAINING_FINISHED. The agent may end long
before the job does; what is in the journal lets another one go on watching.
"""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from streamjournal.core.errors import InvalidEntryError, StreamjournalError
from streamjournal.emit.spans import current_place

if TYPE_CHECKING:
    from streamjournal.client.session import AsyncSession, Session

_log = logging.getLogger("streamjournal.client")

#: How the AWS services say that a job has ended, in lower case and without what joins the words.
SUCCEEDED: Final = frozenset({"completed", "succeeded", "success", "finished", "done"})
FAILED: Final = frozenset(
    {
        "aborted",
        "canceled",
        "cancelled",
        "error",
        "expired",
        "failed",
        "failure",
        "fault",
        "partiallycompleted",
        "stopped",
        "terminated",
        "terminatedwitherrors",
        "timedout",
        "timeout",
    }
)
UNKNOWN: Final = "unknown"  # while the service does not answer
_MAX_MISSES: Final = 5  # polls in a row that may fail
_MAX_STATUS: Final = 256  # characters

Seen = str | Mapping[str, Any]


class _JobBase:
    """What both jobs share.

    Args:
        kind: names the entries: "training" makes TRAINING_STARTED.
        name: the job's own.
        resume: it was started before, so no *_STARTED is written.
        details: further ones of *_STARTED.
    """

    def __init__(
        self,
        session: Session | AsyncSession,
        kind: str,
        name: str,
        details: Mapping[str, Any],
        *,
        resume: bool,
    ) -> None:
        self.name = name
        self.last: str | None = None  # the status that was told last
        self.ended = False
        self._session = session
        self._prefix = re.sub(r"[^A-Z0-9]+", "_", kind.upper()).strip("_")
        if not self._prefix:
            raise InvalidEntryError("kind", f"is {kind!r}; it needs a letter, as in 'training'")
        self._started: float | None = None
        if not resume:
            self._started = session.journal.clock.monotonic()
            self._say("STARTED", dict(details))

    def status(self, status: str, /, **details: Any) -> None:
        """Write *_STATUS, if that is another status than before."""
        self.change(status, details)

    def change(self, status: str, details: Mapping[str, Any], level: str = "INFO") -> None:
        """Do what `status` does, at any level."""
        status = str(status)[:_MAX_STATUS]
        if status != self.last and not self.ended:
            self.last = status
            self._tell("STATUS", {**details, "status": status}, level)

    def finish(self, status: str = "Completed", /, **details: Any) -> None:
        """Write *_FINISHED, once: at level ERROR if the status says that the job failed."""
        self.end(status, details)

    def end(self, status: str, details: Mapping[str, Any]) -> None:
        """Do what `finish` does."""
        if self.ended:
            return
        self.ended = True
        self.last = status = str(status)[:_MAX_STATUS]
        if self._started is not None:
            seconds = self._session.journal.clock.monotonic() - self._started
            details = {"duration_ms": round(seconds * 1000, 3), **details}
        level = "ERROR" if _plain(status) in FAILED else "INFO"
        self._tell("FINISHED", {**details, "status": status}, level)

    def _tell(self, what: str, details: dict[str, Any], level: str) -> None:
        """A journal that takes nothing must not end the watching."""
        try:
            self._say(what, details, level)
        except StreamjournalError as problem:
            _log.warning("%s_%s of %s is not in the journal: %s", self._prefix, what, self.name, problem)

    def _say(self, what: str, details: dict[str, Any], level: str = "INFO") -> None:
        session, span = current_place()
        inside = span is not None and session.session_id == self._session.session_id
        self._session.emit(
            f"{self._prefix}_{what}",
            tool_name=span.tool_name if span is not None and inside else None,
            details={"name": self.name, **details},
            level=level,
        )


class _Watch:
    """What one poll means for a job, and when to poll again: the same for sync and async code."""

    def __init__(self, job: _JobBase, every: float, timeout: float | None, now: Callable[[], float]) -> None:
        if not every > 0:
            raise ValueError(f"every is {every}; it is the seconds between two polls, above 0")
        self._job = job
        self._every = every
        self._timeout = timeout
        self._now = now
        self._deadline = None if timeout is None else now() + timeout
        self._misses: int | None = None  # in a row; None before the first answer

    def saw(self, seen: Seen) -> float | None:
        """Take a poll's answer; gives the seconds until the next, None at the job's end."""
        self._misses = 0
        details = dict(seen) if isinstance(seen, Mapping) else {"status": seen}
        status = details.pop("status", None)
        if not isinstance(status, str):
            raise TypeError(f"the poll gave {seen!r}; it gives the status as text, or {{'status': text, …}}")
        if _plain(status) in SUCCEEDED | FAILED:
            self._job.end(status, details)
            return None
        self._job.change(status, details)
        return self._pause()

    def missed(self, problem: Exception) -> float:
        """Take a poll's failure; gives the seconds until the next.

        Raises:
            Exception: the poll's own, if none has worked yet, or too many in a row have failed.
        """
        if self._misses is None:
            raise problem
        self._misses += 1
        error = {"type": type(problem).__name__, "message": str(problem)}
        self._job.change(UNKNOWN, {"error": error}, "WARNING")
        if self._misses >= _MAX_MISSES:
            raise problem
        return self._pause()

    def _pause(self) -> float:
        if self._deadline is None:
            return self._every
        left = self._deadline - self._now()
        if left <= 0:
            raise TimeoutError(
                f"job {self._job.name} is {self._job.last} after {self._timeout} s; it goes on, and can be "
                "watched again: session.job(…, resume=True)"
            )
        return min(self._every, left)


class Job(_JobBase):
    """A job of a `Session`; see `Session.job`."""

    def watch(self, poll: Callable[[], Seen], *, every: float = 30.0, timeout: float | None = None) -> str:
        """Poll until the job has ended, and write what changes.

        A poll that fails makes the status `unknown` (once), and is repeated: five times in a row.

        Args:
            poll: asks how the job stands; gives the status as text, or `{"status": text, …}` with
                further details for the entry. It is the end if it is Completed, Failed, Stopped,
                TIMED_OUT, …: see `SUCCEEDED`, `FAILED`.
            every: seconds between two polls.
            timeout: seconds; None waits as long as it takes.

        Returns:
            The status at the end.

        Raises:
            TimeoutError: it has not ended by then.
            Exception: the poll's own, if the first fails, or five in a row.
        """
        watch = _Watch(self, every, timeout, self._session.journal.clock.monotonic)
        while True:
            try:
                seen = poll()
            except Exception as problem:  # noqa: BLE001  # it goes on to the caller if it does not pass
                pause: float | None = watch.missed(problem)
            else:
                pause = watch.saw(seen)
            if pause is None:
                return self.last or ""
            time.sleep(pause)


class AsyncJob(_JobBase):
    """A job of an `AsyncSession`; see `AsyncSession.job`."""

    async def watch(
        self,
        poll: Callable[[], Seen | Awaitable[Seen]],
        *,
        every: float = 30.0,
        timeout: float | None = None,
    ) -> str:
        """Poll until the job has ended; see `Job.watch`. A poll that is no async function gets a thread."""
        watch = _Watch(self, every, timeout, anyio.current_time)
        while True:
            try:
                seen = await _asked(poll)
            except Exception as problem:  # noqa: BLE001  # it goes on to the caller if it does not pass
                pause: float | None = watch.missed(problem)
            else:
                pause = watch.saw(seen)
            if pause is None:
                return self.last or ""
            await anyio.sleep(pause)


async def _asked(poll: Callable[[], Seen | Awaitable[Seen]]) -> Seen:
    if inspect.iscoroutinefunction(poll):
        seen: Seen | Awaitable[Seen] = poll()
    else:
        seen = await anyio.to_thread.run_sync(poll, abandon_on_cancel=True)
    return await seen if inspect.isawaitable(seen) else seen


def _plain(status: str) -> str:
    return re.sub(r"[^a-z]", "", status.lower())
