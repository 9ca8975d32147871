"""Lines that somebody added to a journal's file by hand: taken in, and counted in the summary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import msgspec

from streamjournal.core.entry import UNDECODABLE, decode_envelope
from streamjournal.store.meta import Meta

_PIECE: Final = 2**20


def counting_extra(meta: Meta, body: int, start: int, stop: int) -> Meta:
    """`meta` with the lines between two offsets of the open file `body` counted in."""
    if stop - start <= 1:  # nothing, or the newline that the last line lacked
        return meta
    entries = errors = 0
    for line in _lines(body, start, stop):
        entries += 1
        try:
            errors += decode_envelope(line).level == "ERROR"
        except UNDECODABLE:  # it stays, as every line does
            continue
    counted = msgspec.structs.replace(
        meta.summary, entries=meta.summary.entries + entries, errors=meta.summary.errors + errors
    )
    return msgspec.structs.replace(meta, summary=counted)


def _lines(body: int, start: int, stop: int) -> Iterator[bytes]:
    held = b""
    while start < stop:
        piece = os.pread(body, min(_PIECE, stop - start), start)
        if not piece:
            break
        start += len(piece)
        *lines, held = (held + piece).split(b"\n")
        yield from filter(None, lines)
    if held:
        yield held
