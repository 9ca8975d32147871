"""Every error that streamjournal raises, in one tree, each saying what the caller can do.

StreamjournalError
├── InvalidEntryError        (ValueError)   the entry breaks a bound; change it and emit again
├── SettingsError            (ValueError)   a setting cannot be used; the text names it
├── CursorError              (ValueError)   the cursor is not ours, or of another session
├── BufferFullError          the buffer is full and the policy is "raise"; emit later, or drop
├── ClosedJournalError       the journal was closed; open a new one
├── NoCurrentSessionError    (LookupError)  no session around the calling code; open one, or name one
├── DeliveryError            an awaited receipt will never be acknowledged
│   ├── EntryDroppedError    the overflow policy dropped the entry, or close() gave up in memory
│   └── EntryRefusedError    the stream refused the entry for good; it is a dead letter now
├── UnavailableError         a service did not answer; the same call may work later
│   ├── StreamUnavailableError
│   ├── StoreUnavailableError
│   ├── LeasesUnavailableError
│   └── ThrottledError       asked too often; wait, then ask again
├── NotConfiguredError       missing stream, bucket, table or credentials; the text says what to do
│   └── ForeignLeaseTableError  the lease table is another application's; name one of its own
├── UnsafeStoreError         the store ignores conditional writes; a worker must not run against it
├── CommitError              what a conditional write to a journal can meet (the committer resolves them)
│   ├── CommitConflictError  the journal is not at the expected version; nothing was written
│   ├── CommitUnknownError   no answer: it may or may not have been written
│   ├── JournalGoneError     the journal that was to be made longer does not exist any more
│   └── CommitRefusedError   the store refuses this write for good
├── BadAggregateError        (ValueError)   a record begins as an aggregate, and is none
├── DeadLetterError          an object among the dead letters is none; look at it by hand
├── RecordsTrimmedError      the position asked for is older than the stream's retention
├── LeaseLostError           somebody else holds the lease now; stop working on that shard
└── SpoolError               a spool file cannot be used
    ├── SpoolFormatError     not a spool, or of a newer version
    └── SpoolBusyError       its writer is alive, or another process is recovering it
"""

from __future__ import annotations


class StreamjournalError(Exception):
    """Root of everything that streamjournal raises on purpose."""


class InvalidEntryError(StreamjournalError, ValueError):
    """An entry breaks a bound. `field` names the argument; nothing was accepted."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class SettingsError(StreamjournalError, ValueError):
    """A setting cannot be used. `setting` is its name as an argument."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


class CursorError(StreamjournalError, ValueError):
    """The cursor cannot be read, or belongs to another session."""


class BufferFullError(StreamjournalError):
    """The emit buffer is full and its policy is to raise."""

    def __init__(self, buffered: int, bound: int) -> None:
        super().__init__(
            f"the emit buffer holds {buffered} of {bound} bytes that the stream has not "
            "acknowledged; emit again later, raise buffer_bytes, or use overflow='drop'"
        )
        self.buffered = buffered
        self.bound = bound


class ClosedJournalError(StreamjournalError):
    """emit, read or tail after close()."""

    def __init__(self) -> None:
        super().__init__("this journal is closed; open a new Journal to go on")


class NoCurrentSessionError(StreamjournalError, LookupError):
    """`current_session()` was called outside every session."""

    def __init__(self) -> None:
        super().__init__(
            "there is no session around this code; call it inside `with journal.session(…)`, a span or a "
            "traced function, or pass the session along (a thread that was started without a copy of the "
            "context does not inherit it)"
        )


class DeliveryError(StreamjournalError):
    """A receipt that will never be acknowledged."""


class EntryDroppedError(DeliveryError):
    """The entry was not kept: the overflow policy dropped it, or it was in memory only at close."""


class EntryRefusedError(DeliveryError):
    """The stream refused the entry for good. `dead_letter` is its key in the store, if it got there."""

    def __init__(self, reason: str, dead_letter: str | None = None) -> None:
        where = f"; it is kept as dead letter {dead_letter}" if dead_letter else ""
        super().__init__(f"the stream refused the entry: {reason}{where}")
        self.reason = reason
        self.dead_letter = dead_letter


class UnavailableError(StreamjournalError):
    """A service did not answer, or not in time; the same call may work later."""


class StreamUnavailableError(UnavailableError):
    """The stream could not be reached."""


class StoreUnavailableError(UnavailableError):
    """The journal store could not be reached, or has no room."""


class LeasesUnavailableError(UnavailableError):
    """The lease table could not be reached."""


class ThrottledError(UnavailableError):
    """The service asks for fewer requests."""


class NotConfiguredError(StreamjournalError):
    """Something that must exist does not: credentials, a stream, a bucket, a table."""


class ForeignLeaseTableError(NotConfiguredError):
    """The table holds leases of another application, or of another sink; a worker must not touch them."""


class UnsafeStoreError(StreamjournalError):
    """The store accepts a write whose precondition is false, so journals could be overwritten."""


class CommitError(StreamjournalError):
    """What a conditional write to a journal can meet."""


class CommitConflictError(CommitError):
    """The journal is not at the version that the write expected; nothing was written."""


class CommitUnknownError(CommitError):
    """The store did not answer in time: the write may or may not have happened."""


class JournalGoneError(CommitError):
    """The journal that was to be made longer does not exist any more."""


class CommitRefusedError(CommitError):
    """The store refuses this write for good (not a matter of time)."""


class BadAggregateError(StreamjournalError, ValueError):
    """A record that begins as an aggregate but is none; poison, to be kept as a dead letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a usable aggregated record: {reason}")
        self.reason = reason


class DeadLetterError(StreamjournalError):
    """An object among the dead letters cannot be read as one. `key` is its name in the store."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key} is no dead letter: {problem}")
        self.key = key


class RecordsTrimmedError(StreamjournalError):
    """The position is older than what the stream still has: a gap to report, not to hide."""

    def __init__(self, shard_id: str, sequence: str | None) -> None:
        super().__init__(
            f"shard {shard_id} no longer holds the records after {sequence or 'its start'}: "
            "they are older than the stream's retention"
        )
        self.shard_id = shard_id
        self.sequence = sequence


class LeaseLostError(StreamjournalError):
    """The lease changed hands. `owner` is who holds it now, if known."""

    def __init__(self, lease_key: str, owner: str | None) -> None:
        super().__init__(f"lease {lease_key} is held by {owner or 'nobody'} now")
        self.lease_key = lease_key
        self.owner = owner


class SpoolError(StreamjournalError):
    """A spool file cannot be used."""


class SpoolFormatError(SpoolError):
    """The file is not a spool, or was written by a newer version."""


class SpoolBusyError(SpoolError):
    """The spool's writer is alive, or another process is recovering it."""
