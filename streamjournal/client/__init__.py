"""What users hold: `Journal` and `AsyncJournal`, with the same methods.

Emitting is the same plain call in both. Reading is async; the sync class runs the async one on a
thread with an event loop of its own, so there is one implementation.
"""

from streamjournal.client.async_journal import AsyncJournal
from streamjournal.client.journal import Journal
from streamjournal.client.session import AsyncSession, Session, current_session

__all__ = ["AsyncJournal", "AsyncSession", "Journal", "Session", "current_session"]
