"""Entries that cannot cross the stream as they are: over the record limit, or refused for good."""

from __future__ import annotations

import logging

from streamjournal.core.errors import EntryRefusedError
from streamjournal.emit.batch import details_of, with_blob
from streamjournal.emit.receipt import Receipt
from streamjournal.store.port import DeadLetter, Store

_log = logging.getLogger("streamjournal.emit")


async def shorten(store: Store, item: Receipt, line: bytes) -> bytes:
    """The entry's line with a pointer in place of its details, which are in the store by then."""
    outbox = item.outbox
    key = await store.put_blob(outbox.session_id, f"{outbox.prefix}{item.n}", details_of(line))
    return with_blob(line, key)


async def park(store: Store, stream: str, item: Receipt, line: bytes, reason: str) -> EntryRefusedError:
    """Keep an entry as a dead letter.

    Args:
        stream: the digest of the stream that refuses it.

    Returns:
        What to tell who waits for it.
    """
    outbox = item.outbox
    letter = DeadLetter(stream, "unsent", outbox.writer, item.n, outbox.session_id, reason, line)
    (key,) = await store.put_dead_letters([letter])
    _log.error("entry %s is refused by the stream (%s): dead letter %s", item.id, reason, key)
    return EntryRefusedError(reason, key)
