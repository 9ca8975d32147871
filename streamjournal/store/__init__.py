"""The store: one JSONL journal per session, made longer by conditional writes only."""
