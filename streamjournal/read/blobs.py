"""Putting details that were too large for a record back into the entry that points to them."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from streamjournal.core.entry import Entry, decode_entry
from streamjournal.read.words import Missing
from streamjournal.store.names import blob_key
from streamjournal.store.port import Store


async def decode_with_blob(store: Store, line: bytes, session_id: str, missing: list[Missing]) -> Entry:
    """The entry of a line, its details fetched from the store if that is where they are."""
    entry = decode_entry(line, session_id=session_id)
    if may_have_blob(line):
        pointer = blob_pointer(entry.details)
        if pointer is not None:
            await _resolve(store, entry, session_id or entry.session_id, pointer, missing)
    return entry


def may_have_blob(line: bytes) -> bool:
    """Whether a line has to be looked at for a blob; cheap, and true for all that have one."""
    return b'"$blob"' in line


def blob_pointer(details: Any) -> dict[str, Any] | None:
    """The pointer that stands in place of an entry's details, or None."""
    if isinstance(details, dict) and details.keys() == {"$blob", "bytes", "sha256"}:
        return details
    return None


async def _resolve(
    store: Store, entry: Entry, session_id: str, pointer: dict[str, Any], missing: list[Missing]
) -> None:
    """Fetch the details of an entry of `session_id`; by that, not by what the line says of itself."""
    key = blob_key(session_id, entry.id or "")
    if pointer["$blob"] != key:  # whoever writes an entry must not make its reader fetch another object
        missing.append(
            Missing("blob", f"entry {entry.id} points to {pointer['$blob']!r}, which is not its own")
        )
        return
    data = await store.get_blob(key)
    if data is None:
        missing.append(Missing("blob", f"{pointer['$blob']} of entry {entry.id} is not in the store"))
    elif hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        missing.append(Missing("blob", f"{pointer['$blob']} of entry {entry.id} was changed"))
    else:
        entry.details = msgspec.json.decode(data)
