"""streamjournal: a session journal for AI agents.

Entries that an agent emits cross a stream into one JSONL journal per session, and a merged read sees
them all, the ones that were emitted a moment ago included.
"""

from streamjournal.client import AsyncJournal, AsyncSession, Journal, Session, current_session
from streamjournal.core.entry import Entry
from streamjournal.core.errors import (
    BufferFullError,
    ClosedJournalError,
    CursorError,
    DeliveryError,
    EntryDroppedError,
    EntryRefusedError,
    InvalidEntryError,
    NoCurrentSessionError,
    NotConfiguredError,
    SettingsError,
    StoreUnavailableError,
    StreamjournalError,
    StreamUnavailableError,
    UnavailableError,
)
from streamjournal.core.settings import Settings
from streamjournal.emit.receipt import Delivery, Receipt
from streamjournal.emit.spans import Span
from streamjournal.read.verification import Verification

__version__ = "0.1.0"

__all__ = [
    "AsyncJournal",
    "AsyncSession",
    "BufferFullError",
    "ClosedJournalError",
    "CursorError",
    "Delivery",
    "DeliveryError",
    "Entry",
    "EntryDroppedError",
    "EntryRefusedError",
    "InvalidEntryError",
    "Journal",
    "NoCurrentSessionError",
    "NotConfiguredError",
    "Receipt",
    "Session",
    "Settings",
    "SettingsError",
    "Span",
    "StoreUnavailableError",
    "StreamUnavailableError",
    "StreamjournalError",
    "UnavailableError",
    "Verification",
    "__version__",
    "current_session",
]
