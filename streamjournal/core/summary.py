"""The summary of a session, as a list of sessions shows it, and how an entry changes it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from streamjournal.core.entry import SESSION_END, SESSION_START, Envelope, decode_object
from streamjournal.core.errors import InvalidEntryError

Status = Literal["running", "ended", "failed"]
STATUSES: Final[tuple[Status, ...]] = ("running", "ended", "failed")


class Summary(msgspec.Struct, frozen=True):
    """What a list of sessions shows of one.

    Args:
        entries: lines in the journal.
        errors: those at level ERROR.
        first, last: timestamps of the first and the last line, as written.
        status: `running`; after SESSION_END `ended`, or `failed` if that said so.
    """

    entries: int = 0
    errors: int = 0
    first: str = ""
    last: str = ""
    status: Status = "running"


def status_after(envelope: Envelope, line: bytes) -> Status | None:
    """What an entry makes of its session's status; None for most.

    SESSION_END ends it: as failed at level ERROR or above, or if its details hold `error`, or a
    `status` of failed or error. Only another SESSION_START sets an ended session running again.
    """
    if envelope.event_type == SESSION_START:
        return "running"
    if envelope.event_type != SESSION_END:
        return None
    if envelope.level in ("ERROR", "CRITICAL"):
        return "failed"
    try:
        details = decode_object(line).get("details")
    except InvalidEntryError:
        return "ended"
    if not isinstance(details, dict):
        return "ended"
    failed = details.get("error") or str(details.get("status", "")).lower() in ("error", "failed", "failure")
    return "failed" if failed else "ended"
