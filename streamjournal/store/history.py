"""What a journal's own lines say of it, for when its metadata cannot say.

That is so for a journal that an older tool wrote, for one whose metadata somebody removed, and for a
session with more writers than the metadata has room for. It costs one read of the whole journal.
"""

from __future__ import annotations

import msgspec

from streamjournal.core.entry import SESSION_END, SESSION_START, Envelope, decode_envelope, decode_object, split_id
from streamjournal.core.errors import InvalidEntryError
from streamjournal.core.lines import split_blocks
from streamjournal.core.numbers import WriterNumbers
from streamjournal.store.meta import Status, Summary
from streamjournal.store.port import Store


async def read_history(store: Store, session_id: str) -> tuple[WriterNumbers, Summary]:
    """The writers' numbers and the summary, counted from the lines."""
    numbers = WriterNumbers()
    entries = errors = 0
    first = last = ""
    status: Status = "running"
    async with store.open(session_id) as body:
        if body is None:
            return numbers, Summary()
        async for lines in split_blocks(body.chunks):
            for line in lines:
                entries += 1
                try:
                    envelope = decode_envelope(line)
                except msgspec.MsgspecError:  # edited by hand; the line stays, and verify reports it
                    continue
                name = split_id(envelope.id)
                if name is not None:
                    numbers.add(*name)
                errors += envelope.level == "ERROR"
                first = first or envelope.timestamp
                last = envelope.timestamp or last
                status = status_after(envelope, line) or status
    return numbers, Summary(entries, errors, first, last, status)


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
