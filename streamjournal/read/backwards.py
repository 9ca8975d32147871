"""The last lines of a journal, without reading the rest."""

from __future__ import annotations

from collections.abc import Callable

from streamjournal.store.port import Head, Store

_FIRST_BYTES = 64 * 2**10
_MOST_BYTES = 8 * 2**20  # per step; steps double


async def last_lines(
    store: Store, head: Head, count: int, passes: Callable[[bytes], bool]
) -> tuple[list[bytes], int]:
    """The last `count` lines that pass, oldest first, of the journal at version `head`.

    Returns:
        The lines, and how many bytes were read for them.
    """
    found: list[bytes] = []  # newest first
    end = head.size
    rest = b""  # the beginning of the line that the step before this one ended in
    step = _FIRST_BYTES
    total = 0
    while end > 0 and len(found) < count:
        start = max(0, end - step)
        chunk = await _piece(store, head.session_id, start, end)
        total += len(chunk)
        lines = (chunk + rest).split(b"\n")
        rest = lines.pop(0) if start > 0 else b""
        for line in reversed(lines):
            if line and passes(line):
                found.append(line)
                if len(found) == count:
                    break
        end = start
        step = min(step * 2, _MOST_BYTES)
    found.reverse()
    return found, total


async def _piece(store: Store, session_id: str, start: int, end: int) -> bytes:
    async with store.open(session_id, start, end) as body:
        return b"" if body is None else b"".join([chunk async for chunk in body.chunks])
