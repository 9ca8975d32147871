"""The last lines of a journal, without reading the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamjournal.store.port import Head, Store

_FIRST_BYTES = 64 * 2**10
_MOST_BYTES = 8 * 2**20  # per step; steps double


class LastLine(NamedTuple):
    """A line, without its newline, and the offset after it."""

    line: bytes
    end: int


async def last_lines(
    store: Store, head: Head, count: int, passes: Callable[[bytes], bool]
) -> list[LastLine] | None:
    """The last `count` lines that pass, oldest first, of the journal at version `head`.

    Returns:
        The lines; None if the journal was deleted meanwhile.
    """
    found: list[LastLine] = []  # newest first
    end = head.size
    rest = b""  # the beginning of the line that the step before this one ended in
    step = _FIRST_BYTES
    while end > 0 and len(found) < count:
        start = max(0, end - step)
        chunk = await _piece(store, head, start, end)
        if chunk is None:
            return None
        line_end = end + len(rest)
        lines = (chunk + rest).split(b"\n")
        rest = lines.pop(0) if start > 0 else b""
        for line in reversed(lines):
            if line and passes(line):
                found.append(LastLine(line, min(line_end + 1, head.size)))
                if len(found) == count:
                    break
            line_end -= len(line) + 1
        end = start
        step = min(step * 2, _MOST_BYTES)
    found.reverse()
    return found


async def _piece(store: Store, head: Head, start: int, end: int) -> bytes | None:
    async with store.open(head.session_id, start, end) as body:
        if body is None or _is_another(body.head, head):
            return None
        piece = b"".join([chunk async for chunk in body.chunks])
        return piece if len(piece) == end - start else None


def _is_another(now: Head, then: Head) -> bool:
    """Whether the journal was begun anew; one that was adopted since is still the same."""
    if then.meta is None:
        return False
    return now.meta is None or now.meta.generation != then.meta.generation
