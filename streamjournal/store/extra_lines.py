"""Lines that somebody added to a journal's file by hand: taken in, and counted in the metadata."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final
from zlib import crc32

import msgspec

from streamjournal.store.history import LineCount
from streamjournal.store.meta import Meta

_PIECE: Final = 2**20


def counting_extra(meta: Meta, before: Meta | None, body: int, start: int, stop: int, lines: bytes) -> Meta:
    """`meta`, with what stands between two offsets of the open file `body` counted in.

    Args:
        meta: of the new version, by someone who knew only the committed bytes and the `lines`.
        before: of the version before; None for an adopted journal, whose missing newline `meta` counts.
        start, stop: where the committed bytes ended, and where the new lines begin.
    """
    if stop == start or (before is None and stop == start + 1):
        return meta
    count = LineCount(meta.summary if before is None else before.summary)
    crc = 0 if before is None or before.crc is None else before.crc
    held = b""
    for piece in _pieces(body, start, stop):
        crc = crc32(piece, crc)
        *whole, held = (held + piece).split(b"\n")
        _count(count, whole)
    _count(count, [held])
    if before is None:  # only the committer has read what was there; who adds lines meanwhile is not followed
        counted = count.summary
        summary = msgspec.structs.replace(meta.summary, entries=counted.entries, errors=counted.errors)
        return msgspec.structs.replace(meta, summary=summary, crc=None)
    _count(count, lines.split(b"\n"))
    known = None if before.crc is None else crc32(lines, crc)
    return msgspec.structs.replace(meta, summary=count.summary, crc=known)


def _count(count: LineCount, lines: list[bytes]) -> None:
    for line in filter(None, lines):
        count.add(line)


def _pieces(body: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        piece = os.pread(body, min(_PIECE, stop - start), start)
        if not piece:
            return
        start += len(piece)
        yield piece
