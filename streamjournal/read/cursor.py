"""A cursor: an opaque place in a session, to resume a read or a tail after it.

It names the place after an entry that was given out. If that came out of the journal, its line's end is
a byte offset, which stays true because journals only grow. If it came from the stream, the journal had
not got it yet; a resume looks for it in the journal from the old end on, and on the stream after that.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from streamjournal.core.errors import CursorError

_VERSION = 1


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place in a session, or (without a session) in the stream.

    Args:
        session_id: None for a tail of all sessions.
        generation: of the journal; another one means that the journal was begun anew.
        offset: bytes of the journal that are behind this place for certain.
        last_id: id of the last entry given out, if that came from the stream; of all sessions, its
            `shard:sequence:index`, and those of other records of which a part was given out.
        shards: shard -> sequence number of the last record given out whole (of a session: of the record
            that the last entry is in).
        stream: digest of the stream that they are of; in another one they say nothing.
    """

    session_id: str | None
    generation: str | None = None
    offset: int = 0
    last_id: str | None = None
    shards: dict[str, str] = {}
    version: int = _VERSION
    stream: str = ""

    def at(self, **changes: Any) -> Cursor:
        """The place with some of it changed."""
        return msgspec.structs.replace(self, **changes)

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, *, session_id: str | None) -> Cursor:
        """The cursor that `str` made.

        Raises:
            CursorError: it is none, of a newer version, or of another session.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = msgspec.json.decode(raw, type=cls)
        except (binascii.Error, ValueError) as problem:
            raise CursorError(f"not a cursor: {text[:40]!r} ({problem})") from None
        if cursor.version != _VERSION:
            raise CursorError(f"a cursor of version {cursor.version}; upgrade streamjournal")
        if cursor.session_id != session_id:
            raise CursorError(f"the cursor is of session {cursor.session_id!r}, not of {session_id!r}")
        return cursor
