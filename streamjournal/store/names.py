"""Every object name, in one file.

=====================================================  =====================  ==========
name                                                   holds                  mutability
=====================================================  =====================  ==========
`{prefix}{session}/journal.jsonl`                      a session's journal    grows
`blobs/{session}/{entry id}.json`                      details too large      fixed
`dead-letters/{stream}/{shard}/{sequence}-{index}`     a record, no entry     fixed
`scratch/{id}`                                         a probe's object       deleted
=====================================================  =====================  ==========

`{prefix}` is the setting, `journals/` by default; the others lie outside it, so that whatever
lists journals finds journals only.

`{session}` is the session id with every byte outside `A-Z a-z 0-9 - _ .` percent-encoded. Encoded
further are the first characters of `.` and `..` (which file systems take for folders) and of names
that Windows reserves (`CON`). A name over 200 bytes becomes a readable prefix, `~`, and the
SHA-256 of the session id; the id is then read from the journal's first line.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

MAX_NAME_BYTES: Final = 200
JOURNAL: Final = "journal.jsonl"
BLOBS: Final = "blobs/"
DEAD_LETTERS: Final = "dead-letters/"
SCRATCH: Final = "scratch/"

_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_DIGEST_LENGTH: Final = 64
_SAFE_TILDE: Final = re.compile(r"~[0-9a-f]{64}")
_BLOB_KEY: Final = re.compile(r"blobs/(?!\.\.?/)[A-Za-z0-9%._~-]{1,200}/[A-Za-z0-9%._~-]{1,240}\.json")
_LETTER_KEY: Final = re.compile(
    r"dead-letters/(?!\.\.?/)[A-Za-z0-9%._~-]{1,200}/(?!\.\.?/)[A-Za-z0-9%._~-]{1,240}/"
    r"(?P<sequence>[0-9a-z]{1,200})-(?P<index>[0-9]{1,18})\.json"
)


def session_name(session_id: str) -> str:
    """The name that stands for a session: one path component, ASCII, at most 200 bytes."""
    name = quote(session_id, safe="").replace("~", "%7E")  # quote() leaves ~ as it is
    if name.strip(".") == "" or _RESERVED.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) <= MAX_NAME_BYTES:
        return name
    readable = re.sub(r"%[0-9A-F]?$", "", name[: MAX_NAME_BYTES - _DIGEST_LENGTH - 1])
    return f"{readable}~{hashlib.sha256(session_id.encode()).hexdigest()}"


def session_of(name: str) -> str | None:
    """The session id that a name stands for; None if only the journal's lines can tell.

    Names that `session_name` does not make (an older tool's folder, say) stand for themselves.
    """
    if "~" in name and _SAFE_TILDE.fullmatch(name[-_DIGEST_LENGTH - 1 :]):
        return None
    try:
        return unquote_to_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        return name


def journal_key(prefix: str, session_id: str) -> str:
    """The object of a session's journal."""
    return f"{prefix}{session_name(session_id)}/{JOURNAL}"


def name_in_key(prefix: str, key: str) -> str | None:
    """The session's name in a journal's key, or None if the key is no journal's."""
    if not key.startswith(prefix) or not key.endswith("/" + JOURNAL):
        return None
    name = key[len(prefix) : -len(JOURNAL) - 1]
    return name if name and "/" not in name else None


def blob_key(session_id: str, entry_id: str) -> str:
    """The object of an entry's details that were too large for a record."""
    return f"{BLOBS}{session_name(session_id)}/{quote(entry_id, safe='')}.json"


def is_blob_key(key: str) -> bool:
    """Whether a key may be read as a blob. It stands in an entry, so anybody may have written it."""
    return _BLOB_KEY.fullmatch(key) is not None


def dead_letter_key(stream: str, shard: str, sequence: str, index: int) -> str:
    """The object of a dead letter; the same letter gets the same key, so a replay writes no second."""
    return f"{DEAD_LETTERS}{quote(stream, safe='')}/{quote(shard, safe='')}/{sequence}-{index}.json"


def is_dead_letter_key(key: str) -> bool:
    """Whether a key is a dead letter's. A person may type one, and it must not lead anywhere else."""
    return _LETTER_KEY.fullmatch(key) is not None


def dead_letter_order(key: str) -> tuple[str, int, str, int]:
    """Sorts dead letters' keys by shard, then as the stream had them: numbers of any length by value."""
    match = _LETTER_KEY.fullmatch(key)
    if match is None:
        return (key, 0, "", 0)
    return (key.rpartition("/")[0], len(match["sequence"]), match["sequence"], int(match["index"]))
