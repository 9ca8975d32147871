"""Sessions of the AgentCore code interpreter, journaled: what ran in them, and what it printed.

The SDK's own client, with three of its methods widened. Each operation is a tool's call; the sandbox's
start and stop are entries; and what code prints between markers is taken out of its results as they
arrive. Needs the `agentcore` extra.

The API: https://docs.aws.amazon.com/bedrock-agentcore/latest/APIReference/API_InvokeCodeInterpreter.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from bedrock_agentcore.runtime.context import BedrockAgentCoreContext
from bedrock_agentcore.tools.code_interpreter_client import DEFAULT_IDENTIFIER, CodeInterpreter

from streamjournal.agents.code_results import CodeResults, Outcome
from streamjournal.agents.sandbox_entries import SandboxOutput
from streamjournal.core.errors import StreamjournalError
from streamjournal.emit.redaction import bounded_json
from streamjournal.emit.spans import MAX_RESULT_BYTES, Span, describe_error

if TYPE_CHECKING:
    from streamjournal.client import AsyncJournal, Journal
    from streamjournal.client.session import AsyncSession, Session

_log = logging.getLogger("streamjournal.agents")

SANDBOX_STARTED: Final = "SANDBOX_STARTED"
SANDBOX_START_FAILED: Final = "SANDBOX_START_FAILED"
SANDBOX_STOPPED: Final = "SANDBOX_STOPPED"
SANDBOX_STOP_FAILED: Final = "SANDBOX_STOP_FAILED"

_PRINTING: Final = frozenset({"executeCode", "executeCommand"})  # whose stdout is the code's own words


@contextmanager
def journaled_code_session(
    region: str,
    journal: Journal | AsyncJournal,
    session: str | Session | AsyncSession,
    timeout: int = 900,
    *,
    identifier: str = DEFAULT_IDENTIFIER,
    boto_session: Any = None,
    nonce: str | None = None,
) -> Iterator[JournaledCodeInterpreter]:
    """A sandbox for the length of a block; gives the SDK's client, journaled.

    Args:
        region: `us-west-2`, …
        session: the session that the entries belong to, or its id.
        timeout: seconds after which AWS ends the sandbox by itself.
        identifier: the code interpreter; AWS's own unless given.
        boto_session: a `boto3.Session` for the SDK.
        nonce: what the markers of printed entries hold, see `agents.preamble`.

    Raises:
        botocore.exceptions.ClientError, BotoCoreError: the sandbox cannot be started, or stopped. An
            exception of the block goes on, also if the sandbox cannot be stopped then.
        ValueError: the nonce cannot be one.
    """
    handle = journal.session(session) if isinstance(session, str) else session
    client = JournaledCodeInterpreter(
        region, handle, timeout=timeout, identifier=identifier, boto_session=boto_session, nonce=nonce
    )
    client.start()
    try:
        yield client
    except BaseException:
        client.leave_unread()
        with suppress(Exception):  # it is in the journal; what went wrong first is what the caller must see
            client.stop()
        raise
    client.read_the_rest()
    client.stop()


class JournaledCodeInterpreter(CodeInterpreter):
    """The SDK's client; see `journaled_code_session`."""

    def __init__(
        self,
        region: str,
        journal_session: Session | AsyncSession,
        *,
        timeout: int = 900,
        identifier: str = DEFAULT_IDENTIFIER,
        boto_session: Any = None,
        nonce: str | None = None,
    ) -> None:
        super().__init__(region, session=boto_session)
        self._journal_session = journal_session
        self._timeout = timeout
        self._wanted = identifier
        self._nonce = nonce
        self._unread: dict[CodeResults, None] = {}
        self._started = 0.0
        SandboxOutput(journal_session, nonce=nonce)  # a nonce that cannot be one is told now

    def start(
        self,
        identifier: str | None = None,
        name: str | None = None,
        session_timeout_seconds: int | None = None,
    ) -> str:
        """Start a sandbox: SANDBOX_STARTED, with its own id and the AgentCore runtime's session's."""
        timeout = session_timeout_seconds or self._timeout
        details: dict[str, Any] = {
            "identifier": identifier or self._wanted,
            "region": self.region,
            "timeout_seconds": timeout,
        }
        runtime_session = BedrockAgentCoreContext.get_session_id()
        if runtime_session:
            details["runtime_session_id"] = runtime_session
        try:
            sandbox: str = super().start(details["identifier"], name, timeout)
        except Exception as problem:
            self._tell(SANDBOX_START_FAILED, {**details, "error": describe_error(problem)}, "ERROR")
            raise
        self._started = self._journal_session.journal.clock.monotonic()
        self._tell(SANDBOX_STARTED, {"sandbox_id": sandbox, **details})
        return sandbox

    def stop(self) -> bool:
        """Stop the sandbox, if one runs: SANDBOX_STOPPED, or SANDBOX_STOP_FAILED and the exception."""
        if not self.session_id:
            return bool(super().stop())
        seconds = self._journal_session.journal.clock.monotonic() - self._started
        details = {"sandbox_id": self.session_id, "duration_ms": round(seconds * 1000, 3)}
        try:
            super().stop()
        except Exception as problem:
            self._tell(SANDBOX_STOP_FAILED, {**details, "error": describe_error(problem)}, "WARNING")
            raise
        self._tell(SANDBOX_STOPPED, details)
        return True

    def invoke(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Invoke an operation as a tool's call of its name.

        The results of `executeCode` and `executeCommand` come as they arrive, without the entries in
        them, and the call lasts until they have been read: by you, or before the next operation. Those
        of other operations are read at once.
        """
        self.read_the_rest(begun=False)
        if not self.session_id or not self.identifier:
            self.start()
        arguments = {name: bounded_json(value, MAX_RESULT_BYTES) for name, value in (params or {}).items()}
        span = self._journal_session.tool(method, **arguments)
        span.note(sandbox_id=self.session_id)
        span.start()
        try:
            response = super().invoke(method, params)
            stream = response.get("stream")
            if stream is None:
                span.end()
            elif method in _PRINTING:
                response["stream"] = self._results(stream, span)
            else:
                response["stream"] = iter(_read_at_once(stream, span))
        except BaseException as problem:
            span.end(problem)
            raise
        return response

    def read_the_rest(self, *, begun: bool = True) -> None:
        """Read the results that nobody has read, so that their entries are journaled.

        Args:
            begun: also of those that somebody has begun to read.
        """
        for results in list(self._unread):
            if results.begun and not begun:
                continue
            with suppress(Exception):  # its span has the error, and nobody waits for these results
                results.read_the_rest()

    def leave_unread(self) -> None:
        """End the calls whose results have not been read."""
        for results in list(self._unread):
            results.close()

    def _results(self, stream: Any, span: Span) -> CodeResults:
        output = SandboxOutput(self._journal_session, span=span, nonce=self._nonce)
        results = CodeResults(
            stream, span, output, self._nonce, on_end=lambda one: self._unread.pop(one, None)
        )
        self._unread[results] = None
        return results

    def _tell(self, event_type: str, details: dict[str, Any], level: str = "INFO") -> None:
        """Emit an entry. A journal that takes nothing must not end the sandbox's work."""
        try:
            self._journal_session.emit(event_type, details=details, level=level)
        except StreamjournalError as problem:
            _log.warning("%s is not in the journal: %s", event_type, problem)


def _read_at_once(stream: Any, span: Span) -> list[dict[str, Any]]:
    """All events of an operation that prints nothing, with its end in the journal."""
    outcome = Outcome()
    events: list[dict[str, Any]] = []
    for event in stream:
        outcome.look_at(event)
        events.append(event)
    outcome.end(span)
    return events
