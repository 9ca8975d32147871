"""Chunks of bytes into lines, and lines from the end, with memory bounded by the longest line."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The non-empty lines in `chunks`, without their newlines; a last line without one counts."""
    async for lines in split_blocks(chunks):
        for line in lines:
            if line:
                yield line


async def split_blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """Like `split_lines`, in one list per chunk, empty lines included.

    An async step per line would cost more than the line; and with the empty lines, the lengths add up
    to offsets (each line takes one byte more than its length, for its newline).
    """
    held: list[bytes] = []  # pieces of a line that goes on; joined once, so a long line costs no square
    async for chunk in chunks:
        head, newline, rest = chunk.partition(b"\n")
        if not newline:
            held.append(chunk)
            continue
        first = b"".join((*held, head))
        lines = rest.split(b"\n")
        held = [lines.pop()]
        yield [first, *lines]
    last = b"".join(held)
    if last:
        yield [last]
