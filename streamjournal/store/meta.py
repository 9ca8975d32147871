"""What a commit stores in a journal object's metadata, atomically with its body.

Text keys and values, so that S3 (`x-amz-meta-…`, ASCII, 2 KB together) and files (a JSON beside
the journal) hold the same:

=================  ========================================================================
key                value
=================  ========================================================================
`sj-version`       `1`
`sj-generation`    drawn when the journal was begun; another one after a restart
`sj-commit`        drawn for each commit, so that a writer recognises its own
`sj-position`      `stream/shard/sequence`: everything of this session up to there is in it
`sj-writers`       the writers' numbers, see `core.numbers`
`sj-summary`       `entries errors status first last`, times percent-encoded, `-` for none
`sj-crc`           CRC-32 of the whole body, 8 hex digits; an older version wrote none
=================  ========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from streamjournal.core.entry import MAX_TIMESTAMP_BYTES
from streamjournal.core.numbers import ROOM, WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import STATUSES, Summary

MAX_META_BYTES: Final = 1_800  # of S3's 2,048; keys and values together
VERSION: Final = "1"


_CRC: Final = re.compile(r"[0-9a-f]{8}")


class Meta(msgspec.Struct, frozen=True):
    """A journal's metadata.

    Args:
        crc: CRC-32 of the whole body, by which `verify` sees whether a byte of it was changed; None if it
            is not known, because an older version of ours began the journal.
    """

    generation: str
    commit: str
    position: Position | None
    writers: WriterNumbers
    summary: Summary
    crc: int | None = None

    def encode(self) -> dict[str, str]:
        """The metadata as text, within MAX_META_BYTES; the writers' map gives way if it must."""
        s = self.summary
        fields = {
            "sj-version": VERSION,
            "sj-generation": self.generation,
            "sj-commit": self.commit,
            "sj-summary": f"{s.entries} {s.errors} {s.status} {_quote(s.first)} {_quote(s.last)}",
        }
        if self.position is not None:
            fields["sj-position"] = self.position.encode()
        if self.crc is not None:
            fields["sj-crc"] = f"{self.crc:08x}"
        used = sum(len(key) + len(value) for key, value in fields.items()) + len("sj-writers")
        fields["sj-writers"] = self.writers.encode(min(ROOM, MAX_META_BYTES - used))
        return fields

    @classmethod
    def decode(cls, fields: Mapping[str, str]) -> Meta | None:
        """The metadata that `encode` wrote; None for a journal that is not ours (an older tool's).

        Raises:
            ValueError: it is of a newer version, or broken.
        """
        if "sj-version" not in fields:
            return None
        if fields["sj-version"] != VERSION:
            raise ValueError(f"journal metadata of version {fields['sj-version']}; upgrade streamjournal")
        entries, errors, status, first, last = fields["sj-summary"].split(" ")
        if status not in STATUSES:
            raise ValueError(f"unknown status {status!r}")
        position = fields.get("sj-position")
        crc = fields.get("sj-crc")
        if crc is not None and not _CRC.fullmatch(crc):
            raise ValueError(f"not a checksum: {crc!r}")
        return cls(
            generation=fields["sj-generation"],
            commit=fields["sj-commit"],
            position=Position.decode(position) if position else None,
            writers=WriterNumbers.decode(fields.get("sj-writers", "")),
            summary=Summary(int(entries), int(errors), _unquote(first), _unquote(last), status),
            crc=None if crc is None else int(crc, 16),
        )


def _quote(text: str) -> str:
    """Never empty, since HTTP strips and folds spaces; too long (an older tool's) is left out."""
    if not text or len(text.encode()) > MAX_TIMESTAMP_BYTES:
        return "-"
    return "%2D" if text == "-" else quote(text, safe=":+.,")


def _unquote(text: str) -> str:
    return "" if text == "-" else unquote(text)
