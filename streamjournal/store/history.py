"""What a journal's own lines say of it, for when its metadata cannot say.

That is so for a journal that an older tool wrote, for one whose metadata somebody removed, and for a
session with more writers than the metadata has room for. It costs one read of the whole journal.
"""

from __future__ import annotations

from streamjournal.core.entry import envelope_of, split_id
from streamjournal.core.lines import split_blocks
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.summary import Status, Summary, status_after
from streamjournal.store.port import Head, Store


async def read_history(
    store: Store, session_id: str, *, upto: Head | None = None
) -> tuple[WriterNumbers, Summary]:
    """The writers' numbers and the summary, counted from the lines.

    Args:
        upto: count what this version of the journal had, and nothing that came later. A reader needs
            that: what is beyond the version that he gave out is still new to him.
    """
    numbers = WriterNumbers()
    entries = errors = 0
    first = last = ""
    status: Status = "running"
    async with store.open(session_id, 0, None if upto is None else upto.size) as body:
        if body is None or (upto is not None and _generation(body.head) != _generation(upto)):
            return numbers, Summary()  # deleted, or begun anew: nothing is left of that version
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


def _generation(head: Head) -> str | None:
    return head.meta.generation if head.meta is not None else None
