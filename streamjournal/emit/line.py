"""What emit's long way needs of an entry: a function from (id, timestamp) to its line, that cannot fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from streamjournal.core.entry import Draft, encode_draft
from streamjournal.core.jsonable import encode_details

Line = Callable[[str, str], bytes]  # (id, timestamp) -> the entry's line

_TEXTS = ("session_id", "event_type", "tool_name", "level", "span_id", "parent_id", "source")


def line_of(draft: Draft) -> Line:
    """The draft's line. Its details are encoded here, outside the critical section, because encoding may
    run the caller's own code; what is encoded already stands in them as `msgspec.Raw`.
    """
    if type(draft.details) is dict:
        draft.details = encode_details(draft.details)
    for field in _TEXTS:
        value = getattr(draft, field)
        if isinstance(value, str) and type(value) is not str:  # the encoder takes exactly str
            setattr(draft, field, str.__str__(value))
    return partial(_fill_in, draft)


def _fill_in(draft: Draft, entry_id: str, timestamp: str) -> bytes:
    draft.id = entry_id
    draft.timestamp = timestamp
    return encode_draft(draft)
