"""The journal that the seed functions share in a process, and what they need to know of a session."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from streamjournal.client import Journal
from streamjournal.core.settings import Settings
from streamjournal.read.filters import Filter
from streamjournal.read.merged import MergedRead
from streamjournal.store.names import journal_key


class _Shared:
    """One journal for the process, made when it is first needed; a forked child goes on with it."""

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.journal: Journal | None = None

    def renew_lock(self) -> None:
        """In a forked child: a thread of the parent may have held it."""
        self.making = threading.Lock()


_shared = _Shared()
os.register_at_fork(after_in_child=_shared.renew_lock)


def use_journal(journal: Journal | None) -> None:
    """Have the seed functions use a journal of yours; None goes back to one made from the environment.

    Whoever hands one in also closes it. The one from the environment sends what is pending at the
    interpreter's exit, as every journal does.
    """
    with _shared.making:
        _shared.journal = journal


def shared_journal() -> Journal:
    """The journal of this process.

    Raises:
        SettingsError, NotConfiguredError: it cannot be made from the environment.
    """
    with _shared.making:
        if _shared.journal is None:
            _shared.journal = Journal()
        return _shared.journal


def journal_uri(settings: Settings, session_id: str) -> str:
    """Where a session's journal is, or will be: an s3:// or file:// URI."""
    key = journal_key(settings.prefix, session_id)
    if settings.embedded:
        return (settings.home_path.resolve() / key).as_uri()
    return f"s3://{settings.bucket_name()}/{key}"


class Count(NamedTuple):
    """How many lines a merged read would give.

    Args:
        missing: why it may be too few; empty if it is exact.
    """

    entries: int
    missing: list[str]


class _Counting(Filter):
    """Lets no line pass, and counts those that it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.passes_all = False
        self.lines = 0

    def __call__(self, line: bytes) -> bool:  # noqa: ARG002  # each counts
        self.lines += 1
        return False


def count_entries(journal: Journal, session_id: str) -> Count:
    """Count a session's lines without reading its journal: the summary in the journal's metadata knows
    those in it, and the stream is gone through for what is not in it yet. Both are of one version.

    Raises:
        UnavailableError, NotConfiguredError: the journal cannot be read.
    """
    counting = _Counting()
    reading = journal._reader()  # noqa: SLF001  # the reader's loop, its adapters and what this process
    reader = journal._async  # noqa: SLF001  # wrote: a journal of our own would have to open them again

    async def count() -> MergedRead:
        merged = MergedRead(
            reader._reach(),  # noqa: SLF001
            session_id,
            counting,
            last=0,
            own=lambda: reader._own(session_id),  # noqa: SLF001
        )
        async for _ in merged.blocks():
            pass
        return merged

    merged = reading.call(count)
    missing = [f"{it.what}: {it.why}" for it in merged.missing]
    if merged.head is None:
        return Count(counting.lines, missing)
    if merged.head.meta is None:  # an older tool's journal, which says nothing of itself: count its lines
        return Count(sum(1 for _ in journal.read(session_id)), missing)
    return Count(merged.head.meta.summary.entries + counting.lines, missing)
