"""Whose journal it is, where the object's name is a hash: the first line says it."""

from __future__ import annotations

from typing import Final

import msgspec

from streamjournal.core.entry import decode_envelope

MAX_FIRST_LINE: Final = 4 * 2**20  # bytes; a record holds at most 1 MiB, a foreign tool's line may be more


def session_id_in(line: bytes, name: str) -> str:
    """The session id in a journal's first line; the object's name if the line does not say it."""
    try:
        return decode_envelope(line).session_id or name
    except (msgspec.MsgspecError, UnicodeDecodeError):  # no entry: an older tool's, or edited by hand
        return name
