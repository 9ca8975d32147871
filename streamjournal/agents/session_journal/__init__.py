"""Five functions under the names that older agents import, over the journal of this process.

    from streamjournal.agents.session_journal import write_journal_entry

Each answers with JSON text, and none but `write_journal_entry_with_retry` raises: what goes wrong is
`{"status": "error", "message": …}`. They are plain callables, and `Agent(tools=[…])` of Strands takes
them as they are.
"""

from streamjournal.agents.session_journal.functions import (
    extract_journal_entries,
    read_journal,
    setup_journal_bucket,
    write_journal_entry,
    write_journal_entry_with_retry,
)
from streamjournal.agents.session_journal.shared import use_journal

__all__ = [
    "extract_journal_entries",
    "read_journal",
    "setup_journal_bucket",
    "use_journal",
    "write_journal_entry",
    "write_journal_entry_with_retry",
]
