"""The process that moves entries from the stream into journals; `python -m journal_worker` runs it."""
