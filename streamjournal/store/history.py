"""What a journal's own lines say of it, for when its metadata cannot say.

That is so for a journal that an older tool wrote, for one whose metadata somebody removed, and for a
session with more writers than the metadata has room for. It costs one read of the whole journal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple
from zlib import crc32

from streamjournal.core.entry import envelope_of, split_id
from streamjournal.core.lines import split_blocks
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.summary import Status, Summary, status_after
from streamjournal.store.port import Head, Store


class Checksum:
    """The CRC-32 of the bytes that went by.

    Attributes:
        value: so far.
        torn: whether the last byte was no newline.
    """

    def __init__(self) -> None:
        self.value = 0
        self.torn = False

    async def over(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks, counted in."""
        async for chunk in chunks:
            if chunk:
                self.value = crc32(chunk, self.value)
                self.torn = not chunk.endswith(b"\n")
            yield chunk


class Counted(NamedTuple):
    """What the lines of a journal say.

    Args:
        checksum: CRC-32 of the body; a newline that the last line lacks is counted in, because the next
            commit adds it.
    """

    numbers: WriterNumbers
    summary: Summary
    checksum: int


_NOTHING = Summary()


async def read_history(
    store: Store, session_id: str, *, upto: Head | None = None
) -> tuple[WriterNumbers, Summary]:
    """The writers' numbers and the summary, counted from the lines.

    Args:
        upto: count what this version of the journal had, and nothing that came later. A reader needs
            that: what is beyond the version that he gave out is still new to him.
    """
    numbers, summary, _ = await count_body(store, session_id, upto=upto)
    return numbers, summary


async def count_body(store: Store, session_id: str, *, upto: Head | None = None) -> Counted:
    """Like `read_history`, with the checksum of the bytes."""
    numbers = WriterNumbers()
    count = LineCount(_NOTHING)
    checksum = Checksum()
    async with store.open(session_id, 0, None if upto is None else upto.size) as body:
        if body is None or (upto is not None and _generation(body.head) != _generation(upto)):
            return Counted(numbers, _NOTHING, 0)  # deleted, or begun anew: nothing is left of that version
        async for lines in split_blocks(checksum.over(body.chunks)):
            for line in filter(None, lines):
                name = split_id(count.add(line))
                if name is not None:
                    numbers.add(*name)
    value = crc32(b"\n", checksum.value) if checksum.torn else checksum.value
    return Counted(numbers, count.summary, value)


class LineCount:
    """A summary that goes on over lines.

    Args:
        summary: of the lines before them.
    """

    def __init__(self, summary: Summary) -> None:
        self._entries = summary.entries
        self._errors = summary.errors
        self._first = summary.first
        self._last = summary.last
        self._status: Status = summary.status

    def add(self, line: bytes) -> str:
        """Count a line that is not empty; gives its entry's id, or an empty text."""
        self._entries += 1
        envelope = envelope_of(line)
        if envelope is None:  # edited by hand; the line stays, and verify reports it
            return ""
        self._errors += envelope.level == "ERROR"
        self._first = self._first or envelope.timestamp
        self._last = envelope.timestamp or self._last
        self._status = status_after(envelope, line) or self._status
        return envelope.id

    @property
    def summary(self) -> Summary:
        """With the lines so far."""
        return Summary(self._entries, self._errors, self._first, self._last, self._status)


def _generation(head: Head | None) -> str | None:
    return head.meta.generation if head is not None and head.meta is not None else None
