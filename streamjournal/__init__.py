"""streamjournal: a session journal for AI agents."""
