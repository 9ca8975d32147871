"""What a journal's own lines say of it, for when its metadata cannot say.

That is so for a journal that an older tool wrote, for one whose metadata somebody removed, and for a
session with more writers than the metadata has room for. It costs one read of the whole journal.
"""

from __future__ import annotations

from streamjournal.core.entry import envelope_of, split_id
from streamjournal.core.lines import split_blocks
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.summary import Status, Summary, status_after
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
            for line in filter(None, lines):
                entries += 1
                envelope = envelope_of(line)
                if envelope is None:  # edited by hand; the line stays, and verify reports it
                    continue
                name = split_id(envelope.id)
                if name is not None:
                    numbers.add(*name)
                errors += envelope.level == "ERROR"
                first = first or envelope.timestamp
                last = envelope.timestamp or last
                status = status_after(envelope, line) or status
    return numbers, Summary(entries, errors, first, last, status)
