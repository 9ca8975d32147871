"""The seed functions themselves."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import msgspec

from streamjournal.agents.markers import extract
from streamjournal.agents.session_journal.seed import SeedFunction
from streamjournal.agents.session_journal.shared import count_entries, journal_uri, shared_journal
from streamjournal.client import Journal
from streamjournal.core.entry import check_session_id
from streamjournal.core.errors import BufferFullError, DeliveryError, StreamjournalError, UnavailableError
from streamjournal.core.loop_thread import LoopThread
from streamjournal.emit.receipt import Receipt

ACKNOWLEDGE_SECONDS: Final = 10.0  # that a write waits for the stream to have its entry
ARCHIVE_DAYS: Final = 30  # after which old versions of a journal go to Glacier
UNNAMED_EVENT: Final = "CODE_INTERPRETER_EVENT"  # an entry that sandboxed code printed without a type
_PAUSE: Final = 0.2  # seconds before the second attempt; doubled for each further one
_ARGUMENTS: Final = ("event_type", "tool_name", "details", "level")

_Details = dict[str, Any] | list[Any] | str | int | float | bool | None


@SeedFunction
def write_journal_entry(
    session_id: str,
    event_type: str,
    tool_name: str = "",
    details: _Details = None,
    level: str = "INFO",
) -> str:
    """Write one entry to the session's journal, where other tools and people can read it at once.

    Args:
        session_id: The session that the entry belongs to.
        event_type: What happened, in capitals: TOOL_START, DATA_LOADED, TOOL_ERROR, and the like.
        tool_name: The tool that it happened in.
        details: A JSON object with the particulars; anything else becomes {"value": it}.
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL.

    Returns:
        JSON: status ("success", or "error" with a message), entry, s3_path, session_id, entry_count.
    """
    try:
        write = _Write(session_id, event_type, tool_name, details, level)
        return _json(write.answer())
    except Exception as problem:  # noqa: BLE001  # a tool must not fail because of its journal
        return _json(_error(problem, session_id))


@SeedFunction
def write_journal_entry_with_retry(
    session_id: str,
    event_type: str,
    tool_name: str = "",
    details: _Details = None,
    level: str = "INFO",
    max_retries: int = 3,
) -> str:
    """Write one entry to the session's journal, and try again if it cannot be written now.

    Args:
        session_id: The session that the entry belongs to.
        event_type: What happened, in capitals: TOOL_START, DATA_LOADED, TOOL_ERROR, and the like.
        tool_name: The tool that it happened in.
        details: A JSON object with the particulars; anything else becomes {"value": it}.
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        max_retries: How often to try, at least once.

    Returns:
        JSON as of write_journal_entry, and attempt: how often it was tried.

    Raises:
        InvalidEntryError: the entry cannot be one; trying again would not help.
        TimeoutError: the stream did not take it in time. It stays in the spool, and is sent later.
        StreamjournalError: every attempt failed.
    """
    write: _Write | None = None
    for attempt in range(1, max(1, max_retries) + 1):
        try:
            # An entry that was accepted is waited for again, never written a second time.
            write = write or _Write(session_id, event_type, tool_name, details, level)
            return _json({**write.answer(), "attempt": attempt})
        except (TimeoutError, UnavailableError, BufferFullError, DeliveryError) as problem:
            if isinstance(problem, DeliveryError):
                write = None  # this one will never get there
            if attempt >= max_retries:
                problem.add_note(f"tried {attempt} times")
                raise
            time.sleep(_PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the loop ends by an answer or an error")


@SeedFunction
def read_journal(session_id: str, filter_event_type: str | None = None) -> str:
    """Read the session's journal, what was written a moment ago included.

    Args:
        session_id: The session to read.
        filter_event_type: Only entries of this event type.

    Returns:
        JSON: status ("success"; "not_found" or "error" with a message), session_id, entries,
        entry_count, s3_path; missing, if not everything could be read.
    """
    try:
        journal = shared_journal()
        read = journal.read(session_id, event_types=filter_event_type or None)
        entries = [entry.to_dict() for entry in read]
        answer: dict[str, Any] = {
            "status": "success",
            "session_id": session_id,
            "entries": entries,
            "entry_count": len(entries),
            "s3_path": journal_uri(journal.settings, session_id),
        }
        if read.missing:
            answer["missing"] = [f"{it.what}: {it.why}" for it in read.missing]
        if not entries and not read.missing and not (filter_event_type and _exists(journal, session_id)):
            answer |= {"status": "not_found", "message": f"session {session_id} has no journal yet"}
        return _json(answer)
    except Exception as problem:  # noqa: BLE001  # a tool must not fail because of its journal
        return _json(_error(problem, session_id))


@SeedFunction
def extract_journal_entries(output: str) -> list[dict[str, Any]]:
    """The journal entries that a program printed between ===JOURNAL_ENTRY=== and ===JOURNAL_END===.

    Args:
        output: all that the program printed.

    Returns:
        One dict for each, in order, whose keys are arguments of write_journal_entry:
        `write_journal_entry(session_id, **entry)`. Other keys that were printed are moved into details.
        Blocks that are no entries are left out, as is everything if output is no text.
    """
    if not isinstance(output, str):  # None, say, of a program that printed nothing
        return []  # type: ignore[unreachable]
    return [_as_arguments(entry) for entry in extract(output).entries]


@SeedFunction
def setup_journal_bucket() -> str:
    """Make what the journals need, where it is not there yet: the bucket, whose old versions are archived
    after 30 days, the stream and the lease table; embedded, the folders.

    Returns:
        JSON: status ("success", or "error" with a message), bucket (null if embedded), s3_path of all
        journals, and steps, each with resource, action ("created", "changed", "unchanged") and detail.
    """
    try:
        from streamjournal.admin.init.initialise import initialise

        settings = shared_journal().settings
        loop = LoopThread("streamjournal-setup")  # its own: the caller may be inside an event loop
        try:
            done = loop.call(
                lambda: initialise(
                    settings, archive_versions_after=None if settings.embedded else ARCHIVE_DAYS
                )
            )
        finally:
            loop.stop()
        bucket = None if settings.embedded else settings.bucket_name()
        where = f"s3://{bucket}" if bucket else settings.home_path.resolve().as_uri()
        steps = [step._asdict() for step in done.steps]
        answer = {"status": "success", "bucket": bucket, "s3_path": f"{where}/{settings.prefix}"}
        return _json({**answer, "steps": steps})
    except Exception as problem:  # noqa: BLE001  # as the other functions
        return _json(_error(problem))


class _Write:
    """One entry that was accepted, on its way."""

    def __init__(
        self, session_id: str, event_type: str, tool_name: str | None, details: Any, level: str
    ) -> None:
        self._journal = shared_journal()
        self._session_id = check_session_id(session_id)
        self._receipt = self._journal.emit(
            event_type,
            session_id=session_id,
            tool_name=tool_name,
            details={} if details is None else details,
            level=level,
        )
        self._line = self._receipt.line  # kept here, since the receipt gives it up with its outcome

    def answer(self) -> dict[str, Any]:
        """Wait until the stream has it, and say where it is.

        Raises:
            TimeoutError: the stream does not have it yet.
            DeliveryError: the stream will never have it.
        """
        self._receipt.result(ACKNOWLEDGE_SECONDS)
        answer: dict[str, Any] = {
            "status": "success",
            "session_id": self._session_id,
            "entry": self._entry(self._receipt),
            "s3_path": journal_uri(self._journal.settings, self._session_id),
        }
        try:
            count = count_entries(self._journal, self._session_id)
        except StreamjournalError as problem:  # the entry is there; that it cannot be counted is no failure
            return {**answer, "entry_count": None, "missing": [str(problem)]}
        answer["entry_count"] = count.entries
        return {**answer, "missing": count.missing} if count.missing else answer

    def _entry(self, receipt: Receipt) -> dict[str, Any]:
        if self._line is not None:
            fields: dict[str, Any] = msgspec.json.decode(self._line)
            return fields
        for entry in self._journal.read(self._session_id):  # it was acknowledged within `emit` itself
            if entry.id == receipt.id:
                return entry.to_dict()
        return {"id": receipt.id, "session_id": self._session_id}


def _exists(journal: Journal, session_id: str) -> bool:
    return bool(journal.read(session_id, last=1).all())


def _as_arguments(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as sandboxed code printed it, as keyword arguments of `write_journal_entry`."""
    found = {name: entry[name] for name in _ARGUMENTS if entry.get(name) is not None}
    found["event_type"] = str(found.get("event_type") or UNNAMED_EVENT)
    rest = {name: value for name, value in entry.items() if name not in _ARGUMENTS}
    if rest:
        details = found.get("details", {})
        found["details"] = rest | (details if isinstance(details, dict) else {"value": details})
    return found


def _error(problem: Exception, session_id: object = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"status": "error", "message": str(problem) or type(problem).__name__}
    if isinstance(problem, TimeoutError):
        answer["message"] += "; it is sent as soon as the stream can be reached: do not write it again"
    return answer if session_id is None else {**answer, "session_id": session_id}


def _json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, default=str, ensure_ascii=False)
