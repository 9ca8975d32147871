"""Putting details that were too large for a record back into the entry that points to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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


def is_own_blob(session_id: str, entry_id: str | None, pointer: Mapping[str, Any]) -> bool:
    """Whether an entry points to its own blob: whoever writes one must not make us fetch another object."""
    return bool(pointer["$blob"] == blob_key(session_id, entry_id or ""))


async def blob_problem(
    store: Store, session_id: str, entry_id: str, pointer: Mapping[str, Any]
) -> str | None:
    """What is wrong with the blob of an entry, after "points to KEY, "; None if it is as it was put.

    Raises:
        StoreUnavailableError, NotConfiguredError: it cannot be read.
    """
    if not is_own_blob(session_id, entry_id, pointer):
        return "which is not its own"
    data = await store.get_blob(pointer["$blob"])
    if data is None:
        return "which is not in the store"
    if len(data) != pointer["bytes"]:
        return f"which has {len(data):,} bytes, and the entry says {pointer['bytes']}"
    if hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        return "which was changed: its SHA-256 is not the one in the entry"
    return None


async def _resolve(
    store: Store, entry: Entry, session_id: str, pointer: dict[str, Any], missing: list[Missing]
) -> None:
    """Fetch the details of an entry of `session_id`; by that, not by what the line says of itself."""
    if not is_own_blob(session_id, entry.id, pointer):
        missing.append(
            Missing("blob", f"entry {entry.id} points to {pointer['$blob']!r}, which is not its own")
        )
        return
    data = await store.get_blob(pointer["$blob"])
    if data is None:
        missing.append(Missing("blob", f"{pointer['$blob']} of entry {entry.id} is not in the store"))
    elif hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        missing.append(Missing("blob", f"{pointer['$blob']} of entry {entry.id} was changed"))
    else:
        entry.details = msgspec.json.decode(data)
